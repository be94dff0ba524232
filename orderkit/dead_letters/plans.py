"""How to take dead letters apart: worked out once for all records with the same header names, then used for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from orderkit.dead_letters.dialects import (
    DIALECTS,
    ORIGIN,
    ORIGINAL_VALUE,
    OWN_ORIGIN,
    REPLAY_COUNT,
    Dialect,
    find_dialect,
)
from orderkit.dead_letters.kinds import NUMBER, TEXT, Kind, read_header
from orderkit.dead_letters.story import PREFIX, UNREADABLE, Headers
from orderkit.dead_letters.times import MOST_DIGITS
from orderkit.errors import UsageError

NOWHERE = -1, -1, -1
NO_ORIGIN = "?", -1, -1
MANY_PLANS = 1000  # ways to head a record; more in one topic means that the names hold data


@dataclass(frozen=True, eq=False)  # one for each way to head a record: told apart by identity, which is fast
class Plan:
    """How to take apart all records with the same header names: indices into their headers.

    Args:
        dialect: who wrote them; `None` for nobody known.
        told: what it tells, which header (the newest of its name), and how that is read.
        kept: the original headers.
        first: topic, partition and offset of the first origin, before any replay; -1 for none.
        own: the first origin is in our headers, whoever wrote the rest.
        replays: how often the record was replayed; -1 for no such header.
        value: the value before somebody mended it; -1 for no such header.
        kinds: how the partition and the offset of the first origin are read.
        names: of all headers.
    """

    dialect: Dialect | None
    told: tuple[tuple[str, int, Kind], ...] = ()
    kept: tuple[int, ...] = ()
    first: tuple[int, int, int] = NOWHERE
    own: bool = False
    replays: int = -1
    value: int = -1
    kinds: tuple[Kind, Kind] = (NUMBER, NUMBER)
    names: tuple[str, ...] = ()

    def read(self, headers: Headers) -> tuple[dict[str, str], tuple[str, ...]]:
        """Read what the added headers tell, all as text; and notes on those that are not what they should be."""
        if self.is_plain:  # the plain case costs a third of the time
            try:
                told = {name: headers[i][1].decode() for name, i, _ in self.told}  # type: ignore[union-attr]
            except (AttributeError, UnicodeDecodeError):
                return self._read(headers)
            numbers = list(map(told.__getitem__, self.numbers))
            if all(map(str.isdecimal, numbers)) and max(map(len, numbers), default=0) <= MOST_DIGITS:
                return told, ()
        return self._read(headers)

    def _read(self, headers: Headers) -> tuple[dict[str, str], tuple[str, ...]]:
        told, notes = {}, []
        for name, i, kind in self.told:
            text, note = read_header(self.names[i], headers[i][1], kind)
            if text is not None:
                told[name] = text
            if note:
                notes.append(note)
        if self.replays >= 0 and (note := read_header(REPLAY_COUNT, headers[self.replays][1], NUMBER)[1]):
            notes.append(note)
        if self.names == (UNREADABLE[0],):
            notes.append(UNREADABLE[1].decode())
        return told, tuple(notes)

    @cached_property
    def is_plain(self) -> bool:
        """Whether all that it tells is text or a decimal."""
        return self.replays < 0 and all(kind in (TEXT, NUMBER) for _, _, kind in self.told) and bool(self.told)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """What it tells in decimals."""
        return tuple(name for name, _, kind in self.told if kind is NUMBER)

    def story_of(self, headers: Headers, places: Sequence[int]) -> dict[str, str]:
        """Read what some of the added headers tell."""
        told = {name: read_header("", headers[i][1], kind)[0] for name, i, kind in self.told if i in places}
        return {name: text for name, text in told.items() if text is not None}

    def origin(self, headers: Headers) -> tuple[str, int, int]:
        """Read where a record was first, before any replay; what nobody wrote down is "?" or -1.

        Where one of these headers is there and says nothing of the kind, the record has no origin at all.
        """
        topic, partition, offset = self.first
        name = read_header("", headers[topic][1], TEXT)[0] or "" if topic >= 0 else "?"
        number = _number(headers[partition][1], self.kinds[0]) if partition >= 0 else -1
        place = _number(headers[offset][1], self.kinds[1]) if offset >= 0 else -1
        broken = not name or (partition >= 0 and number < 0) or (offset >= 0 and place < 0)
        return NO_ORIGIN if broken else (name, number, place)

    def replay_count(self, headers: Headers) -> int:
        """Read how often a record was replayed."""
        return max(0, _number(headers[self.replays][1])) if self.replays >= 0 else 0


def _number(value: str | bytes | None, kind: Kind = NUMBER) -> int:
    """Read a number; -1 when it is none, or below 0, as no partition or offset is."""
    return max(-1, int(read_header("", value, kind)[0] or -1))


_plans: dict[tuple[str, ...], Plan] = {}


def find_plan(headers: Headers) -> Plan:
    """Find the plan for a record's headers; records with the same header names share one."""
    return plan_for(tuple([name for name, _ in headers]))


