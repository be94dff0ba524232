"""Pause the partition: its order is kept, the other partitions flow, and polling goes on.

The price is head-of-line blocking: whatever lies behind a failing order in its partition waits with it.
"""

from __future__ import annotations

import time

from orderkit.engines.base import Answer
from orderkit.group import GroupMember
from orderkit.progress import Progress


class PausePartition:
    """The default engine."""

    def __init__(self, member: GroupMember) -> None:
        self._member = member

    def wait(self, part: Progress, after: float) -> Answer:
        """Pause the partition until the record is due."""
        self._member.hold(part, time.monotonic() + after)
        return Answer.HOLD

    def due(self, now: float) -> list[Progress]:
        """List the held partitions that may go on; one whose dead letters are refused may not."""
        return [part for part in self._member.held.values() if part.due <= now and not part.refused]

    def next_due(self) -> float:
        """Give the time of the earliest wait that ends by itself."""
        return min((part.due for part in self._member.held.values() if not part.refused), default=float("inf"))
