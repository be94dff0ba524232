"""Commit behind the acknowledgements: a crash repeats, and loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable

from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.dead_letters import PROBE
from orderkit.delivery.mode import Mode, handed_over, hold_refused


class AtLeastOnce(Mode):
    """Commit behind the acknowledgements, in the background."""

    def taken(self, part: Partition) -> bool:
        """Say in the first commit of an assignment that somebody is at work: a death will be noticed."""
        if not part.reported:
            self._member.commits.now([(part, Checkpoint(part.floor, part.here()))], timeout=2.0)
        return True

    def announce(self, part: Partition, offset: int) -> None:
        """Commit the attempt that is about to be made; what was written before it comes first."""
        self._commit_all(part)
        if part.is_settled:
            self._member.commits.now([(part, Checkpoint(part.floor, part.here(trying=offset)))])

    def conclude(self, part: Partition) -> None:
        """Commit what became of an announced attempt; the slice may have ended before it was made."""
        self._commit_all(part)
        if part.is_settled and part.saved.trying:
            self._member.commits.now([(part, Checkpoint(part.floor, part.here()))])

    def _commit_all(self, part: Partition) -> None:
        """Commit all that is done on a partition, once its dead letters are acknowledged."""
        self._letters.drain(time.monotonic() + PROBE[0])
        part.mark()
        self._member.commits.now(_ready([part]))

    def settle(self) -> None:
        """Take in acknowledgements, and commit what they allow."""
        self._letters.serve()
        hold_refused(self._member)
        self._member.commits.start(_ready(self._member.parts.values()))

    def finish(self, parts: list[Partition], deadline: float) -> None:
        """Commit all that can be, waiting for outstanding acknowledgements until `deadline` at most."""
        for part in parts:
            part.mark()
        self._letters.drain(deadline)
        commits = self._member.commits
        commits.now(handed_over(parts, lambda part: part.points.ready() or commits.pending(part)).values())


def _ready(parts: Iterable[Partition]) -> list[tuple[Partition, Checkpoint]]:
    return [(part, checkpoint) for part in parts if (checkpoint := part.points.ready())]
