"""What happened to every order, attempt by attempt, in columns.

The worker only appends here. Everything else (reports, frames, charts) only reads.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from orderkit.average import RunningAverage
from orderkit.order import Order

if TYPE_CHECKING:
    import pandas as pd

# An attempt's outcome. "undone": it had a final fate that was not committed, and will be delivered again.
FATES = ("averaged", "retry", "dead", "skipped", "undone")
AVERAGED, RETRY, DEAD, SKIPPED, UNDONE = range(5)
NOT_SEEN, TAKEN, FINISHED = range(3)  # in a tally: 3 and more mean finished more than once


class Tally:
    """How often each offset of one partition was finished, and how: two bytes an offset, 20 MB for 10,000,000."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.cells = bytearray()
        self.fates = bytearray()  # the latest final fate of each finished offset

    def _reach(self, low: int, high: int) -> None:
        before, behind = max(0, self.base - low), max(0, high + 1 - self.base - len(self.cells))
        for row in (self.cells, self.fates):
            row[:0] = bytes(before)
            row.extend(bytes(behind))
        self.base = min(self.base, low)

    def take(self, offsets: Sequence[int]) -> None:
        """Note that these records were fetched; a second fetch changes nothing."""
        if self._swap(offsets, NOT_SEEN, TAKEN):
            return
        for offset in offsets:
            self.cells[offset - self.base] |= 0 if self.cells[offset - self.base] else TAKEN

    def finish(self, offsets: Sequence[int], fate: int = AVERAGED) -> None:
        """Note that these records were averaged, dead-lettered or skipped."""
        if self._swap(offsets, TAKEN, FINISHED, fate):
            return
        for offset in offsets:
            i = offset - self.base
            self.cells[i] = min(255, max(TAKEN, self.cells[i]) + 1)
            self.fates[i] = fate

    def _swap(self, offsets: Sequence[int], old: int, new: int, fate: int = AVERAGED) -> bool:
        """Move a gapless run of offsets from one state to another at once, if all of them are in it."""
        low, high = min(offsets), max(offsets)
        self._reach(low, high)
        run = slice(low - self.base, high + 1 - self.base)
        if list(offsets) != list(range(low, high + 1)) or self.cells[run].count(old) != len(offsets):
            return False
        self.cells[run] = bytes([new]) * len(offsets)
        self.fates[run] = bytes([fate]) * len(offsets)
        return True

    def forget_from(self, offset: int) -> list[int]:
        """Void everything from `offset` on, and say how many fates of each kind that was."""
        cut = max(0, offset - self.base)
        void = [0] * len(FATES)
        for state, fate in zip(self.cells[cut:], self.fates[cut:], strict=True):
            void[fate] += max(0, state - TAKEN)
        del self.cells[cut:], self.fates[cut:]
        return void

    def offsets(self, least: int) -> list[int]:
        """List the offsets in this state or a later one."""
        return [self.base + i for i, state in enumerate(self.cells) if state >= least]

    def with_fate(self, fate: int) -> list[int]:
        """List the finished offsets whose latest fate is this one."""
        return [offset for offset in self.offsets(FINISHED) if self.fates[offset - self.base] == fate]

    def once(self) -> list[int]:
        """List the offsets that were finished exactly once."""
        return [self.base + i for i, state in enumerate(self.cells) if state == FINISHED]

    def count(self, *states: int) -> int:
        """Count the offsets in one of these states."""
        return sum(self.cells.count(state) for state in states)

    def doubled(self) -> int:
        """Count how many times an offset was finished beyond its first."""
        often = Counter(self.cells)
        return sum((state - FINISHED) * seen for state, seen in often.items() if state > FINISHED)


