"""Which way a dead letter goes back, and with which headers: worked out once for all with the same header names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from orderkit.dead_letters.dialects import OWN_ORIGIN
from orderkit.dead_letters.plans import NO_ORIGIN, Plan, plan_for
from orderkit.dead_letters.story import Headers

BY_KEY = -1


class Instead(int):
    """By key, because the partition that a record came from is not there; Kafka's client reads it as `BY_KEY`."""


INSTEAD = Instead(BY_KEY)


class Way(NamedTuple):
    """How to send back all dead letters with the same header names."""

    plan: Plan
    carry: Callable[[Any], tuple[Any, ...]]  # the headers that go along as they are
    bare: Callable[[Any], tuple[Any, ...]]  # ... without those that say where it was first
    place: Callable[[Any], tuple[Any, ...]]  # the headers that say where it was first
    own: bool  # those are ours, and go along
    plain: bool  # ours, and never replayed

    def carried(self, headers: Headers, origin: tuple[str, int, int], more: Sequence[Any]) -> list[Any]:
        """Give the headers of a record that goes back, with its origin in our own, whoever told it before.

        Args:
            headers: of the dead letter.
            origin: where it was first; what has none gets no such headers, or its next death would seem to have none.
            more: what else is added.
        """
        if origin == NO_ORIGIN:
            return [*self.bare(headers), *more]
        if self.own:
            return [*self.carry(headers), *more]
        told = zip(OWN_ORIGIN, origin, strict=True)
        return [*self.carry(headers), *((name, str(value).encode()) for name, value in told), *more]


def make_way(names: tuple[str, ...]) -> Way:
    """Work out how to send back dead letters with these header names."""
    plan = plan_for(names)
    places = tuple(i for i in plan.first if i >= 0)
    own = plan.dialect is not None and [names[i] for i in places] == list(OWN_ORIGIN)
    value = (plan.value,) if plan.value >= 0 else ()
    kept = (*plan.kept, *(places if own else ()), *value)
    bare = _getter((*plan.kept, *value))
    return Way(plan, _getter(kept), bare, _getter(places), own, own and plan.replays < 0)


def _getter(places: tuple[int, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """Make a function that takes some headers out; `itemgetter` gives a tuple only for two or more."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda headers: tuple(headers[i] for i in places)
