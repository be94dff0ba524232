"""How far one partition has come, and up to where that may be committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from confluent_kafka import Message

from orderkit.consuming.backlog import Backlog, Park
from orderkit.consuming.checkpoints import Checkpoint, Checkpoints
from orderkit.consuming.saved import History, Saved, this_process
from orderkit.orders.order import Order
from orderkit.retry import Failure

log = logging.getLogger("orderkit")


class Partition:
    """One partition in the hands of this consumer.

    Args:
        topic: its topic.
        partition: its number.
        offset: where the group's commit stands; -1 when there is none.
        saved: what that commit carried.
        keep: hold on to records until they are committed.
        suspects: after a death, so many records may have been its cause.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        offset: int = -1,
        saved: Saved | None = None,
        *,
        keep: bool = False,
        suspects: int = 0,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.log = saved.log if saved else ""  # the id of the topic, if the broker tells it
        self.origin: str | None = None  # where the records of a retry topic come from
        self.began = self.committed = offset
        self.saved = saved = saved or Saved()
        self.next = offset + saved.high  # from here on nothing is done with
        self.holes = {offset, *(offset + beyond for beyond, _ in saved.holes)} if saved.high else set[int]()
        self._awaited = set(self.holes)  # those that were not fetched yet
        self._new_from = self.next  # all before it was taken or is done with, but for holes that are awaited
        self.came_to = offset  # where the client stands: all before it was fetched, or is no record
        self._went_back = False  # the client did, and that was told
        self.inherited = saved.average  # what the group had come to before this consumer
        self.average = replace(saved.average)
        self.dead = saved.dead
        self.skipped = saved.skipped
        self.lost = saved.lost + saved.ahead  # whoever had those at hand has not come back to say what became of them
        died = saved.at_work not in (0, this_process())
        self.failed = saved.failed(offset, died)
        self.deaths = saved.deaths + died
        self._forgiven = offset + suspects  # when the partition has come so far, no earlier death counts
        self.backlog = Backlog(keep)
        self.park = Park()
        self.retried: dict[int, int] = {}  # in a retry topic: the first offsets of records that are not committed
        self.due = 0.0  # when the head may be tried again, on the monotonic clock
        self.gone = False  # another member has it now
        self.oversized = False  # more was to go with its offset than a commit takes, and that was told
        self.refused = 0  # records that a topic did not take
        self.points = Checkpoints()
        self._marked = self._here()

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"

    @property
    def key(self) -> tuple[str, int]:
        """Topic and partition."""
        return self.topic, self.partition

    @property
    def stands(self) -> int:
        """How far the partition is: what it has at hand is not done with, what holds no record is."""
        return max(0, self.next, 0 if self.backlog else self.came_to)

    @property
    def floor(self) -> int:
        """The first offset that is not done with; it may be committed."""
        return min(self.holes, default=self.next)

    @property
    def reported(self) -> bool:
        """Whether the commit says that somebody is at work, and how many died here before."""
        return self.saved.at_work == this_process() and self.saved.deaths == self.deaths

    def is_committed(self, offset: int) -> bool:
        """Whether the latest commit says that the record at `offset` is done with."""
        beyond = offset - self.committed
        return beyond < 0 or (0 < beyond < self.saved.high and beyond not in dict(self.saved.holes))

    def take(self, messages: Sequence[Message], orders: Sequence[Order | Failure]) -> list[int]:
        """Put fetched records into the backlog, less those taken or done with before; give their offsets."""
        offsets: list[int] = list(map(Message.offset, messages))  # type: ignore[arg-type]
        last = offsets[-1]
        fresh = Backlog()
        fresh.add(messages, orders, offsets)
        if offsets[0] < self._new_from or last - offsets[0] < len(offsets) - 1:  # else they ascend, and all are new
            last = max(offsets)
            fresh = fresh.without(self._known(offsets))
        if self._awaited:
            passed = {hole for hole in self._awaited if hole <= last}
            self.holes -= passed - set(offsets)  # deleted meanwhile
            self._awaited -= passed
        self.came_to, self._new_from = max(self.came_to, last + 1), max(self._new_from, last + 1)
        if self.next < 0:
            self.next = offsets[0]
        self.backlog.add(fresh.messages, fresh.orders, fresh.offsets)
        return fresh.offsets

    def _known(self, offsets: Sequence[int]) -> list[bool]:
        """Mark records that were taken before, or done with before a restart; holes that are awaited were neither."""
        if min(offsets) < self.came_to and not self._went_back:
            self._went_back = True  # as after a reset of its offset
            told = "%s: the client has gone back from %d to %d; what it brings again is left out"
            log.warning(told, self, self.came_to, min(offsets))
        marks, new_from = [], self._new_from
        for offset in offsets:
            marks.append(offset < new_from and offset not in self._awaited)
            new_from = max(new_from, offset + 1)
        return marks

    def reached(self, offset: int) -> None:
        """Note that the client has come to an offset without a record: transaction markers take offsets, too."""
        self.came_to, self._new_from = max(self.came_to, offset), max(self._new_from, offset)

    def expire(self, low: int) -> list[range]:
        """Note that the log begins at `low` now; give the offsets before it whose records were not read."""
        unread = [range(hole, hole + 1) for hole in sorted(self._awaited) if hole < low]
        self.holes -= {gap.start for gap in unread}
        self._awaited = {hole for hole in self._awaited if hole >= low}
        if self._new_from < low:
            unread.append(range(self._new_from, low))
        self.reached(low)
        return unread

    def anew(self, log: str, low: int = -1) -> Partition:
        """Give the partition of another log with the same name, from `low` on: this one's average stays behind."""
        self.gone = True
        again = Partition(self.topic, self.partition, keep=self.backlog.finished is not None)
        again.log, again.next = log, low
        again.reached(low)
        return again

    def origins(self, batch: Backlog, start: int = 0, end: int | None = None) -> tuple[str, list[int]]:
        """Give topic and offsets that records of a batch had first, before any retry topic."""
        if self.origin is None:
            return self.topic, batch.offsets[start:end]
        return self.origin, [message.offset() or 0 for message in batch.messages[start:end]]

    def went_past(self, offsets: Sequence[int]) -> None:
        """Note that records, in order, are done with or parked."""
        self.next = max(self.next, offsets[-1] + 1)
        if self.holes or self.park:
            self.holes.difference_update(offsets)
            self.holes.update(offset for offset in offsets if offset in self.park)

    def next_due(self) -> float:
        """Give the monotonic time at which a waiting record may be tried again."""
        return self.park.next_due() if self.park else self.due

    @property
    def is_settled(self) -> bool:
        """Whether all that is done is committed."""
        done_with = self.floor, self.next, len(self.holes)
        saved = self.saved
        return done_with == (self.committed, self.committed + saved.high, len(saved.holes) + bool(saved.high))

    def uncommitted(self) -> tuple[int, Callable[[int], bool]]:
        """Give the first original offset whose fate is not committed, and a function that says which later ones are."""
        if self.origin is None:
            return max(self.committed, 0), self.is_committed
        still_open = set(self.retried.values())
        return min(still_open, default=0), lambda offset: offset not in still_open

    def here(self, trying: int | None = None) -> Saved:
        """Give what a commit made here and now would carry.

        Args:
            trying: the offset of a record whose next attempt is about to be made.
        """
        first, *rest = sorted(self.holes) or [self.next]
        head = self.failed.get(first) or History()
        holes = tuple((offset - first, self.attempts(offset)) for offset in rest)
        return Saved(
            replace(self.average), self.dead, self.skipped, head.attempts, head.since, at_work=this_process(),
            deaths=self.deaths, trying=0 if trying is None else 1 + trying - first,
            high=self.next - first, holes=holes, lost=self.lost, log=self.log,
        )  # fmt: skip

    def attempts(self, offset: int) -> int:
        """Count the failed attempts of an unfinished record."""
        return self.failed[offset].attempts if offset in self.failed else 0

    def suspected(self, max_attempts: int) -> bool:
        """Whether members died here so often that the record which did it has only one attempt left."""
        return self.deaths >= max(1, max_attempts - 1)

    def _here(self) -> tuple[int, int, int, int]:
        return self.floor, self.next, len(self.holes), self.attempts(self.floor)

    def mark(self) -> None:
        """End a batch: what is done so far may be committed, as soon as what was written is acknowledged."""
        if not self.backlog:
            self.next = max(self.next, self.came_to)
        here = self._here()
        if self.next < 0 or here == self._marked:
            return
        if self.next >= self._forgiven:
            self.deaths = 0
        self.points.close(self.floor, self.here())
        self._marked = here

    def went_through(self, point: Checkpoint) -> None:
        """Note that a commit has arrived."""
        if point.offset >= self.committed:
            self.committed, self.saved = point.offset, point.saved
            self.backlog.settle(point.offset)
            self.retried = {offset: first for offset, first in self.retried.items() if offset >= point.offset}

    def found(self, offset: int, saved: Saved | None) -> None:
        """Take in where the group's commit stands, when no answer was heard; a new owner may be further already."""
        if offset > self.next:
            offset, saved = self.next, None
        self.went_through(Checkpoint(offset, saved or Saved()))

    def undone(self) -> Partition:
        """Give the partition as its last commit left it, with everything since at hand once more."""
        self.gone = True
        again = Partition(self.topic, self.partition, self.committed, replace(self.saved, at_work=0, trying=0))
        again.origin, again.retried = self.origin, self.retried
        again.saved, again.deaths, again._forgiven = self.saved, self.deaths, self._forgiven
        whole = self.backlog.restore()
        again.backlog = whole.without(list(map(self.is_committed, whole.offsets)))
        # The client does not bring once more what is at hand.
        again.came_to, again._new_from, again._went_back = self.came_to, self._new_from, self._went_back
        again._awaited = {hole for hole in again._awaited if hole >= self.came_to}
        if again.next < 0 and again.backlog:
            again.next = again.backlog.offsets[0]
        return again
