"""What happened to every order, attempt by attempt, in columns.

The worker only appends here. Everything else (reports, frames, charts) only reads.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from itertools import compress
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from orderkit.account.average import RunningAverage
from orderkit.account.tally import AVERAGED, DEAD, FATES, RETRY, SKIPPED, UNDONE, Tally
from orderkit.orders.order import Order
from orderkit.retry import Failure
from orderkit.show.markup import ledger_html

if TYPE_CHECKING:
    import pandas as pd


Value = TypeVar("Value")


class Attempt(NamedTuple):
    """A delivery attempt that is worth a word: all but a success at the first."""

    record: int  # its place in the batch
    at: float  # seconds since 1970
    number: int  # from 1
    fate: int  # RETRY, DEAD, SKIPPED, or AVERAGED after an earlier failure
    wait: float = 0.0  # seconds until the next one
    reason: str | None = None
    error: str | None = None


# Takes a tuple, in a third of the time of `Attempt(...)`: there is one for each failure.
noted: Callable[[tuple[int, float, int, int, float, str | None, str | None]], Attempt] = partial(tuple.__new__, Attempt)


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

    def note(
        self,
        at: float,
        topic: str,
        partition: int,
        offsets: Sequence[int],
        orders: Sequence[Order | Failure],
        attempts: Sequence[Attempt] = (),
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
            attempts: all other attempts, in order; a `RETRY` is not a record's last.
            done: how many of the records are finished; by default all.
            aside: the places of records among them that are not finished after all: their next attempt is elsewhere.
        """
        done = len(offsets) if done is None else done
        retried = [attempt.record for attempt in attempts if attempt.fate == RETRY]
        prices, ids = _prices_and_ids(orders)
        rows = _rows(offsets, done, retried, aside)
        block = _Block(len(rows), at)
        block.set(attempts, aside)
        if finished := [offsets[i] for i in range(done) if i not in aside] if aside else offsets[:done]:
            self._tally(topic, partition, offsets[0]).finish(finished, block.finals())
        for fate in range(len(FATES)):
            self.counts[fate] += block.fate.count(fate)
        self.reasons.update(attempt.reason or "" for attempt in attempts if attempt.fate == DEAD)
        self.offset.extend(array("q", rows))  # an array joins another in half the time of a list
        self.price.extend(array("d", _rows(prices, done, retried, aside)))
        self.order_id.extend(_rows(ids, done, retried, aside))
        self.topic.extend([topic] * len(rows))
        self.partition.extend(array("l", [partition]) * len(rows))
        self.at.extend(block.at)
        self.attempt.extend(block.attempt)
        self.wait.extend(block.wait)
        self.reason.extend(block.reason)
        self.error.extend(block.error)
        self.fate.frombytes(block.fate)  # last: readers in other threads go by this column's length
        self._trim()

    def _trim(self) -> None:
        """Drop the oldest events, half of the memory at a time so that it costs next to nothing."""
        if self.keep is None or len(self) <= 2 * self.keep:
            return
        extra = len(self) - self.keep
        averaged = bytes(fate == AVERAGED for fate in range(len(FATES)))  # by fate: 1 or 0
        prices = list(compress(self.price[:extra], self.fate[:extra].tobytes().translate(averaged.ljust(256, b"\0"))))
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
        for i in range(len(self) - 1, -1, -1):
            mine = self.topic[i] == topic and self.partition[i] == partition and self.offset[i] >= offset
            stays = keep is not None and keep(self.offset[i])
            if mine and not stays and self.fate[i] not in (RETRY, UNDONE):
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
        from orderkit.account.frames import ledger_frame  # noqa: PLC0415  pandas is loaded by those who want a frame

        return ledger_frame(self)


def _rows(column: Sequence[Value], done: int, retried: Sequence[int], aside: Container[int]) -> list[Value]:
    """Give a column one row for each attempt: every retry, and the last one of each record that is finished."""
    if aside:
        return [column[i] for i in sorted([*(i for i in range(done) if i not in aside), *retried])]
    rows = list(column[:done])
    for i in reversed(retried):  # what is behind moves on: far less work than looking up every row
        rows.insert(i, column[i])
    return rows


class _Block:
    """The columns of a few events, before they join the rest."""

    def __init__(self, many: int, at: float) -> None:
        self.at = array("d", [at]) * many
        self.attempt = array("l", [1]) * many
        self.wait = array("d", [0.0]) * many
        self.reason: list[str | None] = [None] * many
        self.error: list[str | None] = [None] * many
        self.fate = bytearray(many)

    def set(self, attempts: Sequence[Attempt], aside: Container[int]) -> None:
        """Put attempts, in order, where they belong: a record has a row for each retry, and one for its end."""
        shift = passed = 0  # rows that the records before this one take more than one each; records looked at
        for record, at, number, fate, wait, reason, error in attempts:
            if aside:
                shift -= sum(before in aside for before in range(passed, record))
                passed = record
            row = record + shift
            shift += fate == RETRY
            self.at[row], self.attempt[row], self.fate[row], self.wait[row] = at, number, fate, wait
            self.reason[row], self.error[row] = reason, error

    def finals(self) -> bytes:
        """Give the fates that are final, in order."""
        return bytes(self.fate.translate(None, bytes([RETRY])))


def _prices_and_ids(orders: Sequence[Order | Failure]) -> tuple[list[float], list[str | None]]:
    """Take two columns out of a batch; what is no order has neither."""
    try:
        whole = cast(Sequence[Order], orders)
        return [order["price"] for order in whole], [order["orderId"] for order in whole]
    except TypeError:  # a failure among them
        some = [order if isinstance(order, dict) else None for order in orders]
        return [order["price"] if order else float("nan") for order in some], [
            order["orderId"] if order else None for order in some
        ]
