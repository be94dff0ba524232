"""How the running average went, and where attempts failed: what a picture of characters is drawn from."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import compress
from typing import NamedTuple

from orderkit.account.average import UNIT, RunningAverage
from orderkit.account.tally import AVERAGED, DEAD, FATES, RETRY, SKIPPED
from orderkit.consuming.partition import Partition
from orderkit.ledger import Ledger
from orderkit.members.commits import Key

MOST = 2_048  # points that are kept; of a longer run every two become one, again and again
IS_AVERAGED = bytes(fate == AVERAGED for fate in range(len(FATES))).ljust(256, b"\0")
IS_FINAL = bytes(fate in (AVERAGED, DEAD, SKIPPED) for fate in range(len(FATES))).ljust(256, b"\0")


class Point(NamedTuple):
    """A stretch of delivery attempts.

    Args:
        orders: done with, up to its end.
        mean: the running average at its end; `None` before the first order.
        retried: an attempt in it failed, and was followed by another.
        died: an attempt in it failed, and was the order's last.
    """

    orders: int
    mean: float | None
    retried: bool
    died: bool


class Holdings:
    """The average in the partitions that a consumer has or had; one that was given back stays as it was then."""

    def __init__(self) -> None:
        self._parts: dict[Key, Partition] = {}
        self._own: dict[Key, RunningAverage] = {}  # what this consumer did in a partition before it got it back

    def look(self, parts: Iterable[Partition]) -> None:
        """Take in the partitions that the consumer has, and those that it has given back."""
        for part in parts:
            known = self._parts.get(part.key)
            if known is not None and known is not part:
                own = self._own.get(part.key, RunningAverage())
                self._own[part.key] = own.merge(_less(known.average, known.inherited))
            self._parts[part.key] = part

    @property
    def average(self) -> RunningAverage:
        """Of all orders of the group so far, exactly."""
        return _merged(part.average for part in self._parts.values())

    @property
    def inherited(self) -> RunningAverage:
        """Of the orders that others have averaged, or this consumer's own last run."""
        return _less(_merged(part.inherited for part in self._parts.values()), _merged(self._own.values()))


def _merged(averages: Iterable[RunningAverage]) -> RunningAverage:
    merged = RunningAverage()
    for average in averages:
        merged = merged.merge(average)
    return merged


def _less(average: RunningAverage, part: RunningAverage) -> RunningAverage:
    return RunningAverage(average.count - part.count, average.total - part.total)


class Course:
    """Reads a ledger as it grows, each event once, and keeps a bounded number of points.

    Args:
        ledger: what to read.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.points: list[Point] = []
        self._ledger = ledger
        self._each = 1  # events in a point
        self._seen = 0  # events that are in the points
        self._orders = self._count = 0
        self._total = 0.0

    def follow(self, inherited: RunningAverage) -> None:
        """Take in what is new.

        Args:
            inherited: the average before the first event of the ledger.
        """
        (prices, fates), dropped, _ = self._ledger.rows("price", "fate")
        start, many, before = max(0, self._seen - dropped), len(fates), inherited.total / UNIT
        self._each = max(self._each, (many - start) // MOST)  # no frame may take longer for a million events
        while start < many:
            some = bytes(fates[start : start + self._each])
            averaged = some.translate(IS_AVERAGED)
            self._orders += sum(some.translate(IS_FINAL))
            self._count += sum(averaged)
            self._total += sum(compress(prices[start : start + self._each], averaged))
            count = inherited.count + self._count
            mean = (before + self._total) / count if count > 0 else None
            self.points.append(Point(self._orders, mean, RETRY in some, DEAD in some))
            start += self._each
        self._seen = dropped + many
        while len(self.points) > MOST:
            self._thin()

    def _thin(self) -> None:
        """Make one point of every two."""
        early, late = self.points[:-1:2], self.points[1::2]
        left = self.points[2 * len(late) :]
        pairs = zip(early, late, strict=True)
        self.points = [Point(b.orders, b.mean, a.retried or b.retried, a.died or b.died) for a, b in pairs] + left
        self._each *= 2
