"""When offsets are committed.

At least once: an offset is committed after everything before it was averaged, skipped, or acknowledged in the
dead-letter topic. Whatever a crash leaves uncommitted is delivered again; the average is not added twice, because it is
restored from the same commit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from orderkit.dead_letters import PROBE, DeadLetterWriter
from orderkit.group import GroupMember
from orderkit.progress import Checkpoint, Progress


class AtLeastOnce:
    """Commit behind the acknowledgements, in the background."""

    def __init__(self, member: GroupMember, letters: DeadLetterWriter) -> None:
        self._member = member
        self._letters = letters

    def settle(self) -> None:
        """Take in acknowledgements, and commit what they allow."""
        self._letters.serve()
        for part in self._member.parts.values():
            if part.refused:
                self._member.hold(part, max(part.due, time.monotonic() + PROBE[0]))
                self._member.steer(part)
        self._member.commit(_ready(self._member.parts.values()))

    def finish(self, parts: list[Progress], deadline: float) -> None:
        """Commit all that can be, waiting for outstanding acknowledgements until `deadline` on the monotonic clock."""
        for part in parts:
            part.mark()
        self._letters.drain(deadline)
        self._member.commit_now(_ready(parts))


def _ready(parts: Iterable[Progress]) -> list[tuple[Progress, Checkpoint]]:
    return [(part, checkpoint) for part in parts if (checkpoint := part.ready())]
