"""`orderkit notebook` opens JupyterLab on the notebooks, wherever they came from."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest
from helpers import PATIENCE, Late

from orderkit.cli import main
from orderkit.cli.notebook import FIRST, find_notebooks
from orderkit.errors import OrderkitError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Lay a package folder out as a wheel does, with the notebooks inside."""
    package = tmp_path / "site-packages" / "orderkit"
    shutil.copytree(ROOT / "notebooks", package / "notebooks")
    return package


def test_a_source_tree_is_opened_in_place() -> None:
    """Who has the sources works on the sources."""
    assert find_notebooks(None) == ROOT / "notebooks"


def test_a_wheels_notebooks_are_copied_and_work_done_is_kept(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copies are whole and writable; a second call brings back what is missing and changes nothing else."""
    monkeypatch.chdir(tmp_path)
    place = find_notebooks(None, installed)
    assert place == tmp_path / "orderkit-notebooks"
    there = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {path.name for path in place.glob("*.ipynb")} == there
    assert len(list((place / "solutions").glob("*.py"))) == len(there)
    (place / FIRST).write_text("mine")
    (place / "05_try_again.ipynb").unlink()
    assert find_notebooks(None, installed) == place
    assert (place / FIRST).read_text() == "mine"
    assert (place / "05_try_again.ipynb").is_file()


def test_a_folder_that_cannot_be_one_is_a_clear_line(installed: Path, tmp_path: Path) -> None:
    """A file is in the way: the line names it and the option."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(OrderkitError, match=r"cannot be copied to .*taken.*Choose another folder"):
        find_notebooks(str(tmp_path / "taken"), installed)
    with pytest.raises(OrderkitError, match="no notebooks"):
        find_notebooks(None, tmp_path / "bare" / "orderkit")


def test_without_jupyterlab_there_is_one_line() -> None:
    """It says what to install."""
    code = "import sys; sys.modules['jupyterlab'] = None; from orderkit.cli import main; main(['notebook'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert 'pip install "orderkit[lab]"' in done.stderr


def test_options_of_jupyterlab_are_no_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a folder, what stands after `--` is JupyterLab's, all of it."""
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _file, command: ran.append(command))
    monkeypatch.setattr(subprocess, "call", ran.append)  # where another program cannot take this one's place
    with pytest.raises(SystemExit):
        main(["notebook", "--", "--allow-root", "--IdentityProvider.token=x"])
    assert f"Notebooks: {ROOT / 'notebooks'}" in capsys.readouterr().out
    assert ran[0][-2:] == ["--allow-root", "--IdentityProvider.token=x"]
    assert f"--ServerApp.root_dir={ROOT / 'notebooks'}" in ran[0]


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_it_serves_the_copies_and_ends_on_a_signal(tmp_path: Path, free_port: int) -> None:
    """JupyterLab comes up on the copies, lists them, and nothing is left behind when it is asked to end."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip('needs the extra: pip install "orderkit[lab]"')
    more = ["--", "--allow-root", "--IdentityProvider.token=secret", "--ServerApp.port_retries=0"]
    command = [sys.executable, "-m", "orderkit", "notebook", "mine", "--no-browser", "--port", str(free_port), *more]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        listing = _wait_for(f"http://127.0.0.1:{free_port}/api/contents?token=secret", process)
        assert FIRST in {entry["name"] for entry in json.loads(listing)["content"]}
        assert (tmp_path / "mine" / FIRST).is_file()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert "Notebooks: " in (tmp_path / "log").read_text()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> bytes:
    deadline = time.monotonic() + 60 * PATIENCE
    while True:
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                content: bytes = answer.read()
                return content
        except (URLError, ConnectionError, TimeoutError):
            assert process.poll() is None
            if time.monotonic() > deadline:
                raise Late(f"{address} does not answer") from None
            time.sleep(0.2)
