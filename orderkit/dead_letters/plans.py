"""How to take dead letters apart: worked out once for all records with the same header names, then used for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orderkit.dead_letters.dialects import NUMBERS, ORIGINAL_VALUE, OWN_ORIGIN, REPLAY_COUNT, Dialect, find_dialect
from orderkit.dead_letters.story import PREFIX, Headers

LONGEST_INT = 8  # bytes of a number in binary
INTS = {4, 8}  # bytes of a partition or an offset in binary, as Java writes int and long
NOWHERE = -1, -1, -1
NO_ORIGIN = "?", -1, -1
MANY_PLANS = 1000  # ways to head a record; more in one topic means that the names hold data


@dataclass(frozen=True, eq=False)  # one for each way to head a record: told apart by identity, which is fast
class Plan:
    """How to take apart all records with the same header names: indices into their headers.

    Args:
        dialect: who wrote them; `None` for nobody known.
        told: what it tells, which header (the newest of its name), and whether that is a number.
        kept: the original headers.
        first: topic, partition and offset of the first origin, before any replay; -1 for none.
        own: the first origin is in our headers, whoever wrote the rest.
        replays: how often the record was replayed; -1 for no such header.
        value: the value before somebody mended it; -1 for no such header.
    """

    dialect: Dialect | None
    told: tuple[tuple[str, int, bool], ...] = ()
    kept: tuple[int, ...] = ()
    first: tuple[int, int, int] = NOWHERE
    own: bool = False
    replays: int = -1
    value: int = -1

    @property
    def binary(self) -> bool:
        """Whether its dialect writes numbers in binary."""
        return self.dialect is not None and self.dialect.binary

    def story(self, headers: Headers) -> dict[str, str]:
        """Read what the added headers tell, all as text."""
        if self.binary:
            return {name: _text(headers[i][1], binary=number) for name, i, number in self.told}
        try:  # the plain case costs a third of the time
            return {name: headers[i][1].decode() for name, i, _ in self.told}  # type: ignore[union-attr]
        except (AttributeError, UnicodeDecodeError):
            return {name: _text(headers[i][1]) for name, i, _ in self.told}

    def story_of(self, headers: Headers, places: Sequence[int]) -> dict[str, str]:
        """Read what some of the added headers tell."""
        return {name: _text(headers[i][1], self.binary and number) for name, i, number in self.told if i in places}

    def origin(self, headers: Headers) -> tuple[str, int, int]:
        """Read where a record was first, before any replay; what nobody wrote down is "?" or -1.

        Where one of these headers is there and says nothing of the kind, the record has no origin at all.
        """
        topic, partition, offset = self.first
        binary = self.binary and not self.own
        name = _text(headers[topic][1]) if topic >= 0 else "?"
        number = _number(headers[partition][1], binary) if partition >= 0 else -1
        place = _number(headers[offset][1], binary) if offset >= 0 else -1
        broken = not name or (partition >= 0 and number < 0) or (offset >= 0 and place < 0)
        if broken:
            return NO_ORIGIN
        return name, number, place

    def replay_count(self, headers: Headers) -> int:
        """Read how often a record was replayed."""
        return max(0, _number(headers[self.replays][1])) if self.replays >= 0 else 0


def _text(value: str | bytes | None, binary: bool = False) -> str:
    if not isinstance(value, bytes):
        return value or ""
    if binary and 0 < len(value) <= LONGEST_INT:
        return str(int.from_bytes(value, "big", signed=True))
    return value.decode(errors="replace")


def _number(value: str | bytes | None, binary: bool = False) -> int:
    """Read a number; -1 when it is none."""
    if binary and (not isinstance(value, bytes) or len(value) not in INTS):
        return -1
    try:
        return int(_text(value, binary))
    except ValueError:
        return -1


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


def make_plan(names: Sequence[str]) -> Plan:
    """Plan how to take records with these header names apart."""
    dialect, replays = find_dialect(names), _first(names, REPLAY_COUNT)
    own = replays >= 0 and all(name in names for name in OWN_ORIGIN)  # we replayed it, and said where it was first
    own_first = _first(names, OWN_ORIGIN[0]), _first(names, OWN_ORIGIN[1]), _first(names, OWN_ORIGIN[2])
    value = _first(names, ORIGINAL_VALUE)
    if dialect is None:
        added = set(filter(lambda name: name.startswith(PREFIX), names)) if own else {REPLAY_COUNT, ORIGINAL_VALUE}
        kept = tuple(i for i, name in enumerate(names) if name not in added)
        return Plan(None, (), kept, own_first if own else NOWHERE, own, replays, value)
    told = [(dialect.tells(name), i) for i, name in enumerate(names)]
    known = [(name, i) for name, i in told if name is not None and names[i] not in (REPLAY_COUNT, ORIGINAL_VALUE)]
    in_order = known[::-1] if dialect.newest_first else known
    newest = dict(in_order)
    for name, wrapped in (("exception", "wrapper"), ("message", "wrapper-message")):
        if name not in newest and wrapped in newest:
            newest[name] = newest.pop(wrapped)
    oldest = dict(in_order[::-1])
    first = own_first if own else (oldest.get("topic", -1), oldest.get("partition", -1), oldest.get("offset", -1))
    numbers = NUMBERS | ({"due", "first-timestamp"} if dialect.binary else set[str]())
    return Plan(
        dialect,
        tuple((name, i, name in numbers) for name, i in newest.items()),
        tuple(i for i, name in enumerate(names) if told[i][0] is None and not name.startswith(PREFIX)),
        first,
        own,
        replays,
        value,
    )


def _first(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1
