"""Starts a command and ends it when the process that asked for it is gone, however that went.

Run as a script, in a session of its own, so that Ctrl-C in the terminal reaches neither the keeper nor what it keeps.
A line `stop` or `kill` on standard input says how to end; the end of the input means `stop`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from types import FrameType

PATIENCE = 20.0  # seconds between asking a process to end and making it


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ask `child` to end, and make it when it does not."""
    child.terminate()
    try:
        child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()


def obey(child: subprocess.Popen[bytes]) -> None:
    """Wait for one word on standard input and act on it."""
    word = os.read(0, 64)  # not sys.stdin: a thread that waits in it breaks the interpreter's exit
    if word.strip() == b"kill":
        child.kill()
    else:
        stop(child)


def keep(command: list[str]) -> int:
    """Run `command` until it ends or is to end; return its exit status."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603  the kit's own command

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, on_signal)
    threading.Thread(target=obey, args=(child,), daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
