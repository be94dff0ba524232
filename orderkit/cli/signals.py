"""What ends a command: Ctrl-C, `kill`, and a terminal that goes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_interrupted = threading.Event()  # Python drops what a handler raises in the middle of an import, say: this stays


def ending_signals() -> list[signal.Signals]:
    """List what asks a program to end: Ctrl-C, `kill`, and a terminal that goes, unless `nohup` keeps that away."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    heard = [hangup] if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *heard]


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let all of them interrupt as Ctrl-C does, so that whatever a command has started ends with it."""
    heard = ending_signals() if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.getsignal(number) for number in heard}
    _interrupted.clear()
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        _interrupted.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: object) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


@contextmanager
def stop_on_signal(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` on Ctrl-C, SIGTERM and SIGHUP; a second Ctrl-C interrupts at once, and so does an earlier one."""
    if _interrupted.is_set():
        raise KeyboardInterrupt

    def ask(number: int, _frame: object) -> None:
        signal.signal(number, signal.default_int_handler)
        stop()

    before = {number: signal.signal(number, ask) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
