"""What a crash test comes to: read from the topics and the group's commits, and held against what the seed says.

Nothing that a worker counts is believed. The orders are what lies in their topic, the dead are what lies in the
dead-letter topic, and the average is what the group has committed. The only other witness is the trail of the handler,
for what no topic shows: the order in which keys were handled, and what was handled again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from orderkit.account.audit import GroupState, group_state
from orderkit.account.average import RunningAverage
from orderkit.crash.plan import CrashPlan
from orderkit.dead_letters import DeadLetterRecord, read_dead_letters, read_topic
from orderkit.delivery import TRANSACTION_TIMEOUT
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.orders.order import Order

KEEP_ORDER = ("pause", "key-parking", "in-place")  # engines that keep the order of a key
OPEN_AT_MOST = TRANSACTION_TIMEOUT + 15.0  # seconds: the broker ends what a dead consumer left open
Place = tuple[int, int]  # partition and offset


@dataclass(frozen=True)
class Trail:
    """What workers told of themselves.

    Args:
        handled: when (ns), order id, attempt, and whether it succeeded, of each call of a handler.
        acked: partition and offset of each order that the producer knows to be written.
        wounds: numbers of the injuries that came about.
        ahead: at most once: where each record was committed before anybody was done with it, with no later commit that
            carries its fate: its topic, and the partition and offset of its order.
        notes: when (ns), a worker, and where the partitions begin that it was assigned, or what it warns of.
    """

    handled: list[tuple[int, str, int, bool]] = field(default_factory=list)
    acked: set[Place] = field(default_factory=set)
    wounds: list[int] = field(default_factory=list)
    ahead: set[tuple[str, int, int]] = field(default_factory=set)
    notes: list[tuple[int, str, str]] = field(default_factory=list)

    def risk(self, word: str, topic: str, partition: int, offsets: list[int]) -> None:
        """Take in that records are committed `ahead`, or are `safe`."""
        places = {(topic, partition, offset) for offset in offsets}
        if word == "ahead":
            self.ahead.update(places)
        else:
            self.ahead.difference_update(places)


@dataclass(frozen=True)
class Evidence:
    """What lies at the broker when all is over.

    Args:
        records: the orders' topic: key and value by place.
        letters: the dead letters of the group, and those that were read before somebody deleted the topic.
        state: what the group has committed.
        in_flight: records that the group is not done with.
    """

    records: Mapping[Place, tuple[bytes | None, bytes | None]]
    letters: list[DeadLetterRecord]
    state: GroupState
    in_flight: int = 0


def gather(
    connection: Connection, topic: str, dead_letters: str, group: str, before: Iterable[DeadLetterRecord] = ()
) -> Evidence:
    """Read all that there is to read.

    Args:
        connection: the cluster.
        topic: of the orders.
        dead_letters: their topic.
        group: whose commits, and whose dead letters.
        before: dead letters that were read before their topic was deleted.
    """
    records = {
        (message.partition() or 0, message.offset() or 0): (message.key(), message.value())
        for message in read_topic(connection, topic)
    }
    letters = [*before, *read_stable(connection, dead_letters)]
    state = _stable_state(connection, group, topic)
    behind = sum(offset >= state.offsets.get(number, 0) for number, offset in records)
    mine = [letter for letter in letters if letter.story.get("group") == group]
    return Evidence(records, mine, state, behind + len(state.waiting))


def _stable_state(connection: Connection, group: str, topic: str) -> GroupState:
    """Read what the group has committed; while a transaction that a crash left is open, the broker does not tell."""
    deadline = time.monotonic() + OPEN_AT_MOST
    while True:
        try:
            return group_state(connection, group, topic)
        except OrderkitError:
            if time.monotonic() > deadline:
                raise


def read_stable(connection: Connection, topic: str) -> list[DeadLetterRecord]:
    """Read a dead-letter topic when no transaction is open on it: behind one that a crash left, letters are hidden."""
    deadline = time.monotonic() + OPEN_AT_MOST
    while not connection.is_embedded and time.monotonic() < deadline:
        ends = [_ends(connection, topic, level) for level in IsolationLevel]
        if ends[0] == ends[1]:
            break
        time.sleep(0.2)
    return list(read_dead_letters(connection, topic))


def _ends(connection: Connection, topic: str, level: IsolationLevel) -> list[int]:
    wanted = {
        TopicPartition(topic, number): OffsetSpec.latest()  # type: ignore[no-untyped-call]
        for number in connection.partitions(topic)
    }
    admin = connection.admin()
    found = admin.list_offsets(wanted, isolation_level=level, request_timeout=10)
    return [found[place].result().offset for place in wanted]


@dataclass(frozen=True)
class Verdict:
    """The account of a crash test.

    Args:
        produced: orders in the topic.
        averaged: orders in the group's average.
        dead: orders with a dead letter.
        lost: orders that are in neither, and will not be delivered again.
        at_risk: at most once: orders that crashes may have cost, for they were committed first, and are not dead.
        repeated: dead letters beyond an order's first.
        doubled: orders counted beyond once: in the average and dead, or in the average twice.
        astray: orders whose fate is not the seed's, and no dead letter says that a crash took its attempts.
        changed: dead letters that are not their order byte for byte, or come from nowhere.
        in_flight: orders without a fate when the time was up.
        unwritten: orders that the producer knew to be written, or should have written, and that are not there.
        written_twice: orders in the topic beyond an order's first record.
        out_of_order: orders that succeeded before an older one of their key, where the engine keeps the order.
        handled_again: calls of the handler beyond the first for an order and attempt.
        average: of the group's commits, as a decimal string.
        truth: the average of all orders without a dead letter.
        exact: whether both are the same to the last digit, and over the same number of orders.
    """

    produced: int
    averaged: int
    dead: int
    lost: int
    at_risk: int
    repeated: int
    doubled: int
    astray: int
    changed: int
    in_flight: int
    unwritten: int
    written_twice: int
    out_of_order: int
    handled_again: int
    average: str
    truth: str
    exact: bool

    def broken(self, delivery: str, stood_still: bool = False) -> list[str]:
        """List the promises of a delivery mode that were not kept.

        Args:
            delivery: one of `MODES`. At least once may repeat dead letters. At most once may lose what it had
                committed and was not done with.
            stood_still: whether a member went without the group for longer than the session time-out. At most once
                it finishes then what it had in hand, which nobody else will: after newer orders of the same key.
        """
        must_be_0 = ["doubled", "astray", "changed", "in_flight", "unwritten", "written_twice"]
        must_be_0 += [] if stood_still and delivery == "at-most-once" else ["out_of_order"]
        must_be_0 += {"at-most-once": ["repeated", "handled_again"], "exactly-once": ["repeated", "lost"]}.get(
            delivery, ["lost"]
        )
        told = [f"{name.replace('_', ' ')} {many}" for name in must_be_0 if (many := getattr(self, name))]
        if delivery == "at-most-once" and self.lost > self.at_risk:
            told.append(f"lost {self.lost}, of {self.at_risk} at risk")
        if delivery != "at-most-once" and not self.exact:
            told.append(f"average {self.average} instead of {self.truth}")
        return told


def judge(plan: CrashPlan, evidence: Evidence, trail: Trail) -> Verdict:
    """Hold what lies at the broker against what the seed says."""
    orders = plan.values()
    found = {place: order for place, (_, value) in evidence.records.items() if (order := orders.get(value or b""))}
    dead = {(origin[1], origin[2]) for letter in evidence.letters if (origin := letter.origin)[0] != "?"}
    truth = RunningAverage()
    truth.add_all([order["price"] for place, order in found.items() if place not in dead])
    surplus = evidence.state.average.count - truth.count
    doubled = max(0, surplus, evidence.state.average.count - _successes(found, trail))
    doomed = {place for place, order in found.items() if plan.dies(order)}
    written = Counter(order["orderId"] for order in found.values())
    return Verdict(
        produced=len(evidence.records),
        averaged=evidence.state.average.count,
        dead=len(dead),
        lost=max(0, doubled - surplus - evidence.in_flight),
        at_risk=len({(number, offset) for _, number, offset in trail.ahead} - dead),
        repeated=len(evidence.letters) - len(dead),
        doubled=doubled,
        astray=_astray(plan, found, evidence.letters, trail) + (len(doomed - dead) if not surplus else 0),
        changed=_changed(evidence) + len(evidence.records) - len(found),
        in_flight=evidence.in_flight,
        unwritten=len(trail.acked - found.keys()) + plan.orders - len(written),
        written_twice=len(found) - len(written),
        out_of_order=_inversions(found, trail) if plan.engine in KEEP_ORDER else 0,
        handled_again=_again(trail),
        average=evidence.state.average.rounded(),
        truth=truth.rounded(),
        exact=evidence.state.average == truth,
    )


def _successes(found: Mapping[Place, Order], trail: Trail) -> int:
    """Count records whose order succeeded. A worker tells of it before it averages: the average cannot have more.

    An order that is in the average twice is found so even where another one is lost, and the sum of both is right.
    """
    good = {name for _, name, _, done in trail.handled if done}
    return sum(order["orderId"] in good for order in found.values())


def _astray(plan: CrashPlan, found: Mapping[Place, Order], letters: list[DeadLetterRecord], trail: Trail) -> int:
    """Count orders that died though the seed lets them live, and no crash can have taken the attempt they needed.

    A member that ends without a word takes the attempt with it that it was at: that one counts, and is not made again.
    """
    count = 0
    for place, letter in {letter.origin[1:]: letter for letter in letters}.items():
        order = found.get(place)
        if order is not None and not plan.dies(order):
            killed = letter.story.get("exception", "").endswith("Killed")
            count += not (trail.wounds and (killed or plan.fails(order, plan.policy.max_attempts)))
    return count


def _changed(evidence: Evidence) -> int:
    """Count dead letters whose key or value is not that of the order they come from."""
    return sum(evidence.records.get(letter.origin[1:], ()) != (letter.key, letter.value) for letter in evidence.letters)


def _inversions(found: Mapping[Place, Order], trail: Trail) -> int:
    """Count orders whose first success came before that of an older one of their key."""
    first: dict[str, int] = {}
    for at, name, _, done in trail.handled:
        if done:
            first[name] = min(at, first.get(name, at))
    latest: dict[tuple[int, str], int] = {}
    count = 0
    for place in sorted(found):
        order = found[place]
        key, done_at = (place[0], order["product"]), first.get(order["orderId"])
        if done_at is not None:
            count += done_at < latest.get(key, 0)
            latest[key] = max(done_at, latest.get(key, 0))
    return count


def _again(trail: Trail) -> int:
    calls = Counter((name, attempt) for _, name, attempt, _ in trail.handled)
    return sum(calls.values()) - len(calls)
