"""What every delivery mode answers, and what two of them share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from confluent_kafka import Producer

from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.dead_letters import PROBE, DeadLetterWriter
from orderkit.kafka import Connection
from orderkit.members.commits import Commits
from orderkit.members.group import GroupMember


class Mode:
    """When a partition's progress is committed.

    Args:
        member: commits.
        letters: writes dead letters.
        opened: opens the producer of the dead letters once more.
    """

    keeps = False  # whether records are kept until they are committed

    def __init__(self, member: GroupMember, letters: DeadLetterWriter, opened: Callable[[], Producer | None]) -> None:
        self._member = member
        self._letters = letters
        self._opened = opened

    @classmethod
    def producer(cls, _connection: Connection, _group: str, _instance: str | None) -> Producer | None:
        """Open the producer of the dead letters, if it takes a special one."""
        return None

    def taken(self, part: Partition) -> bool:
        """Learn that records of `part` are in its backlog; whether they may be worked on."""
        raise NotImplementedError

    def announce(self, part: Partition, offset: int) -> None:
        """Commit that an attempt of the record at `offset` is about to be made, and wait for the answer."""

    def conclude(self, part: Partition) -> None:
        """Commit that no attempt is under way any more, and wait: no later death is to be blamed on its record."""

    def settle(self) -> None:
        """Commit what may be committed, between two turns of the loop."""
        raise NotImplementedError

    def lost(self, parts: list[Partition]) -> None:
        """Learn that partitions have gone."""

    def finish(self, parts: list[Partition], deadline: float) -> None:
        """Commit all that can be, and hand the partitions over; wait for dead letters until `deadline` at most."""
        raise NotImplementedError


def hold_refused(member: GroupMember) -> None:
    """Let partitions wait whose dead letters are refused."""
    for part in member.parts.values():
        if part.refused:
            member.hold(part, max(part.due, time.monotonic() + PROBE[0]))
            member.steer(part)


def handed_over(parts: Iterable[Partition], ready: Callable[[Partition], Checkpoint | None]) -> Commits:
    """Give last checkpoints: nobody is at work on these partitions any more."""
    commits: Commits = {}
    for part in parts:
        point = ready(part) or Checkpoint(part.committed, part.saved)
        if point.offset >= 0 and (point.saved.at_work or point.offset > part.committed):
            commits[part.key] = part, Checkpoint(point.offset, replace(point.saved, at_work=0))
    return commits
