"""What ends a command: Ctrl-C, `kill`, and a terminal that goes."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("orderkit")

PATIENCE = 1.0  # seconds that a command has to end, before it says what keeps it

_interrupted: list[int] = []  # Python drops what a handler raises in the middle of an import, say: this stays


class Interrupted(KeyboardInterrupt):
    """A signal that ends a command at once.

    Args:
        number: of the signal.
        told: what became of the work.
    """

    def __init__(self, number: int = signal.SIGINT, told: str = "interrupted.") -> None:
        super().__init__(told)
        self.status = 128 + number  # as shells have it


def ending_signals() -> list[signal.Signals]:
    """List what asks a program to end: Ctrl-C, `kill`, and a terminal that goes, unless `nohup` keeps that away."""
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    heard = [hangup] if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN else []
    return [signal.SIGINT, signal.SIGTERM, *heard]


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let all of them interrupt as Ctrl-C does, so that whatever a command has started ends with it."""
    heard = ending_signals() if threading.current_thread() is threading.main_thread() else []
    usual = (signal.SIG_DFL, signal.default_int_handler)
    _interrupted.clear()
    try:
        with _handled([number for number in heard if signal.getsignal(number) in usual], _interrupt):
            yield
    finally:
        _interrupted.clear()


def unheard() -> Interrupted | None:
    """Give the interrupt that came, where only an error is heard of: so the client tells what is raised within it."""
    return Interrupted(_interrupted[0]) if _interrupted else None


@contextmanager
def _handled(numbers: list[signal.Signals], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Let `handler` have these signals while the block runs; whoever had them before has them back then."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(number: int, _frame: object) -> None:
    _interrupted.append(number)
    raise Interrupted(number)


@contextmanager
def stop_on_signal(
    stop: Callable[[], object], keeps: Callable[[], str] | None = None, abandoned: str = "interrupted."
) -> Iterator[None]:
    """Call `stop` on Ctrl-C, SIGTERM and SIGHUP; a second Ctrl-C interrupts at once, and so does an earlier one.

    Args:
        stop: asks the work to end.
        keeps: asked a moment later, if the work goes on: gives what it waits for. It is printed.
        abandoned: what a second Ctrl-C says.

    Raises:
        Interrupted: by that one.
    """
    if _interrupted:
        raise Interrupted(_interrupted[0])
    over = threading.Event()

    def wait() -> None:
        if not over.wait(PATIENCE) and keeps is not None:
            log.warning("%s; Ctrl-C once more ends it at once.", keeps(), extra={"event": "ending"})

    def at_once(number: int, _frame: object) -> None:
        raise Interrupted(number, abandoned)

    def ask(number: int, _frame: object) -> None:
        signal.signal(number, at_once)
        stop()
        threading.Thread(target=wait, name="keeps", daemon=True).start()

    with _handled(ending_signals(), ask):
        try:
            yield
        finally:
            over.set()