class Ledger:
    """Events of all delivery attempts, and a tally of every record.

    Args:
        keep: how many of the latest events to keep; `None` for all. Tallies and counts always cover all of them.
    """

    def __init__(self, keep: int | None = None) -> None:
        self.keep = keep
        self.counts = [0] * len(FATES)
        self.reasons: Counter[str] = Counter()
        self.tallies: dict[tuple[str, int], Tally] = {}
        self.dropped = 0
        self.dropped_average = RunningAverage()  # of the dropped events, so that a frame's running average goes on
        self._whole = Lock()  # held while old events go, so that a frame is never made of halves
        self.at = array("d")
        self.topic: list[str] = []
        self.partition = array("l")
        self.offset = array("q")
        self.order_id: list[str | None] = []
        self.price = array("d")
        self.attempt = array("l")
        self.fate = array("b")
        self.wait = array("d")
        self.reason: list[str | None] = []
        self.error: list[str | None] = []

    def __len__(self) -> int:
        return len(self.fate)

    @property
    def _columns(self) -> list[Any]:
        return [
            self.at, self.topic, self.partition, self.offset, self.order_id,
            self.price, self.attempt, self.fate, self.wait, self.reason, self.error,
        ]  # fmt: skip

    @property
    def finished(self) -> int:
        """Records with a final fate."""
        return self.counts[AVERAGED] + self.counts[DEAD] + self.counts[SKIPPED]

    @property
    def retries(self) -> int:
        """Failed delivery attempts that were followed by another."""
        return self.counts[RETRY]

    @property
    def complete(self) -> bool:
        """Whether every event is still here."""
        return not self.dropped

    def _tally(self, topic: str, partition: int, offset: int) -> Tally:
        key = (topic, partition)
        if key not in self.tallies:
            self.tallies[key] = Tally(offset)
        return self.tallies[key]

    def took(self, topic: str, partition: int, offsets: Sequence[int]) -> None:
        """Note that records were fetched: from now on they are in flight."""
        self._tally(topic, partition, offsets[0]).take(offsets)

    def averaged(
        self,
        at: float,
        topic: str,
        partition: int,
        offsets: Sequence[int],
        orders: Sequence[Order],
        *,
        attempt: int = 1,
    ) -> None:
        """Note orders that were handled well, all at the same attempt."""
        many = len(orders)
        self._tally(topic, partition, offsets[0]).finish(offsets)
        self.counts[AVERAGED] += many
        self.at.extend([at] * many)
        self.topic.extend([topic] * many)
        self.partition.extend([partition] * many)
        self.offset.extend(offsets)
        self.order_id.extend([order["orderId"] for order in orders])
        self.price.extend([order["price"] for order in orders])
        self.attempt.extend([attempt] * many)
        self.wait.extend([0.0] * many)
        self.reason.extend([None] * many)
        self.error.extend([None] * many)
        self.fate.extend([AVERAGED] * many)  # last: readers in other threads go by this column's length
        self._trim()

    def failed(
        self,
        at: float,
        topic: str,
        partition: int,
        offset: int,
        *,
        fate: int,
        order: Order | None,
        attempt: int,
        reason: str,
        error: str,
        wait: float = 0.0,
    ) -> None:
        """Note a failed attempt and what it led to: RETRY, DEAD or SKIPPED."""
        if fate != RETRY:
            self._tally(topic, partition, offset).finish([offset], fate)
        self.counts[fate] += 1
        if fate == DEAD:
            self.reasons[reason] += 1
        self.at.append(at)
        self.topic.append(topic)
        self.partition.append(partition)
        self.offset.append(offset)
        self.order_id.append(order["orderId"] if order else None)
        self.price.append(order["price"] if order else float("nan"))
        self.attempt.append(attempt)
        self.wait.append(wait)
        self.reason.append(reason)
        self.error.append(error)
        self.fate.append(fate)
        self._trim()

    def _trim(self) -> None:
        """Drop the oldest events, half of the memory at a time so that it costs next to nothing."""
        if self.keep is None or len(self) <= 2 * self.keep:
            return
        extra = len(self) - self.keep
        gone = zip(self.price[:extra], self.fate[:extra], strict=True)
        prices = [price for price, fate in gone if fate == AVERAGED]
        with self._whole:
            self.dropped += extra
            self.dropped_average.add_all(prices)
            for column in self._columns:
                del column[:extra]

    def forget_from(self, topic: str, partition: int, offset: int) -> None:
        """Void the final fates of records that were not committed: another delivery will decide them anew."""
        tally = self.tallies.get((topic, partition))
        void = tally.forget_from(offset) if tally else []
        if not any(void):
            return
        for fate, many in enumerate(void):
            self.counts[fate] -= many
        self.counts[UNDONE] += sum(void)
        for i in range(len(self) - 1, -1, -1):
            mine = self.topic[i] == topic and self.partition[i] == partition and self.offset[i] >= offset
            if mine and self.fate[i] not in (RETRY, UNDONE):
                if self.fate[i] == DEAD:
                    self.reasons[self.reason[i] or ""] -= 1
                self.fate[i] = UNDONE

    def rows(self, *names: str) -> tuple[list[Any], int, RunningAverage]:
        """Copy all columns or those named, cut to one length; say how many events were dropped, and their average.

        Safe while the worker appends.
        """
        with self._whole:
            many = len(self.fate)
            columns = [getattr(self, name) for name in names] or self._columns
            return [column[:many] for column in columns], self.dropped, replace(self.dropped_average)

    def frame(self) -> pd.DataFrame:
        """Give the events as a frame, oldest first.

        Columns: `seq` (int), `at` (float, seconds), `topic` (category), `partition`, `offset`, `attempt` (int),
        `order_id` (str or None), `price` (float, NaN when undecodable), `fate` (category), `wait` (float, seconds
        until the next attempt), `reason`, `error` (str or None), `running_average` (float, of the orders averaged so
        far).

        Raises:
            OrderkitError: pandas is not installed.
        """
        from orderkit.frames import ledger_frame  # noqa: PLC0415  pandas is loaded by those who want a frame

        return ledger_frame(self)
