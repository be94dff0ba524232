"""A worker's process, as the trial sees it: told its job, listened to, and asked for its last words."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, cast

from orderkit.crash.worker import Job

AS_USUAL = "no complaint"


@dataclass
class Process:
    """A worker while it runs.

    Args:
        name: of the worker.
        popen: its process.
        errors: what it writes to standard error.
        reader: the thread that listens to it.
    """

    name: str
    popen: subprocess.Popen[bytes]
    errors: IO[bytes]
    reader: threading.Thread

    def complaint(self) -> str:
        """Give the last line that it wrote to standard error."""
        self.errors.seek(0)
        lines = [line for line in self.errors.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else AS_USUAL

    def close(self) -> None:
        """Close the files of a process that has ended."""
        cast(IO[bytes], self.popen.stdout).close()
        self.errors.close()


def start(job: Job, tell: Callable[[tuple[str, list[Any]]], object]) -> Process:
    """Start a worker.

    Args:
        job: what it is told.
        tell: called with its name and each line of what it tells, in a thread of its own.
    """
    errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the process runs
    popen = subprocess.Popen(
        [sys.executable, "-c", "from orderkit.crash.worker import main; main()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True,
    )  # fmt: skip
    with contextlib.suppress(BrokenPipeError), cast(IO[bytes], popen.stdin) as told:
        told.write(job.to_text().encode())
    reader = threading.Thread(target=_listen, args=(job.worker, popen, tell), daemon=True)
    reader.start()
    return Process(job.worker, popen, errors, reader)


def _listen(worker: str, popen: subprocess.Popen[bytes], tell: Callable[[tuple[str, list[Any]]], object]) -> None:
    for line in popen.stdout or ():
        with contextlib.suppress(json.JSONDecodeError):  # cut off in the middle
            tell((worker, json.loads(line)))
