"""Records that were fetched and are not done with: in their order, or parked by their key."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Hashable, Iterator, Sequence

from confluent_kafka import Message

from orderkit.consuming.saved import METADATA_LIMIT, holes_to_text
from orderkit.orders.order import Order
from orderkit.retry import Failure

ROOM = METADATA_LIMIT - 700  # bytes for what is parked, in the commit's metadata; all else takes less than 700
ATTEMPTS_ROOM = 6  # bytes for a parked record's attempts and a comma
SURELY_FITS = ROOM // (19 + ATTEMPTS_ROOM)  # records; an offset has no more than 19 digits


class Backlog:
    """Fetched and decoded records, oldest first; three lists of the same length.

    Args:
        keep: hold on to finished records until `settle`, so that `restore` can bring them back.
    """

    def __init__(self, keep: bool = False) -> None:
        self.messages: list[Message] = []
        self.orders: list[Order | Failure] = []
        self.offsets: list[int] = []
        self.finished = Backlog() if keep else None

    def __len__(self) -> int:
        return len(self.messages)

    def add(self, messages: Sequence[Message], orders: Sequence[Order | Failure], offsets: Sequence[int]) -> None:
        """Put freshly fetched records at the end."""
        self.messages += messages
        self.orders += orders
        self.offsets += offsets

    def drop(self, count: int) -> None:
        """Take the first `count` records away: they are done with, or parked."""
        if self.finished is not None:
            self.finished.add(self.messages[:count], self.orders[:count], self.offsets[:count])
        del self.messages[:count], self.orders[:count], self.offsets[:count]

    def settle(self, offset: int) -> None:
        """Let go of finished records before `offset`: they are committed."""
        if self.finished is not None:
            self.finished.drop(bisect_left(self.finished.offsets, offset))

    def restore(self) -> Backlog:
        """Give a backlog with the finished records back at its head."""
        whole = Backlog(keep=self.finished is not None)
        for part in (self.finished or Backlog(), self):
            whole.add(part.messages, part.orders, part.offsets)
        return whole

    def without(self, unwanted: Sequence[bool]) -> Backlog:
        """Give a backlog that leaves out the records marked as unwanted."""
        rest = Backlog(keep=self.finished is not None)
        columns = zip(self.messages, self.orders, self.offsets, unwanted, strict=True)
        for message, order, offset, leave_out in columns:
            if not leave_out:
                rest.add([message], [order], [offset])
        return rest

    def one(self, i: int) -> Backlog:
        """Give a backlog of a single record."""
        single = Backlog()
        single.add(self.messages[i : i + 1], self.orders[i : i + 1], self.offsets[i : i + 1])
        return single


class Park:
    """Records of keys that wait: each key's in their order, behind the one that failed. Others may go past them.

    Attributes:
        lines: by key, the records that wait, each alone in its backlog; only to be looked at.
    """

    def __init__(self) -> None:
        self.lines: dict[Hashable, deque[Backlog]] = {}
        self._due: dict[Hashable, float] = {}
        self._at: set[int] = set()  # the offsets of all that is parked

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, offset: object) -> bool:
        return offset in self._at

    @property
    def full(self) -> bool:
        """Whether it is not certain that one more would fit into the commit's metadata."""
        if len(self) < SURELY_FITS:
            return False
        text = holes_to_text((offset, 0) for offset in self.offsets())
        return len(text) + len(self) * ATTEMPTS_ROOM + 19 > ROOM

    def add(self, record: Backlog, due: float) -> None:
        """Let a failed record, alone in its backlog, wait until `due` on the monotonic clock, or behind its key."""
        key = key_of(record, 0)
        if record.offsets[0] not in self:
            self._append(key, record)
        if self.lines[key][0].offsets == record.offsets:
            self._due[key] = due

    def follows(self, batch: Backlog, i: int) -> bool:
        """Whether the `i`-th record of a batch has to go behind one that waits."""
        return key_of(batch, i) in self.lines

    def follow(self, batch: Backlog, i: int) -> None:
        """Put the `i`-th record of a batch behind the one of its key that waits."""
        self._append(key_of(batch, i), batch.one(i))

    def _append(self, key: Hashable, record: Backlog) -> None:
        self.lines.setdefault(key, deque()).append(record)
        self._at.update(record.offsets)

    def due(self, now: float) -> Iterator[Backlog]:
        """Go through the records whose time has come, one by one; when one is `done`, the next of its key is due."""
        for key in [key for key, due in self._due.items() if due <= now]:
            while key in self.lines and self._due[key] <= now:
                yield self.lines[key][0]

    def done(self, record: Backlog) -> None:
        """Let go of the head of a line."""
        key = key_of(record, 0)
        self._at.difference_update(self.lines[key].popleft().offsets)
        if not self.lines[key]:
            del self.lines[key], self._due[key]

    def next_due(self) -> float:
        """Give the monotonic time at which the next wait is over; infinity when nothing waits."""
        return min(self._due.values(), default=float("inf"))

    def offsets(self) -> list[int]:
        """List the offsets of all that is parked, lowest first."""
        return sorted(self._at)


def key_of(batch: Backlog, i: int) -> Hashable:
    """Give what a record's order depends on: its key or, without one, nothing but itself."""
    key = batch.messages[i].key()
    return batch.offsets[i] if key is None else key
