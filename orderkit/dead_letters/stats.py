"""Count dead letters: a million in seconds, in memory that does not grow with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from confluent_kafka import Message

from orderkit.consuming.calm import calm_collector
from orderkit.dead_letters.filters import LetterFilter, select
from orderkit.dead_letters.plans import Plan, plan_for
from orderkit.dead_letters.reader import DeadLetterRecord, read_batches, read_dead_letters
from orderkit.dead_letters.story import header_list
from orderkit.dead_letters.times import UNKNOWN
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec

COUNTED = ("reason", "exception", "topic", "group", "attempts")
NAMED = {"topic": "origin"}  # what a name is called in a report, where `topic` is the dead-letter topic
MOST_VALUES = 1_000  # different values of a name that are told apart; the rarest of more are OTHERS
OTHERS = "(others)"
UNTOLD = "?"
MOST_KINDS = 10_000  # different stories that are counted apart for a while


@dataclass
class Stats:
    """What lies in a dead-letter topic.

    Args:
        topic: its name.
        total: dead letters, or those that are meant by the filter.
        counts: name of what is told to how often each value was told; "?" where it was not told.
        oldest, newest: when the first and the last was written, in ms since 1970; `None` when there is none.
        size: bytes of all values.
    """

    topic: str
    total: int = 0
    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in (*COUNTED, "dialect", "replays")}
    )
    oldest: int | None = None
    newest: int | None = None
    size: int = 0

    def add(self, told: dict[str, str], many: int = 1) -> None:
        """Count `many` dead letters that tell the same."""
        self.total += many
        for name, counter in self.counts.items():
            counter[told.get(name) or UNTOLD] += many
            if len(counter) > 2 * MOST_VALUES:
                _fold(counter)

    def span(self, times: Iterable[int]) -> None:
        """Take in when dead letters were written, of those that say so."""
        times = [time for time in times if time != UNKNOWN]
        self.oldest = min([*times, self.oldest] if self.oldest is not None else times, default=None)
        self.newest = max([*times, self.newest] if self.newest is not None else times, default=None)

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON has it."""
        return {
            "topic": self.topic,
            "total": self.total,
            "bytes": self.size,
            "oldest": self.oldest,
            "newest": self.newest,
            **{NAMED.get(name, name): dict(counter.most_common()) for name, counter in self.counts.items()},
        }


def _fold(counter: Counter[str]) -> None:
    rare = counter.most_common()[MOST_VALUES:]
    for value, many in rare:
        del counter[value]
        counter[OTHERS] += many


def count_letters(
    connection: Connection, topic: str, only: LetterFilter | None = None, codec: Codec | None = None
) -> Stats:
    """Count the dead letters of a topic.

    Args:
        connection: the cluster.
        topic: the dead-letter topic.
        only: which are meant; by default all.
        codec: reads orders, where the filter looks into them.

    Raises:
        OrderkitError: no such topic, or the broker stopped answering.
    """
    stats = Stats(topic)
    with calm_collector():
        if only is None or only.is_empty:
            _count_all(connection, stats)
        else:
            letters = read_dead_letters(connection, topic)
            for letter, _ in select(letters, only, (codec or Codec()) if only.needs_order else None):
                _count_one(letter, stats)
    return stats


def _count_one(letter: DeadLetterRecord, stats: Stats) -> None:
    stats.add({**letter.story, "dialect": letter.dialect, "replays": str(letter.replays)})
    stats.span([letter.timestamp])
    stats.size += len(letter.value or b"")


def _count_all(connection: Connection, stats: Stats) -> None:
    kinds: Counter[tuple[Any, ...]] = Counter()
    for messages in read_batches(connection, stats.topic):
        kinds.update(_kinds(messages))
        stats.span(time for _, time in map(Message.timestamp, messages))
        stats.size += sum(map(len, filter(None, map(Message.value, messages))))
        if len(kinds) > MOST_KINDS:
            _tell(kinds, stats)
    _tell(kinds, stats)


def _kinds(messages: Sequence[Message]) -> Iterable[tuple[Any, ...]]:
    """Give of each dead letter its plan and the headers that are counted, unread: most tell the same as others."""
    last: list[str] = []
    way = None
    for message in messages:
        headers: Any = header_list(message)
        names = [name for name, _ in headers]
        if names != last or way is None:
            last, way = names, _way(tuple(names))
        plan, places, get = way
        yield (plan, places, *get(headers))


def _way(names: tuple[str, ...]) -> tuple[Plan, tuple[int, ...], Any]:
    plan = plan_for(names)
    places = tuple(i for name, i, _ in plan.told if name in COUNTED) + ((plan.replays,) if plan.replays >= 0 else ())
    get = itemgetter(*places) if len(places) > 1 else lambda headers: tuple(headers[i] for i in places)
    return plan, places, get


def _tell(kinds: Counter[tuple[Any, ...]], stats: Stats) -> None:
    """Read the headers of each kind once, and count what they tell."""
    for (plan, places, *taken), many in kinds.items():
        headers: Any = [("", None)] * (max(places, default=-1) + 1)
        for place, header in zip(places, taken, strict=True):
            headers[place] = header
        told = plan.story_of(headers, places)
        dialect = plan.dialect.name if plan.dialect else ""
        stats.add({**told, "dialect": dialect, "replays": str(plan.replay_count(headers))}, many)
    kinds.clear()