def plan_for(names: tuple[str, ...]) -> Plan:
    """Find the plan for header names, or make it."""
    plan = _plans.get(names)
    if plan is None:
        if len(_plans) >= MANY_PLANS:
            _plans.clear()
        plan = _plans[names] = make_plan(names)
    return plan


def add_dialect(dialect: Dialect) -> None:
    """Let dead letters of one more system be read from now on, in this process.

    Raises:
        UsageError: there is one of that name, or it has no marks to be known by.
    """
    if not dialect.marks or dialect.name in {it.name for it in DIALECTS}:
        raise UsageError(f"Dialect {dialect.name!r} needs a name of its own, and marks: headers that prove it.")
    DIALECTS.append(dialect)
    _plans.clear()


def make_plan(names: Sequence[str]) -> Plan:
    """Plan how to take records with these header names apart."""
    dialect, replays = find_dialect(names), _first(names, REPLAY_COUNT)
    own = replays >= 0 and all(name in names for name in OWN_ORIGIN)  # we replayed it, and said where it was first
    own_first = _first(names, OWN_ORIGIN[0]), _first(names, OWN_ORIGIN[1]), _first(names, OWN_ORIGIN[2])
    value = _first(names, ORIGINAL_VALUE)
    if dialect is None:
        added = set(filter(lambda name: name.startswith(PREFIX), names)) if own else {REPLAY_COUNT, ORIGINAL_VALUE}
        kept = tuple(i for i, name in enumerate(names) if name not in added)
        first = own_first if own else NOWHERE
        return Plan(None, (), kept, first, own, replays, value, names=tuple(names))
    told = [(dialect.tells(name), i) for i, name in enumerate(names)]
    known = [(*it, i) for it, i in told if it is not None and names[i] not in (REPLAY_COUNT, ORIGINAL_VALUE)]
    in_order = known[::-1] if dialect.newest_first else known
    newest = {name: (kind, i) for name, kind, i in in_order}
    for name, wrapped in (("exception", "wrapper"), ("message", "wrapper-message")):
        if name not in newest and wrapped in newest:
            newest[name] = newest.pop(wrapped)
    oldest = {name: (kind, i) for name, kind, i in in_order[::-1]}
    places = [oldest.get(name, (NUMBER, -1)) for name in ORIGIN]
    first = own_first if own else (places[0][1], places[1][1], places[2][1])
    return Plan(
        dialect,
        tuple((name, i, kind) for name, (kind, i) in newest.items()),
        tuple(i for i, name in enumerate(names) if told[i][0] is None and not name.startswith(PREFIX)),
        first,
        own,
        replays,
        value,
        (NUMBER, NUMBER) if own else (places[1][0], places[2][0]),
        tuple(names),
    )


def _first(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1
