"""What happened to every order, attempt by attempt, in columns.

The worker only appends here. Everything else (reports, frames, charts) only reads.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from itertools import compress
from threading import Lock
from typing import TYPE_CHECKING, Any

from orderkit.account.average import RunningAverage
from orderkit.account.block import Block, Noted, attempt_rows
from orderkit.account.tally import AVERAGED, DEAD, FATES, RETRY, SKIPPED, TAKEN, UNDONE, Tally
from orderkit.orders.order import Order
from orderkit.retry import Failure
from orderkit.show.markup import ledger_html

if TYPE_CHECKING:
    import pandas as pd


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
        self.gaps: dict[tuple[str, int], list[range]] = {}  # offsets that expired unread
        self.closed: list[tuple[str, Tally, list[range]]] = []  # topic, tally and gaps of logs that are gone
        self._begun: dict[tuple[str, int], int] = {}  # events before this one are of a log that is gone
        self.dropped = 0
        self.dropped_average = RunningAverage()  # of the dropped events, so that a frame's running average goes on
        self.version = 0  # goes up when fates of earlier events are voided: whoever keeps a copy makes it anew
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

    def _repr_html_(self) -> str:
        return ledger_html(self)

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

    def give_back(self, topic: str, partition: int) -> None:
        """Note that the records of a partition that have no fate are somebody else's now."""
        if tally := self.tallies.get((topic, partition)):
            tally.give_back()

    def expire(self, topic: str, partition: int, gap: range) -> None:
        """Note that the records at these offsets went out of the log before anybody read them."""
        known, new = self.gaps.setdefault((topic, partition), []), [gap]
        for old in known:  # what was not committed is found again
            before = [range(one.start, min(one.stop, old.start)) for one in new]
            behind = [range(max(one.start, old.stop), one.stop) for one in new]
            new = [one for one in (*before, *behind) if one]
        known.extend(new)

    def begin(self, topic: str, partition: int) -> None:
        """Close the account of a log that is gone, and begin one for the log in its place: its offsets mean others."""
        key = (topic, partition)
        self.closed.append((topic, self.tallies.pop(key, Tally(0)), self.gaps.pop(key, [])))
        self._begun[key] = self.dropped + len(self)

    @property
    def expired(self) -> int:
        """Records that are in no log any more and have no fate: nobody read them, or nobody was done with them."""
        gaps = [gap for some in (*self.gaps.values(), *(gaps for _, _, gaps in self.closed)) for gap in some]
        return sum(map(len, gaps)) + sum(tally.count(TAKEN) for _, tally, _ in self.closed)

    def note(
        self,
        at: float,
        topic: str,
        partition: int,
        offsets: Sequence[int],
        orders: Sequence[Order | Failure],
        attempts: Sequence[Noted] = (),
        done: int | None = None,
        aside: Container[int] = (),
    ) -> None:
        """Note what became of a batch: averaged at the first attempt, unless `attempts` says otherwise.

        Args:
            at: when, in seconds since 1970, for those averaged at the first attempt.
            topic: where the batch came from.
            partition: its number.
            offsets: of the records, in order.
            orders: the records, decoded.
            attempts: all other attempts, in order, each an `Attempt`; a `RETRY` is not a record's last.
            done: how many of the records are finished; by default all.
            aside: the places of records among them that are not finished after all: their next attempt is elsewhere.
        """
        done = len(offsets) if done is None else done
        rows = attempt_rows(done, [record for record, _, _, fate, _, _, _ in attempts if fate == RETRY], aside)
        block = Block(at, rows, offsets, orders)
        block.set(attempts, aside)
        if finished := [offsets[i] for i in range(done) if i not in aside] if aside else offsets[:done]:
            self._tally(topic, partition, offsets[0]).finish(finished, block.finals())
        for fate in range(len(FATES)):
            self.counts[fate] += block.fate.count(fate)
        self.reasons.update(reason or "" for _, _, _, fate, _, reason, _ in attempts if fate == DEAD)
        self._append(topic, partition, block)
        self._trim()

    def _append(self, topic: str, partition: int, block: Block) -> None:
        many = len(block.fate)
        self.topic.extend([topic] * many)
        self.partition.extend(array("l", [partition]) * many)
        self.offset.extend(block.offset)
        self.price.extend(block.price)
        self.order_id.extend(block.order_id)
        self.at.extend(block.at)
        self.attempt.extend(block.attempt)
        self.wait.extend(block.wait)
        self.reason.extend(block.reason)
        self.error.extend(block.error)
        self.fate.frombytes(block.fate)  # last: readers in other threads go by this column's length

    def _trim(self) -> None:
        """Drop the oldest events, half of the memory at a time so that it costs next to nothing."""
        if self.keep is None or len(self) <= 2 * self.keep:
            return
        extra = len(self) - self.keep
        averaged = bytes(fate == AVERAGED for fate in range(len(FATES)))  # by fate: 1 or 0
        counted = self.fate[:extra].tobytes().translate(averaged.ljust(256, b"\0"))
        prices = list(compress(self.price[:extra].tolist(), counted))
        with self._whole:
            self.dropped += extra
            self.dropped_average.add_all(prices)
            for column in self._columns:
                del column[:extra]

    def forget_from(self, topic: str, partition: int, offset: int, keep: Callable[[int], bool] | None = None) -> None:
        """Void the final fates of records that were not committed: another delivery will decide them anew.

        Args:
            topic: where they are.
            partition: its number.
            offset: from here on.
            keep: says of an offset that its fate stays.
        """
        tally = self.tallies.get((topic, partition))
        void = tally.forget_from(offset, keep) if tally else []
        if not any(void):
            return
        for fate, many in enumerate(void):
            self.counts[fate] -= many
        self.counts[UNDONE] += sum(void)
        oldest = max(0, self._begun.get((topic, partition), 0) - self.dropped)
        for i in range(len(self) - 1, oldest - 1, -1):
            mine = self.topic[i] == topic and self.partition[i] == partition and self.offset[i] >= offset
            stays = keep is not None and keep(self.offset[i])
            if mine and not stays and self.fate[i] not in (RETRY, UNDONE):
                if self.fate[i] == DEAD:
                    self.reasons[self.reason[i] or ""] -= 1
                self.fate[i] = UNDONE
        self.version += 1

    def rows(self, *names: str, since: int = 0) -> tuple[list[Any], int, RunningAverage]:
        """Copy all columns or those named, cut to one length; say how many events were dropped, and their average.

        Safe while the worker appends.

        Args:
            names: of the columns.
            since: the number of the first event that is wanted, counted from the run's first.
        """
        with self._whole:
            first, many = max(0, since - self.dropped), len(self.fate)
            columns = [getattr(self, name) for name in names] or self._columns
            return [column[first:many] for column in columns], self.dropped, replace(self.dropped_average)

    def frame(self) -> pd.DataFrame:
        """Give the events as a frame, oldest first.

        Columns: `seq` (int), `at` (float, seconds), `topic` (category), `partition`, `offset`, `attempt` (int),
        `order_id` (str or None), `price` (float, NaN when undecodable), `fate` (category), `wait` (float, seconds
        until the next attempt), `reason`, `error` (str or None), `running_average` (float, of the orders averaged so
        far).

        Raises:
            OrderkitError: pandas is not installed.
        """
        from orderkit.account.frames import ledger_frame  # noqa: PLC0415  pandas is loaded by those who want a frame

        return ledger_frame(self)
