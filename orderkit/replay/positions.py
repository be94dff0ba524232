"""Where a replay stands in a dead-letter topic: its group's offsets, what stayed behind them, and who is at work."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import TopicPartition

from orderkit.consuming.saved import METADATA_LIMIT, holes_from_text, holes_to_text
from orderkit.replay.claims import Claim


@dataclass
class Position:
    """How far one partition was replayed.

    Args:
        next: the first offset that nobody has decided about.
        stay: earlier offsets of dead letters that are to be tried again.
        claim: who is at work on it; `None` for nobody.
    """

    next: int = 0
    stay: set[int] = field(default_factory=set)
    claim: Claim | None = None

    @property
    def first(self) -> int:
        """The first offset to read."""
        return min(self.next, min(self.stay, default=self.next))

    def wants(self, offset: int) -> bool:
        """Whether a dead letter is still to be decided about."""
        return offset >= self.next or offset in self.stay

    def to_commit(self) -> tuple[int, str]:
        """Give the offset to commit, and its metadata: JSON with what stayed, and the claim as of now.

        What does not fit holds the offset back; then moved letters are read again, and known by their origin.
        """
        stay, end = sorted(self.stay), self.next
        text = _written(stay, self.claim)
        while len(text) > METADATA_LIMIT:
            stay, end = stay[: len(stay) * 3 // 4], stay[len(stay) * 3 // 4]
            text = _written(stay, self.claim)
        return end, text

    @classmethod
    def from_commit(cls, commit: TopicPartition, low: int) -> Position:
        """Read a commit; without one, or with an offset that is there no more, begin at `low`."""
        if commit.offset < 0:
            return cls(low)
        try:
            told = json.loads(commit.metadata or "{}")
            stay = {offset for offset, _ in holes_from_text(told.get("stay", ""))}
            claim = Claim.from_json(told.get("by"))
        except (ValueError, AttributeError, TypeError):  # somebody else's metadata
            stay, claim = set(), None
        return cls(max(low, commit.offset), {offset for offset in stay if offset >= low}, claim)


def _written(stay: Iterable[int], claim: Claim | None) -> str:
    told: dict[str, Any] = {}
    if text := holes_to_text((offset, 0) for offset in stay):
        told["stay"] = text
    if claim is not None:
        told["by"] = claim.to_json()
    return json.dumps(told) if told else ""
