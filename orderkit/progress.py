"""How far one partition has come, and up to where that may be committed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import Message

from orderkit.average import RunningAverage
from orderkit.order import Order
from orderkit.retry import Failure

METADATA_LIMIT = 4096  # bytes; Kafka's default `offset.metadata.max.bytes`


@dataclass
class History:
    """The failed delivery attempts of one record.

    Args:
        attempts: how many there were.
        since: when the first one failed, in seconds since 1970.
        wait: how long was waited before the latest, in seconds.
    """

    attempts: int = 0
    since: float = 0.0
    wait: float = 0.0

    def failed(self, now: float) -> None:
        """Count one more failed attempt."""
        self.attempts += 1
        self.since = self.since or now


@dataclass(frozen=True)
class Saved:
    """What a partition keeps in the metadata of its offset commit.

    Args:
        average: of the orders before the offset.
        dead: dead letters before the offset.
        skipped: orders skipped before the offset.
        attempts: failed delivery attempts of the record at the offset.
        since: when the first of those failed, in seconds since 1970.
    """

    average: RunningAverage = field(default_factory=RunningAverage)
    dead: int = 0
    skipped: int = 0
    attempts: int = 0
    since: float = 0.0

    def to_text(self) -> str:
        """Give the metadata: JSON, the sum as an exact decimal."""
        state: dict[str, object] = {"count": self.average.count, "total": self.average.sum}
        state |= {"dead": self.dead, "skipped": self.skipped}
        if self.attempts:
            state |= {"attempts": self.attempts, "since": self.since}
        return json.dumps(state, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | None) -> Saved | None:
        """Read metadata; `None` when it was not written by this kit."""
        try:
            state = json.loads(text or "")
            average = RunningAverage.from_sum(int(state["count"]), state["total"])
            rest = int(state["dead"]), int(state["skipped"]), int(state.get("attempts", 0))
            return cls(average, *rest, float(state.get("since", 0.0)))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None


@dataclass
class Checkpoint:
    """A place where a partition may be committed, once all dead letters before it are acknowledged."""

    offset: int = -1
    saved: Saved = field(default_factory=Saved)
    unacknowledged: int = 0


@dataclass
class Backlog:
    """Records that were fetched and decoded, and are not finished; three lists of the same length."""

    messages: list[Message] = field(default_factory=list)
    orders: list[Order | Failure] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.messages)

    def add(self, messages: Sequence[Message], orders: Sequence[Order | Failure]) -> None:
        """Put freshly fetched records at the end."""
        self.messages += messages
        self.orders += orders
        self.offsets += [message.offset() or 0 for message in messages]

    def drop(self, count: int) -> None:
        """Take the first `count` records away: they are done with."""
        del self.messages[:count], self.orders[:count], self.offsets[:count]


class Progress:
    """One partition in the hands of this consumer.

    Args:
        topic: its topic.
        partition: its number.
        offset: where the group's commit stands; -1 when there is none.
        saved: what that commit carried.
    """

    def __init__(self, topic: str, partition: int, offset: int = -1, saved: Saved | None = None) -> None:
        saved = saved or Saved()
        self.topic = topic
        self.partition = partition
        self.average = RunningAverage(saved.average.count, saved.average.total)
        self.dead = saved.dead
        self.skipped = saved.skipped
        self.history = History(saved.attempts, saved.since)
        self.backlog = Backlog()
        self.due = 0.0  # when the head may be tried again, on the monotonic clock
        self.gone = False  # another member has it now
        self.refused = 0  # dead letters that the dead-letter topic did not take
        self.next = offset
        self.committed = offset
        self._open = Checkpoint()
        self._closed: deque[Checkpoint] = deque()
        self._marked = (offset, saved.attempts)

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"

    @property
    def key(self) -> tuple[str, int]:
        """Topic and partition."""
        return self.topic, self.partition

    def take(self, messages: Sequence[Message], orders: Sequence[Order | Failure]) -> list[int]:
        """Put fetched records into the backlog; give their offsets."""
        self.backlog.add(messages, orders)
        offsets = self.backlog.offsets[-len(messages) :]
        if len(self.backlog) == len(offsets) and offsets[0] != self.next:
            self.next = offsets[0] if self.next < 0 else self.next
            self.fresh_history()  # a commit's attempts belong to the record at its offset, and to no other
        return offsets

    def fresh_history(self) -> None:
        """Forget the failed attempts: another record is the head now."""
        self.history = History()

    def expect_letter(self) -> Checkpoint:
        """Say that a dead letter is on its way; give the checkpoint that has to wait for it."""
        self._open.unacknowledged += 1
        return self._open

    def mark(self) -> None:
        """End a batch: what is done so far may be committed, as soon as its dead letters are acknowledged."""
        here = (self.next, self.history.attempts)
        if self.next < 0 or here == self._marked:
            return
        average = RunningAverage(self.average.count, self.average.total)
        self._open.offset = self.next
        self._open.saved = Saved(average, self.dead, self.skipped, self.history.attempts, self.history.since)
        self._closed.append(self._open)
        self._open = Checkpoint()
        self._marked = here

    def ready(self) -> Checkpoint | None:
        """Give the newest checkpoint with nothing outstanding before it, and forget the older ones."""
        newest = None
        while self._closed and not self._closed[0].unacknowledged:
            newest = self._closed.popleft()
        return newest

    @property
    def unsettled(self) -> int:
        """Checkpoints that still wait for acknowledgements."""
        return len(self._closed)
