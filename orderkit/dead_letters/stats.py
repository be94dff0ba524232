"""Count dead letters, and fold their errors: a million in seconds, in memory that does not grow with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

from orderkit.consuming.calm import calm_collector
from orderkit.dead_letters.bulk import COUNTED, sight, tell
from orderkit.dead_letters.filters import LetterFilter, select
from orderkit.dead_letters.labels import Trouble, label_of, masked
from orderkit.dead_letters.payload import PayloadReader
from orderkit.dead_letters.reader import DeadLetterRecord, read_batches, read_dead_letters
from orderkit.dead_letters.strangers import LOOK, not_dead_letters
from orderkit.dead_letters.times import UNKNOWN, when
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec

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
        troubles: an error's label to the letters that have it.
    """

    topic: str
    total: int = 0
    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in (*COUNTED, "dialect", "replays")}
    )
    oldest: int | None = None
    newest: int | None = None
    size: int = 0
    troubles: dict[str, Trouble] = field(default_factory=dict)

    def add(self, told: dict[str, str], many: int = 1) -> None:
        """Count `many` dead letters that tell the same."""
        self.total += many
        for name, counter in self.counts.items():
            counter[told.get(name) or UNTOLD] += many
            if len(counter) > 2 * MOST_VALUES:
                _fold(counter)

    def note(self, label: str, trouble: Trouble) -> None:
        """Take in letters that are in the same trouble."""
        self.troubles.setdefault(label, Trouble()).add(trouble)
        if len(self.troubles) > 2 * MOST_VALUES:
            rare = self.ranked()[MOST_VALUES:]
            others = self.troubles.setdefault(OTHERS, Trouble())
            for name, each in rare:
                if each is not others:
                    del self.troubles[name]
                    others.add(each)

    def ranked(self) -> list[tuple[str, Trouble]]:
        """Give the labels with their letters, the most frequent first."""
        return sorted(self.troubles.items(), key=lambda item: -item[1].count)

    def span(self, times: Iterable[int]) -> None:
        """Take in when dead letters were written, of those that say so."""
        times = [time for time in times if time != UNKNOWN]
        self.oldest = min([*times, self.oldest] if self.oldest is not None else times, default=None)
        self.newest = max([*times, self.newest] if self.newest is not None else times, default=None)

    def share(self, many: int) -> float:
        """Say which share of all letters so many are, from 0 to 1."""
        return round(many / self.total, 4) if self.total else 0.0

    def rows(self) -> list[dict[str, object]]:
        """Give a row for each error: label, count, share, first, last, partitions (a share), example (a place)."""
        places = len(set().union(*(trouble.places for trouble in self.troubles.values())))
        return [
            {
                "label": label,
                "count": trouble.count,
                "share": self.share(trouble.count),
                "first": None if trouble.first is None else when(trouble.first),
                "last": None if trouble.last is None else when(trouble.last),
                "partitions": round(len(trouble.places) / max(1, places), 4),
                "example": trouble.example and "{}:{}".format(*trouble.example),
            }
            for label, trouble in self.ranked()
        ]

    def as_dict(self) -> dict[str, object]:
        """Give it as JSON has it."""
        return {
            "topic": self.topic,
            "total": self.total,
            "bytes": self.size,
            "oldest": self.oldest,
            "newest": self.newest,
            "errors": self.rows(),
            **{NAMED.get(name, name): dict(counter.most_common()) for name, counter in self.counts.items()},
        }


def _fold(counter: Counter[str]) -> None:
    rare = counter.most_common()[MOST_VALUES:]
    for value, many in rare:
        del counter[value]
        counter[OTHERS] += many


def count_letters(
    connection: Connection,
    topic: str,
    only: LetterFilter | None = None,
    codec: PayloadReader | Codec | None = None,
    *,
    any_topic: bool = True,
) -> Stats:
    """Count the dead letters of a topic.

    Args:
        connection: the cluster.
        topic: the dead-letter topic.
        only: which are meant; by default all.
        codec: reads values, where the filter looks into them.
        any_topic: count what is there, even if nothing has a header of a known dialect.

    Raises:
        OrderkitError: no such topic, no dead letters, or the broker stopped answering.
    """
    stats = Stats(topic)
    with calm_collector():
        if only is None or only.is_empty:
            _count_all(connection, stats, any_topic)
        else:
            letters = read_dead_letters(connection, topic, any_topic=any_topic)
            for letter, _ in select(letters, only, (codec or PayloadReader()) if only.needs_order else None):
                _count_one(letter, stats)
    return stats


def _count_one(letter: DeadLetterRecord, stats: Stats) -> None:
    told = letter.story
    stats.add({**told, "dialect": letter.dialect, "replays": str(letter.replays)})
    stats.span([letter.timestamp])
    stats.size += len(letter.value or b"")
    time = None if letter.timestamp == UNKNOWN else letter.timestamp
    place = told.get("partition", str(letter.partition))
    label = label_of(told.get("exception"), masked(told.get("message")))
    stats.note(label, Trouble(1, time, time, {place}, (letter.partition, letter.offset)))


def _count_all(connection: Connection, stats: Stats, any_topic: bool) -> None:
    kinds: dict[tuple[Any, ...], Trouble] = {}
    looked, known = 0, any_topic
    for messages in read_batches(connection, stats.topic):
        sight(messages, kinds)
        stats.span(time for _, time in map(Message.timestamp, messages))
        stats.size += sum(map(len, filter(None, map(Message.value, messages))))
        looked += len(messages)
        known = known or any(way.may_be_ours for way, *_ in kinds)
        if not known and looked >= LOOK:
            raise not_dead_letters(stats.topic, looked)
        if len(kinds) > MOST_KINDS:
            _tell(kinds, stats)
    if looked and not known:
        raise not_dead_letters(stats.topic, looked)
    _tell(kinds, stats)


def _tell(kinds: dict[tuple[Any, ...], Trouble], stats: Stats) -> None:
    for told, label, trouble in tell(kinds):
        stats.add(told, trouble.count)
        lies = trouble.example[0] if trouble.example else 0
        trouble.places.add(told.get("partition", str(lies)))
        stats.note(label, trouble)
    kinds.clear()
