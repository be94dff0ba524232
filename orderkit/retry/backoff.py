"""How long to wait before the next delivery attempt.

Each back-off is a function of the attempt that failed (1-based), the wait before it, and a draw `u` from [0, 1). It
reads no clock and rolls no dice, so a test or a chart can ask it anything. Formulas: exponential back-off as Ethernet
has it, and the jitters of Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from orderkit.errors import UsageError, check_known


def fixed(base: float, _cap: float, _attempt: int, _last: float, _u: float) -> float:
    """Wait `base` seconds each time."""
    return base


def exponential(base: float, cap: float, attempt: int, _last: float, _u: float) -> float:
    """Wait base, 2 base, 4 base, ... seconds, at most `cap`."""
    return min(cap, base * 2.0 ** min(attempt - 1, 1000))


def full_jitter(base: float, cap: float, attempt: int, last: float, u: float) -> float:
    """Wait anything between 0 and the exponential wait: the flattest load."""
    return u * exponential(base, cap, attempt, last, u)


def equal_jitter(base: float, cap: float, attempt: int, last: float, u: float) -> float:
    """Wait half the exponential wait, and anything between 0 and the other half."""
    return (1 + u) / 2 * exponential(base, cap, attempt, last, u)


def decorrelated(base: float, cap: float, _attempt: int, last: float, u: float) -> float:
    """Wait anything between `base` and three times the wait before."""
    return min(cap, base + u * max(0.0, 3 * max(last, base) - base))


Formula = Callable[[float, float, int, float, float], float]
FORMULAS: dict[str, Formula] = {
    "fixed": fixed,
    "exponential": exponential,
    "full-jitter": full_jitter,
    "equal-jitter": equal_jitter,
    "decorrelated": decorrelated,
}


@dataclass(frozen=True)
class Backoff:
    """A named formula with its numbers.

    Args:
        kind: one of `FORMULAS`.
        base: seconds; the first wait, or its bound.
        cap: seconds; no single wait is longer.

    Raises:
        UsageError: an unknown kind, or a negative number.
    """

    kind: str = "exponential"
    base: float = 0.1
    cap: float = 30.0

    def __post_init__(self) -> None:
        check_known("back-off", self.kind, FORMULAS)
        if not (0 <= self.base < float("inf") and 0 <= self.cap < float("inf")):
            raise UsageError(f"Back-off times are seconds, 0 or more: base {self.base}, cap {self.cap}.")

    @property
    def is_drawn(self) -> bool:
        """Whether the wait is a matter of chance."""
        return "jitter" in self.kind or self.kind == "decorrelated"

    def wait(self, attempt: int, last: float = 0.0, u: float = 0.5) -> float:
        """Give the seconds to wait after failed delivery attempt `attempt`.

        Args:
            attempt: the attempt that failed, from 1.
            last: the wait before it, in seconds.
            u: a draw from [0, 1); only the jitters look at it.
        """
        return min(self.cap, FORMULAS[self.kind](self.base, self.cap, attempt, last, u))
