"""Work that nobody knows to be committed: what the group's offsets say is done, and what is undone."""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import TopicPartition

from orderkit.consuming.partition import Partition
from orderkit.members.commits import Key, saved_with
from orderkit.members.offsets import Offsets

BRIEFLY = 2.0  # seconds for reading what was committed


class Doubts:
    """Partitions that are gone, and whose last commit failed or was not answered.

    They are cleared up as soon as every answer is there, best before the partitions have another owner: it may do, and
    commit, the same work, and its commit looks like ours.

    Args:
        offsets: reads what the group has committed.
        undone: told of each partition, once what it did after its last commit is no longer counted: it comes again.
    """

    def __init__(self, offsets: Offsets, undone: Callable[[Partition], object]) -> None:
        self._offsets, self._undone = offsets, undone
        self._parts: list[Partition] = []

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._parts)

    def add(self, part: Partition) -> None:
        """Doubt what a partition that is gone did after its last commit."""
        self._parts.append(part)

    def drop(self, key: Key) -> None:
        """Forget a partition: its log is gone, and all that was committed of it."""
        self._parts = [part for part in self._parts if part.key != key]

    @property
    def places(self) -> list[TopicPartition]:
        """Say which commits have to be read."""
        return [TopicPartition(*part.key) for part in self._parts]

    def settle(self, found: list[TopicPartition]) -> None:
        """Take in what is committed at those places; nothing if that could not be read."""
        if not found:
            return
        parts, self._parts = self._parts, []
        for part, offset in zip(parts, found, strict=True):
            part.found(offset.offset, saved_with(offset))
            self._undone(part)

    def clear_up(self) -> None:
        """Read, within seconds, what is committed; what cannot be read stays in doubt."""
        self.settle(self._offsets.read(self.places, BRIEFLY))

    def give_up(self) -> None:
        """Take all of it for undone."""
        self.settle(self.places)
