"""Which origins were seen before, in little memory: how a double replay is noticed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

from orderkit.consuming.calm import calm_collector
from orderkit.dead_letters.plans import find_plan
from orderkit.dead_letters.reader import read_batches
from orderkit.dead_letters.story import header_list
from orderkit.kafka import Connection

PAGE = 8  # bits of an offset within one page: 256 offsets share a number
EXAMPLES = 20  # doubles that are named


class Offsets:
    """A set of offsets: a bit each where they lie dense, some 160 bytes each where they lie far apart."""

    def __init__(self) -> None:
        self._pages: dict[int, int] = {}

    def again(self, offset: int) -> bool:
        """Note an offset; whether it was noted before."""
        pages = self._pages
        page, bit = offset >> PAGE, 1 << (offset & 255)
        before = pages.get(page, 0)
        if before & bit:
            return True
        pages[page] = before | bit
        return False

    def forget(self, offset: int) -> None:
        """Take a note back."""
        self._pages[offset >> PAGE] = self._pages.get(offset >> PAGE, 0) & ~(1 << (offset & 255))


Seen = defaultdict[tuple[str, int, int], Offsets]  # by topic, partition and replay count


def nothing_seen() -> Seen:
    """Give an empty memory of replayed records."""
    return defaultdict(Offsets)


@dataclass
class ReplayCheck:
    """The replayed records that a topic holds now.

    Args:
        topic: its name.
        replayed: how many there are.
        doubled: how many of them are there again: same first origin, same replay count.
        by_count: how many were replayed once, twice ...
        examples: some of the doubled: first origin, and where the second copy lies (partition, offset).
    """

    topic: str
    replayed: int = 0
    doubled: int = 0
    by_count: Counter[int] = field(default_factory=Counter)
    examples: list[tuple[tuple[str, int, int], tuple[int, int]]] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{many} {count} x" for count, many in sorted(self.by_count.items()))
        told = f"{self.replayed} replayed records in {self.topic}" + (f" ({counts})" if counts else "")
        if not self.doubled:
            return f"{told}; none was replayed twice for one failure"
        ((topic, partition, offset), (there, at)) = self.examples[0]
        return (
            f"{told}; {self.doubled} WERE REPLAYED TWICE and would count twice, "
            f"as {topic}[{partition}]@{offset}: its second copy is at {there}:{at}"
        )

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON has it."""
        return {
            "topic": self.topic,
            "replayed": self.replayed,
            "doubled": self.doubled,
            "by_count": {str(count): many for count, many in sorted(self.by_count.items())},
            "examples": [{"origin": list(origin), "copy": list(copy)} for origin, copy in self.examples],
        }

    def note(self, count: int, origin: tuple[str, int, int], message: Message, seen: Seen) -> None:
        """Count one replayed record."""
        self.replayed += 1
        self.by_count[count] += 1
        if min(origin[1:]) >= 0 and seen[origin[0], origin[1], count].again(origin[2]):
            self.doubled += 1
            if len(self.examples) < EXAMPLES:
                self.examples.append((origin, (message.partition() or 0, message.offset() or 0)))


def check_replays(
    connection: Connection, topic: str, seen: Seen | None = None, stop: Callable[[], bool] = lambda: False
) -> ReplayCheck:
    """Find the records of a topic that were replayed, and those that were replayed more than once for one failure.

    Each replay of a record raises its replay count, so two records with the same first origin and the same count are
    one replay that happened twice; counted by a consumer, the order is in its average twice.

    Args:
        connection: the cluster.
        topic: where replayed records went.
        seen: notes them, too.
        stop: asked now and then whether to leave it.

    Raises:
        OrderkitError: no such topic, or the broker stopped answering.
    """
    found, seen = ReplayCheck(topic), nothing_seen() if seen is None else seen
    with calm_collector():
        for messages in read_batches(connection, topic):
            for message in messages:
                headers: Any = header_list(message)
                if headers and (plan := find_plan(headers)).replays >= 0:
                    found.note(plan.replay_count(headers), plan.origin(headers), message, seen)
            if stop():
                break
    return found
