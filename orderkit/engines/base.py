"""What the consumer asks of an engine."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from orderkit.progress import Progress


class Answer(Enum):
    """What an engine did with a record that must wait."""

    HOLD = "the partition waits; the record and all after it stay in its backlog"
    AGAIN = "try it again now"
    ASIDE = "somebody else has it; go on with the next record"


class Engine(Protocol):
    """How a retry waits."""

    def wait(self, part: Progress, after: float) -> Answer:
        """Let the head record of `part` wait `after` seconds, and say how."""
        ...

    def due(self, now: float) -> list[Progress]:
        """List the partitions whose waiting is over at `now` on the monotonic clock."""
        ...

    def next_due(self) -> float:
        """Give the monotonic time at which the next wait is over; infinity when nothing waits."""
        ...
