"""What becomes of some dead letters in a replay."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

MOVED, PARKED, FILTERED, UNKNOWN, SPENT, DOUBLED, LEFT, FAILED, NOWHERE, MISSING, REFUSED = (
    "moved", "parked", "filtered", "unknown", "spent", "doubled", "left", "failed", "nowhere", "missing", "refused",
)  # fmt: skip
FAILURES = (FAILED, REFUSED, MISSING)  # what was meant to move, and could not

# Topic, value, key, partition, headers, and the dead letter itself.
Outgoing = tuple[str, bytes | None, bytes | None, int, list[Any], Message]


@dataclass
class Batch:
    """What becomes of some dead letters.

    Args:
        outgoing: what to write, and where to.
        counts: how many had which fate.
        taken: partition to the offset after the last dead letter that was decided about.
        stay: partition and offset of those that the next replay tries again.
        errors: what a transform raised.
        missing: how many came from which topic that is not there.
    """

    outgoing: list[Outgoing] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    taken: dict[int, int] = field(default_factory=dict)
    stay: list[tuple[int, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)

    @property
    def targets(self) -> Counter[str]:
        """How many go to which topic."""
        return Counter(record[0] for record in self.outgoing)
