"""How many dead letters are too many: a budget, and what happens when it is spent.

A dead-letter topic is for the odd bad order. When every order fails, the fault is elsewhere, and moving all of them
there only makes more work later. Over its budget the consumer stops moving them: the partition waits, its offset stays,
lag grows. Now and then the order that waits is tried again (the circuit is half-open); when it gets through, all goes
on. One that no attempt can help, poison or permanent, goes to the dead letters then: one for each probe.

The price: while the budget is spent, an order whose attempts are spent holds up all that lies behind it.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from orderkit.consuming.saved import History
from orderkit.errors import UsageError

log = logging.getLogger("orderkit")


@dataclass(frozen=True)
class Limits:
    """What a budget allows.

    Args:
        share: of the latest `window` finished orders, as many may be dead letters, from 0 to 1.
        window: orders.
        in_a_row: dead letters without an averaged order between them.
        probe: seconds until an order is tried again; it doubles up to `longest`.
        longest: seconds.

    Raises:
        UsageError: a number out of range.
    """

    share: float = 0.5
    window: int = 100
    in_a_row: int = 20
    probe: float = 1.0
    longest: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(f"The dead-letter budget is a share from 0 to 1, not {self.share}.")
        if self.window < 1 or self.in_a_row < 1:
            raise UsageError(f"A budget of {self.in_a_row} in a row of {self.window} orders allows nothing.")
        if not 0 < self.probe <= self.longest:
            raise UsageError(f"A spent budget is probed after {self.probe} s, at most {self.longest} s: not a range.")


class Budget:
    """Counts dead letters against limits.

    Args:
        limits: what is allowed.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.trouble: str | None = None
        self._latest: deque[tuple[bool, int]] = deque()  # runs of good and of dead orders
        self._counted = 0
        self._dead = 0
        self._row = 0

    @property
    def spent(self) -> bool:
        """Whether no further dead letter is allowed just now."""
        return self.trouble is not None

    def good(self, many: int) -> None:
        """Count orders that were averaged; if the budget was spent, the outage is over."""
        if not many:
            return
        if self.spent:
            log.warning("orders get through again: the dead-letter budget is whole")
            self.trouble = None
            self._latest.clear()
            self._counted = self._dead = 0
        self._row = 0
        self._count(dead=False, many=many)

    def _count(self, *, dead: bool, many: int) -> None:
        self._latest.append((dead, many))
        self._counted += many
        self._dead += dead * many
        while (over := self._counted - self.limits.window) > 0:
            gone, number = self._latest.popleft()
            if number > over:
                self._latest.appendleft((gone, number - over))
            self._counted -= min(number, over)
            self._dead -= gone * min(number, over)

    def allows(self) -> bool:
        """Count one more dead letter, if it is within the budget."""
        limits = self.limits
        leaving = self._counted == limits.window and self._latest[0][0]  # the window moves on by one
        share = (self._dead + 1 - leaving) / limits.window
        if self._row >= limits.in_a_row or share > limits.share:
            row = self._row >= limits.in_a_row
            why = f"{self._row} in a row" if row else f"{self._dead} of the latest {self._counted}"
            if not self.spent:
                log.warning("the dead-letter budget is spent (%s): partitions wait, their offsets stay", why)
            self.trouble = f"dead-letter budget spent: {why}; it waits, and tries one order now and then"
            return False
        self._row += 1
        self._count(dead=True, many=1)
        return True

    def wait(self, history: History) -> float:
        """Give the seconds until a record is tried again that may not be a dead letter now: longer each time."""
        after = min(self.limits.longest, 2 * history.wait if history.held else self.limits.probe)
        history.held, history.wait = True, after
        return after
