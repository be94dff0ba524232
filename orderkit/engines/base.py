"""What the consumer asks of an engine."""

from __future__ import annotations

import time
from enum import Enum

from orderkit.backlog import Backlog
from orderkit.dead_letters import DeadLetterWriter
from orderkit.group import GroupMember
from orderkit.progress import Progress
from orderkit.retry import RetryPolicy
from orderkit.saved import History


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

    @classmethod
    def topics(cls, _topic: str, _group: str, _policy: RetryPolicy) -> list[str]:
        """List the topics that it reads besides the orders."""
        return []

    def received(self, part: Progress, many: int) -> None:
        """Learn that the last `many` records of the backlog are new."""

    def before(self, _part: Progress, _batch: Backlog, _i: int) -> Answer:
        """Say what to do with the `i`-th record of a batch before an attempt is made: `DONE` to make it."""
        return Answer.DONE

    def wait(self, part: Progress, _batch: Backlog, _i: int, _history: History, after: float) -> Answer:
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

    def brake(self, part: Progress, batch: Backlog, i: int, history: History, after: float) -> Answer:
        """Let a record wait that may not be a dead letter now; the arguments are those of `wait`."""
        return Engine.wait(self, part, batch, i, history, after)

    def due(self, now: float) -> list[Progress]:
        """List the partitions that may go on at `now` on the monotonic clock; one that is refused may not."""
        return [part for part in self._member.held.values() if part.due <= now and not part.refused]

    def next_due(self) -> float:
        """Give the monotonic time at which the next wait is over by itself; infinity when nothing waits."""
        return min((part.due for part in self._member.held.values() if not part.refused), default=float("inf"))
