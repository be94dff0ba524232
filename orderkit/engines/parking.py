"""Park the key: only the orders of the failing key wait, the partition's other keys flow.

Order is kept for each key. The commit stays at the oldest parked record, and says what beyond it is done, so that a
restart neither loses nor repeats anything. When the park is full the partition waits, as it does in `pause`.
"""

from __future__ import annotations

import time

from orderkit.consuming.backlog import Backlog
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History
from orderkit.engines.base import Answer, Engine

LOOK_AGAIN = 0.05  # seconds until a partition with a full park is looked at again


class ParkKey(Engine):
    """Lets a failing key wait, and all after it of the same key."""

    def before(self, part: Partition, batch: Backlog, i: int) -> Answer:
        """Put a record whose key waits behind it."""
        if batch is not part.backlog or not part.park.follows(batch, i):
            return Answer.DONE
        if part.park.full:
            self._member.hold(part, time.monotonic() + LOOK_AGAIN)
            return Answer.HOLD
        part.park.follow(batch, i)
        return Answer.ASIDE

    def wait(self, part: Partition, batch: Backlog, i: int, history: History, after: float) -> Answer:
        """Park a record; one that is in the park stays there."""
        if batch is part.backlog and part.park.full:
            return super().wait(part, batch, i, history, after)
        part.park.add(batch.one(i), time.monotonic() + after)
        return Answer.ASIDE

    def brake(self, part: Partition, batch: Backlog, i: int, history: History, after: float) -> Answer:
        """Park it, like any other; when the park is full the partition waits."""
        return self.wait(part, batch, i, history, after)
