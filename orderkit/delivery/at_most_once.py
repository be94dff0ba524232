"""Commit before the handler: a crash loses, and repeats nothing.

Each commit says how many records it is ahead of. A member that finds such a number has a dead one before it, and counts
them as lost: at most, for some of their dead letters may have been written.
"""

from __future__ import annotations

from dataclasses import replace

from orderkit.consuming.backlog import Backlog
from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.delivery.mode import Mode, handed_over, hold_refused


class AtMostOnce(Mode):
    """Commit before the handler; the average follows with the next commit."""

    def taken(self, part: Partition) -> bool:
        """Commit the records before anybody works on them; those that cannot be committed are not worked on."""
        ahead = len(part.backlog) + len(part.park) + part.points.outstanding
        now = replace(part.here(), attempts=0, since=0.0, high=0, holes=(), ahead=ahead)
        if self._member.commits.now([(part, Checkpoint(part.backlog.offsets[-1] + 1, now))]):
            return True
        part.lost += len(part.backlog)  # the client goes on behind them, and so does the next commit
        part.backlog = Backlog()
        return False

    def settle(self) -> None:
        """Take in acknowledgements; no commit waits for them. Checkpoints only tell of offsets without a record."""
        self._letters.serve()
        points = [(part, part.points.ready()) for part in self._member.parts.values()]
        ahead = [(part, point) for part, point in points if point and point.offset > part.committed]
        self._member.commits.start([(part, point) for part, point in ahead if not part.backlog])
        hold_refused(self._member)

    def finish(self, parts: list[Partition], deadline: float) -> None:
        """Commit the averages, and give back what the handler has not seen; a letter on its way by then may be lost."""
        self._letters.drain(deadline)
        self._member.commits.now(handed_over(parts, _last).values())


def _last(part: Partition) -> Checkpoint:
    return Checkpoint(part.floor, replace(part.here(), lost=part.lost + part.points.outstanding))
