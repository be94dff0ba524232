"""The suite itself: one test that ends its worker is one failed test, and the others go on."""

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


@pytest.mark.parametrize(("bad", "workers"), [(FROZEN, 2), (KILLED, 1)], ids=["frozen", "killed"])
def test_a_test_that_ends_its_worker_is_one_failed_test(tmp_path: Path, bad: str, workers: int) -> None:
    """It is named, not tried again, and all the others are run."""
    suite = tmp_path / "test_it.py"
    suite.write_text(SUITE.format(bad=bad.replace("\n", "\n    ")))
    plugins = [
        f"-p{name}" for name in ("xdist", "pytest_rerunfailures", "pytest_timeout", "no:cacheprovider", "conftest")
    ]
    settings = ["-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(tmp_path), "-o", "faulthandler_timeout=2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *settings, "-n", str(workers), str(suite)],
        env={**environment, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 10 passed" in done.stdout.splitlines()[-1]
    assert "crashed while running 'test_it.py::test_bad'" in done.stdout
    assert ("Timeout (0:00:02)!" in done.stderr and " in run" in done.stderr) is (bad == FROZEN)
