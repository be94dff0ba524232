"""Starts a command and ends it when the process that asked for it is gone, however that went.

Run as a script, `_keeper.py LOCK KEPT COMMAND...`, in a session of its own, so that Ctrl-C in the terminal, or the
terminal's end, reaches neither the keeper nor what it keeps. It holds the file LOCK meanwhile: two commands on the same
data would spoil them. A word, `stop` or `kill`, on standard input says how to end; the end of the input means `stop`,
and that nobody will come back for the data: LOCK's folder is removed unless KEPT is `kept`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import IO

PATIENCE = 20.0  # seconds between asking a process to end and making it
KEPT, REMOVED = "kept", "removed"  # what becomes of the data in the end
LOCK_PATIENCE = 5.0  # seconds; a program that was ended and is started again finds its old broker still stopping


def lock(path: str) -> IO[bytes]:
    """Take the file for this process alone, for as long as the returned file is open."""
    deadline = time.monotonic() + LOCK_PATIENCE
    file = open(path, "ab")  # noqa: PTH123, SIM115  stays open
    while True:
        try:
            if sys.platform == "win32":
                import msvcrt  # noqa: PLC0415

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl  # noqa: PLC0415

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline:
                sys.exit("another broker runs in this folder")
            time.sleep(0.1)
        else:
            return file


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ask `child` to end, and make it when it does not."""
    child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()


def obey(child: subprocess.Popen[bytes], deserted: threading.Event) -> None:
    """Wait for one word on standard input and act on it; without a word we are deserted."""
    word = os.read(0, 64)  # not sys.stdin: a thread that waits in it breaks the interpreter's exit
    if not word:
        deserted.set()
    if word.strip() == b"kill":
        child.kill()
    else:
        stop(child)


def keep(command: list[str], folder: str | None = None) -> int:
    """Run `command` until it ends or is to end; return its exit status.

    Args:
        command: what to run.
        folder: to be removed when nobody will come back for it.
    """
    deserted = threading.Event()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  the kit's own command

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, on_signal)
    threading.Thread(target=obey, args=(child, deserted), daemon=True).start()
    status = child.wait()
    if deserted.is_set() and folder:
        shutil.rmtree(folder, ignore_errors=True)
    return status


if __name__ == "__main__":
    with lock(sys.argv[1]):
        sys.exit(keep(sys.argv[3:], None if sys.argv[2] == KEPT else os.path.dirname(sys.argv[1])))  # noqa: PTH120
