"""What the consumer asks of an engine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from enum import Enum

from orderkit.consuming.backlog import Backlog
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History
from orderkit.dead_letters import DeadLetterWriter
from orderkit.members.commits import Key
from orderkit.members.group import GroupMember
from orderkit.retry import RetryPolicy


class Answer(Enum):
    """What became of a record whose attempt failed."""

    HOLD = "the partition waits; the record and all after it stay in its backlog"
    AGAIN = "try it again now"
    DONE = "it has its fate; go on with the next record"
    ASIDE = "it waits elsewhere; go on with the next record"


class Engine:
    """How a retry waits. This one lets the partition wait; engines that know better say so.

    Args:
        member: holds partitions.
        letters: writes records to other topics.
        topic: where the orders are.
        policy: how many attempts there are.
    """

    def __init__(self, member: GroupMember, letters: DeadLetterWriter, topic: str, policy: RetryPolicy) -> None:
        self._member = member
        self._letters = letters
        self._topic = topic
        self._policy = policy
        self._parked: dict[Key, Partition] = {}

    @classmethod
    def topics(cls, _topic: str, _group: str, _policy: RetryPolicy) -> list[str]:
        """List the topics that it reads besides the orders."""
        return []

    def received(self, part: Partition, many: int) -> None:
        """Learn that the last `many` records of the backlog are new."""

    def went_aside(self, part: Partition) -> None:
        """Learn that records of `part` were set aside; those in its park are looked after here."""
        if part.park:
            self._parked[part.key] = part

    def before(self, _part: Partition, _batch: Backlog, _i: int) -> Answer:
        """Say what to do with the `i`-th record of a batch before an attempt is made: `DONE` to make it."""
        return Answer.DONE

    def wait(self, part: Partition, _batch: Backlog, _i: int, _history: History, after: float) -> Answer:
        """Let a record wait `after` seconds for its next attempt, and say how.

        Args:
            part: the partition.
            _batch: the record is in it: the partition's backlog, or one of its own.
            _i: its place there.
            _history: its failed attempts.
            after: seconds.
        """
        self._member.hold(part, time.monotonic() + after)
        return Answer.HOLD

    def brake(self, part: Partition, batch: Backlog, i: int, history: History, after: float) -> Answer:
        """Let a record wait that may not be a dead letter now; the arguments are those of `wait`."""
        return Engine.wait(self, part, batch, i, history, after)

    def due(self, now: float) -> list[Partition]:
        """List the partitions that may go on, or a record of theirs, at `now` on the monotonic clock."""
        return list(dict.fromkeys(part for part, due in self._waits() if due <= now))

    def next_due(self) -> float:
        """Give the monotonic time at which the next wait is over by itself; infinity when nothing waits."""
        return min((due for _, due in self._waits()), default=float("inf"))

    def _waits(self) -> Iterator[tuple[Partition, float]]:
        """Go through the partitions that wait, and those in which a parked record does; refused, both wait for more."""
        self._parked = {key: part for key, part in self._parked.items() if part.park and not part.gone}
        yield from ((part, part.due) for part in self._member.held.values() if not part.refused)
        yield from ((part, part.park.next_due()) for part in self._parked.values() if not part.refused)
