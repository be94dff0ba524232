"""Many dead letters at once: their headers are counted unread, and what is the same is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from confluent_kafka import Message

from orderkit.dead_letters.labels import Trouble, label_of, masked
from orderkit.dead_letters.plans import MANY_PLANS, Plan, plan_for
from orderkit.dead_letters.story import UNREADABLE, header_list
from orderkit.dead_letters.times import UNKNOWN

COUNTED = ("reason", "exception", "topic", "group", "attempts")


@dataclass(frozen=True, eq=False)
class Way:
    """Which headers of records with the same names are counted, unread: most tell the same as others.

    Args:
        plan: how to take them apart.
        places: the headers that are counted.
        get: takes them out.
        exception, message: where those are; -1 for no such header.
    """

    plan: Plan
    places: tuple[int, ...]
    get: Any
    exception: int
    message: int

    @classmethod
    def of(cls, names: tuple[str, ...]) -> Way:
        """Work it out."""
        plan = plan_for(names)
        told = {name: i for name, i, _ in plan.told}
        places = tuple(i for name, i in told.items() if name in (*COUNTED, "partition"))
        places += (plan.replays,) if plan.replays >= 0 else ()
        get = itemgetter(*places) if len(places) > 1 else lambda headers: tuple(headers[i] for i in places)
        return cls(plan, places, get, told.get("exception", -1), told.get("message", -1))

    @property
    def may_be_ours(self) -> bool:
        """Whether its letters have a header that is known, or none that can be read."""
        return self.plan.dialect is not None or self.plan.names == (UNREADABLE[0],)


def sight(messages: Sequence[Message], kinds: dict[tuple[Any, ...], Trouble]) -> None:
    """Note each dead letter with those that tell the same."""
    last: list[str] = []
    way = None
    for message in messages:
        headers: Any = header_list(message)
        names = [name for name, _ in headers]
        if names != last or way is None:
            last, way = names, _way(tuple(names))
        told = masked(headers[way.message][1]) if way.message >= 0 else b""
        key = (way, label_of(headers[way.exception][1] if way.exception >= 0 else None, told), *way.get(headers))
        trouble = kinds.get(key)
        if trouble is None:
            trouble = kinds[key] = Trouble(example=(message.partition() or 0, message.offset() or 0))
        trouble.count += 1
        _, time = message.timestamp()
        if time != UNKNOWN:
            if trouble.first is None or time < trouble.first:
                trouble.first = time
            if trouble.last is None or time > trouble.last:
                trouble.last = time


_ways: dict[tuple[str, ...], Way] = {}


def _way(names: tuple[str, ...]) -> Way:
    plan = plan_for(names)
    way = _ways.get(names)
    if way is None or way.plan is not plan:  # one for each plan, so that letters of two batches are counted together
        if len(_ways) >= MANY_PLANS:
            _ways.clear()
        way = _ways[names] = Way.of(names)
    return way


def tell(kinds: dict[tuple[Any, ...], Trouble]) -> Iterator[tuple[dict[str, str], str, Trouble]]:
    """Read the headers of each kind once; yield what they tell, the label of the error, and how many there are."""
    for (way, label, *taken), trouble in kinds.items():
        headers: Any = [("", None)] * (max(way.places, default=-1) + 1)
        for place, header in zip(way.places, taken, strict=True):
            headers[place] = header
        told = way.plan.story_of(headers, way.places)
        told["dialect"] = way.plan.dialect.name if way.plan.dialect else ""
        told["replays"] = str(way.plan.replay_count(headers))
        yield told, label, trouble
