"""What a crash test comes to: read from the topics and the group's commits, and held against what the seed says.

Nothing that a worker counts is believed. The orders are what lies in their topic, the dead are what lies in the
dead-letter topic, and the average is what the group has committed. The only other witness is the trail of the handler,
for what no topic shows: the order in which keys were handled, and what was handled again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orderkit.account.average import RunningAverage
from orderkit.crash.evidence import Evidence, Place, Trail
from orderkit.crash.plan import CrashPlan
from orderkit.dead_letters import DeadLetterRecord
from orderkit.orders.order import Order

KEEP_ORDER = ("pause", "key-parking", "in-place")  # engines that keep the order of a key


@dataclass(frozen=True)
class Verdict:
    """The account of a crash test.

    Args:
        produced: orders in the topic.
        averaged: orders in the group's average.
        dead: orders with a dead letter.
        lost: orders that are in neither, and will not be delivered again.
        at_risk: at most once: orders that crashes may have cost, for they were committed first, and are not dead.
        told: orders that crashes have cost, at most, by the group's own word in its commits: counted as lost, or
            committed ahead by a member that nobody has followed.
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
    told: int
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
        if self.lost > self.told and delivery == "at-most-once":
            told.append(f"lost {self.lost}, and the group tells of {self.told}")
        if self.told and delivery != "at-most-once":
            told.append(f"the group tells of {self.told} lost")
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
        told=evidence.state.lost + evidence.state.ahead,
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
