"""How many orders theory lets die, while the parameters change under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isnan
from typing import Any

import numpy as np

from orderkit.orders.faults import Faults
from orderkit.retry import RetryPolicy

SURE = 2.0  # standard deviations: 95 of 100 runs stay within


def dead_share(faults: Faults, policy: RetryPolicy) -> float:
    """Give the share of orders that die: r + (1 - r)(q + (1 - q) p^k), with poison r, refusals q and k attempts."""
    r, q = faults.poison_rate, faults.permanent_rate
    return r + (1 - r) * (q + (1 - q) * faults.transient_rate**policy.max_attempts)


@dataclass(frozen=True)
class Change:
    """A parameter was set anew.

    Args:
        event: how many attempts had been made by then.
        order: how many orders had their fate by then.
        share: of the orders from there on, those that die.
        knob: what was changed; empty for the start.
        old: its value before, in words.
        new: and from here on.
        further: the same knob was being moved already.
    """

    event: int
    order: int
    share: float
    knob: str = ""
    old: str = ""
    new: str = ""
    further: bool = False

    @property
    def told(self) -> str:
        """The change in words."""
        return f"{self.knob} {self.old} → {self.new}"


class Expected:
    """The dead that theory expects among the first n orders: each counts as the parameters were when it had its fate.

    Args:
        share: of all orders, those that die as things are at the start; NaN where theory does not know.
    """

    def __init__(self, share: float) -> None:
        self.known = not isnan(share)
        self.changes = [Change(0, 0, share)]

    def change(self, change: Change) -> None:
        """Go on with another share from here."""
        self.changes.append(change)

    def dead(self, orders: Any) -> tuple[Any, Any]:
        """Give the number expected among so many orders, and half the width of its band; numbers or arrays of them."""
        mean, variance = np.zeros(np.shape(orders)), np.zeros(np.shape(orders))
        for share, many in _parts(self.changes, np.asarray(orders)):
            mean = mean + share * many
            variance = variance + share * (1 - share) * many
        return mean, SURE * np.sqrt(variance)


def _parts(changes: Sequence[Change], orders: Any) -> list[tuple[float, Any]]:
    """Say for each spell between two changes how many of the orders are in it."""
    ends = [*(change.order for change in changes), np.inf]
    return [
        (change.share, np.clip(orders - start, 0, max(0.0, end - start)))
        for change, (start, end) in zip(changes, pairwise(ends), strict=True)
    ]
