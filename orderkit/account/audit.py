"""Does every order add up? The ledger, the topics and the commits held against each other.

Three witnesses that do not know each other: the producer's delivery reports say which records exist, the ledger says
what the consumer did with each, and the broker says what was committed and what lies in the dead-letter topic. A lost
or a doubled order makes two of them disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from orderkit.account.report import Report
from orderkit.account.state import GroupState
from orderkit.account.tally import AVERAGED, DEAD, FINISHED, RETRY, SKIPPED, TAKEN, Tally
from orderkit.dead_letters import read_dead_letters
from orderkit.kafka import Connection
from orderkit.ledger import Ledger

Place = tuple[int, int]  # partition and offset
Origin = tuple[str, int, int]  # topic, partition and offset


def account(
    ledger: Ledger,
    state: GroupState,
    topic: str,
    *,
    produced: Mapping[int, Tally] | None = None,
    letters: Iterable[Origin] | None = None,
    seed: int = 0,
    broker: str = "",
) -> Report:
    """Hold the witnesses against each other.

    Args:
        ledger: what the consumer did with the orders of `topic`.
        state: what the broker has committed for its group.
        topic: where the orders are.
        produced: the producer's tallies by partition; without them, what the consumer has taken is accounted for.
        letters: the origins of the records in the dead-letter topic; without them its acknowledgements are believed.
        seed: for the report.
        broker: for the report.
    """
    tallies = {partition: tally for (name, partition), tally in ledger.tallies.items() if name == topic}
    exist = _existing(produced) if produced else _taken(tallies, state)
    gone = sum(len(tally.offsets(FINISHED)) for name, tally, _ in ledger.closed if name == topic)
    fated = {number: set(tally.offsets(FINISHED)) for number, tally in tallies.items()}
    expired, more = _expired(ledger, topic, exist, fated, whole=produced is not None)
    passed, in_flight = _without_fate(exist, fated, state, expired)
    doubled = sum(tally.doubled() for tally in tallies.values())
    unsaved, strange = _against_commits(ledger, state) if produced is not None else (0, 0)
    missing, surplus = _against_letters(tallies, topic, letters) if letters is not None else (0, 0)
    return Report(
        produced=sum(map(len, exist.values())) + gone + more,
        averaged=ledger.counts[AVERAGED], dead=ledger.counts[DEAD], skipped=ledger.counts[SKIPPED],
        in_flight=in_flight, retries=ledger.counts[RETRY],
        lost=passed + unsaved + missing,
        duplicated=doubled + strange + surplus,
        average=state.average.rounded(), count=state.average.count,
        seed=seed, broker=broker, expired=len(expired) + more,
        counted="taken" if produced is None else "produced", lost_to_crashes=state.lost,
    )  # fmt: skip


def _existing(produced: Mapping[int, Tally]) -> dict[int, list[int]]:
    return {number: tally.offsets(TAKEN) for number, tally in produced.items()}


def _taken(tallies: Mapping[int, Tally], state: GroupState) -> dict[int, list[int]]:
    """List what was taken. What was given back is another member's; in flight is what nobody has committed since."""

    def still_open(number: int) -> Callable[[int], bool]:
        return lambda offset: offset >= state.offsets.get(number, 0) or (number, offset) in state.waiting

    return {number: tally.taken(still_open(number)) for number, tally in tallies.items()}


def _expired(
    ledger: Ledger, topic: str, exist: Mapping[int, Sequence[int]], fated: Mapping[int, set[int]], *, whole: bool
) -> tuple[set[Place], int]:
    """Find the orders that expired: where those were that `exist` knows, and how many more.

    If it knows the `whole`, what is not in it was no order. Of a log that is gone, nothing is delivered again.
    """
    known, more = set(), 0
    for (name, number), gaps in ledger.gaps.items():
        if name == topic:
            there = {offset for offset in exist.get(number, ()) if any(offset in gap for gap in gaps)}
            known |= {(number, offset) for offset in there - fated.get(number, set())}
            more += 0 if whole else sum(map(len, gaps)) - len(there)
    for name, tally, gaps in ledger.closed:
        if name == topic:
            more += tally.count(TAKEN) + (0 if whole else sum(map(len, gaps)))
    return known, more


def _without_fate(
    exist: Mapping[int, Sequence[int]], fated: Mapping[int, set[int]], state: GroupState, expired: set[Place]
) -> tuple[int, int]:
    """Count the orders without a fate: those that the group's commit has passed, and those that will be delivered."""
    passed = coming = 0
    for number, offsets in exist.items():
        finished = fated.get(number, set())
        for offset in offsets:
            if offset not in finished and (number, offset) not in expired:
                if offset < state.offsets.get(number, 0) and (number, offset) not in state.waiting:
                    passed += 1
                else:
                    coming += 1
    return passed, coming


def _against_commits(ledger: Ledger, state: GroupState) -> tuple[int, int]:
    """Hold the ledger's fates against what is committed: those that are not in it, and those too many."""
    counted = [ledger.counts[fate] for fate in (AVERAGED, DEAD, SKIPPED)]
    saved = [state.average.count, state.dead, state.skipped]
    missing = sum(max(0, ours - theirs) for ours, theirs in zip(counted, saved, strict=True))
    surplus = sum(max(0, theirs - ours) for ours, theirs in zip(counted, saved, strict=True))
    return missing, surplus + _doubled_ids(ledger)


def _against_letters(tallies: Mapping[int, Tally], topic: str, origins: Iterable[Origin]) -> tuple[int, int]:
    """Hold the ledger's dead against the dead-letter topic: those that are missing, and those too many."""
    letters = [(number, offset) for name, number, offset in origins if name == topic]
    dead = {(number, offset) for number, tally in tallies.items() for offset in tally.with_fate(DEAD)}
    once = {(number, offset) for number, tally in tallies.items() for offset in tally.once()}
    there = set(letters)
    return len(dead - there), len(letters) - len(there) + len((there & once) - dead)


def _doubled_ids(ledger: Ledger) -> int:
    """Count orders that got through twice: one id, two offsets. Possible while the ledger remembers all events.

    A dead letter that was replayed has two offsets, too: it died at the first one, and may get through at the other.
    """
    if not ledger.complete:
        return 0
    where: dict[str, set[tuple[int, int]]] = {}
    rows = zip(ledger.order_id, ledger.partition, ledger.offset, ledger.fate, strict=True)
    for order_id, partition, offset, fate in rows:
        if fate in (AVERAGED, SKIPPED) and order_id is not None:
            where.setdefault(order_id, set()).add((partition, offset))
    return sum(len(places) - 1 for places in where.values())


def dead_letter_origins(connection: Connection, topic: str, group: str) -> list[Origin]:
    """Read the dead-letter topic back and say where each letter of `group` came from."""
    return [letter.origin for letter in read_dead_letters(connection, topic) if letter.story.get("group") == group]
