"""What becomes of some dead letters in a replay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MOVED, PARKED, FILTERED, UNKNOWN, SPENT, DOUBLED, LEFT, FAILED = (
    "moved", "parked", "filtered", "unknown", "spent", "doubled", "left", "failed",
)  # fmt: skip

Outgoing = tuple[str, bytes | None, bytes | None, int, list[Any]]  # topic, value, key, partition, headers


@dataclass
class Batch:
    """What becomes of some dead letters.

    Args:
        outgoing: what to write, and where to.
        counts: how many had which fate.
        taken: partition to the offset after the last dead letter that was decided about.
        stay: partition and offset of those that the next replay tries again.
        errors: what a transform raised.
    """

    outgoing: list[Outgoing] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    taken: dict[int, int] = field(default_factory=dict)
    stay: list[tuple[int, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def targets(self) -> Counter[str]:
        """How many go to which topic."""
        return Counter(record[0] for record in self.outgoing)
