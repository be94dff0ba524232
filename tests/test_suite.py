"""The suite itself: what ends its worker is one failed test, and only what comes late has a second try."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FROZEN = """
import ctypes
library, lock = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
library.pthread_mutex_lock(lock)
library.pthread_mutex_lock(lock)  # it waits for itself, and holds the GIL: no signal gets through
"""
KILLED = """
import os
os._exit(9)
"""
SUITE = """
import pytest

def run():
{bad}

@pytest.mark.parametrize("number", range(5))
def test_before(number): pass

def test_bad(): run()

@pytest.mark.parametrize("number", range(5))
def test_after(number): pass
"""
TRIES = """
from types import SimpleNamespace
from helpers import Background, Late

tried = []

def once(what):
    tried.append(what)
    return tried.count(what) == 1

def test_late():
    if once("late"): raise Late("it took its time")

def test_wrong():
    assert not once("wrong")

def test_wrong_and_late():
    try:
        raise Late("it took its time")
    finally:
        assert not once("wrong and late")

def test_failed_meanwhile():
    def run():
        raise ValueError("broken")
    with Background(SimpleNamespace(run=run, stop=lambda: None)):
        if once("failed meanwhile"): raise Late("it never came")
"""
LINE = TRIES.splitlines().index('    if once("late"): raise Late("it took its time")') + 1


def suite(folder: Path, text: str, workers: int) -> subprocess.CompletedProcess[str]:
    """Run a suite of its own, with the settings of ours."""
    (folder / "test_it.py").write_text(text)
    plugins = [
        f"-p{name}" for name in ("xdist", "pytest_rerunfailures", "pytest_timeout", "no:cacheprovider", "conftest")
    ]
    settings = ["-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(folder), "-o", "faulthandler_timeout=2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *settings, "-n", str(workers), "test_it.py"],
        env={**environment, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("bad", "workers"), [(FROZEN, 2), (KILLED, 1)], ids=["frozen", "killed"])
def test_a_test_that_ends_its_worker_is_one_failed_test(tmp_path: Path, bad: str, workers: int) -> None:
    """It is named, not tried again, and all the others are run."""
    done = suite(tmp_path, SUITE.format(bad=bad.replace("\n", "\n    ")), workers)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 10 passed" in done.stdout.splitlines()[-1]
    assert "crashed while running 'test_it.py::test_bad'" in done.stdout
    assert ("Timeout (0:00:02)!" in done.stderr and " in run" in done.stderr) is (bad == FROZEN)


def test_only_what_comes_late_has_a_second_try(tmp_path: Path) -> None:
    """It is told of, with the line that came late. No wrong number has one, and no consumer that fails meanwhile."""
    done = suite(tmp_path, TRIES, workers=1)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("RERUN")] == ["test_it.py::test_late"]
    assert f"tried again: test_it.py::test_late, line {LINE}: helpers.Late: it took its time" in lines
    assert {line.split()[1] for line in lines if line.startswith("FAILED")} == {
        "test_it.py::test_wrong", "test_it.py::test_wrong_and_late", "test_it.py::test_failed_meanwhile",
    }  # fmt: skip
    assert "3 failed, 1 passed, 1 rerun" in lines[-1]
