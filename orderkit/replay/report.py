"""What a replay did, or would do."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from orderkit.replay.batch import FAILURES, MOVED, PARKED, REFUSED, Batch
from orderkit.replay.seen import ReplayCheck
from orderkit.replay.ways import Instead

ERRORS_TOLD = 5
NAMES_TOLD = 5


@dataclass
class ReplayReport:
    """What a replay did, or would do.

    Args:
        source: the dead-letter topic.
        group: whose offsets say how far the replay is.
        looked: dead letters that were decided about.
        counts: how many had which fate, in the words of `orderkit.replay.batch`.
        targets: how many went to which topic.
        by_key: how many of those by key, because the target has no longer the partition that they came from.
        errors: the first few of what a transform raised.
        waiting: dead letters that stayed and are tried again by the next replay.
        checks: what the targets held before, by topic.
        seconds: how long it took, the look at the targets included.
        missing: how many came from which topic that is not there.
        acknowledged: records that the broker has acknowledged, and whose offsets are noted.
        interrupted: somebody stopped it before its end.
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
    missing: Counter[str] = field(default_factory=Counter)
    acknowledged: int = 0
    interrupted: bool = False

    @property
    def written(self) -> int:
        """How many records went to another topic."""
        return self.counts[MOVED] + self.counts[PARKED]

    @property
    def failed(self) -> int:
        """How many dead letters were meant and could not go: not mended, too large, or without their topic."""
        return sum(self.counts[fate] for fate in FAILURES)

    @property
    def notes(self) -> list[str]:
        """What else there is to know of a target, in one line for each."""
        by_key = [
            f"{many} of {self.targets[name]} to {name} by key: it has not the partitions that they came from"
            for name, many in self.by_key.items()
        ]
        gone = [
            f"{many} from {name}, which is no topic here: create it and run this again, or name another with --to"
            for name, many in self.missing.most_common(NAMES_TOLD)
        ]
        return by_key + gone

    def add(self, batch: Batch, looked: int) -> None:
        """Count what became of a batch."""
        self.looked += looked
        self.counts += batch.counts
        self.targets += batch.targets
        self.by_key += Counter(record[0] for record in batch.outgoing if record[3].__class__ is Instead)
        self.errors += batch.errors[: ERRORS_TOLD - len(self.errors)]
        self.missing += batch.missing

    def take_back(self, topic: str, parked: bool) -> None:
        """Count a record that its target refused."""
        self.counts[PARKED if parked else MOVED] -= 1
        self.counts[REFUSED] += 1
        self.targets[topic] -= 1
        self.counts, self.targets = +self.counts, +self.targets

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON has it."""
        return {
            "source": self.source,
            "group": self.group,
            "looked": self.looked,
            "counts": dict(self.counts),
            "targets": dict(self.targets),
            "by_key": dict(self.by_key),
            "missing": dict(self.missing),
            "errors": self.errors,
            "waiting": self.waiting,
            "doubled_before": {name: check.doubled for name, check in self.checks.items()},
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
        }
