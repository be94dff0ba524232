"""Sleep where you are: the way that many consumers do it, and the bad example.

While it sleeps, nobody polls. Every partition of this consumer waits, and after `max.poll.interval.ms` the group gives
them all to somebody else, who starts with the same order.
"""

from __future__ import annotations

import time

from orderkit.consuming.backlog import Backlog
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History
from orderkit.engines.base import Answer, Engine

NAP = 0.1  # seconds; after each one it looks whether it has to stop


class SleepInPlace(Engine):
    """Waits on the poll thread (law 5 broken, for all to see)."""

    def wait(self, part: Partition, batch: Backlog, i: int, history: History, after: float) -> Answer:
        """Sleep, and try again."""
        until = time.monotonic() + after
        while (left := until - time.monotonic()) > 0:
            if self._member.stopping:
                return super().wait(part, batch, i, history, left)
            time.sleep(min(NAP, left))
        return Answer.AGAIN
