"""What a replay did, or would do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from orderkit.dead_letters.batch import FAILED, MOVED, PARKED, Batch
from orderkit.dead_letters.routing import Instead
from orderkit.dead_letters.seen import ReplayCheck

ERRORS_TOLD = 5


@dataclass
class ReplayReport:
    """What a replay did, or would do.

    Args:
        source: the dead-letter topic.
        group: whose offsets say how far the replay is.
        looked: dead letters that were decided about.
        counts: how many had which fate: moved, parked, filtered, unknown, spent, doubled, left, failed.
        targets: how many went to which topic.
        by_key: how many of those by key, because the target has no longer the partition that they came from.
        errors: the first few of what a transform raised.
        waiting: dead letters that stayed and are tried again by the next replay.
        checks: what the targets held before, by topic.
        seconds: how long it took, without the look at the targets.
    """

    source: str
    group: str
    looked: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    waiting: int = 0
    checks: dict[str, ReplayCheck] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def written(self) -> int:
        """How many records went to another topic."""
        return self.counts[MOVED] + self.counts[PARKED]

    @property
    def failed(self) -> int:
        """How many dead letters the transform could not mend."""
        return self.counts[FAILED]

    @property
    def notes(self) -> list[str]:
        """What else there is to know of a target, in one line for each."""
        return [
            f"{many} of {self.targets[name]} to {name} by key: it has not the partitions that they came from"
            for name, many in self.by_key.items()
        ]

    def add(self, batch: Batch, looked: int) -> None:
        """Count what became of a batch."""
        self.looked += looked
        self.counts += batch.counts
        self.targets += batch.targets
        self.by_key += Counter(record[0] for record in batch.outgoing if record[3].__class__ is Instead)
        self.errors += batch.errors[: ERRORS_TOLD - len(self.errors)]

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON has it."""
        return {
            "source": self.source,
            "group": self.group,
            "looked": self.looked,
            "counts": dict(self.counts),
            "targets": dict(self.targets),
            "by_key": dict(self.by_key),
            "errors": self.errors,
            "waiting": self.waiting,
            "doubled_before": {name: check.doubled for name, check in self.checks.items()},
            "seconds": round(self.seconds, 3),
        }
