"""How far a member is behind: where its partitions end, as far as its client has heard."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, TopicPartition

from orderkit.consuming.partition import Partition
from orderkit.members.commits import Key

LOOK = 0.5  # seconds between two looks


class Ends:
    """Notes now and then where partitions end."""

    def __init__(self) -> None:
        self._ends: dict[Key, int] = {}
        self._due = 0.0

    def look(self, client: Consumer, keys: Iterable[Key]) -> None:
        """Look, if it is time to; only the thread that polls may ask the client without waiting."""
        if (now := time.monotonic()) >= self._due:
            self._due = now + LOOK
            for key in keys:
                self._ends[key] = client.get_watermark_offsets(TopicPartition(*key), cached=True)[1]

    def look_soon(self) -> None:
        """Let the next look be due: there are other partitions now."""
        self._due = 0.0

    def lag(self, parts: Mapping[Key, Partition]) -> dict[Key, int]:
        """Give the records that each partition is behind; one that nothing was heard of is left out."""
        ends = self._ends
        return {key: max(0, ends[key] - part.stands) for key, part in list(parts.items()) if key in ends}
