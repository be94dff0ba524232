"""What goes wrong in a crash test, and when: all of it drawn from a seed, so that it can be repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from orderkit.delivery import MODES, find_mode
from orderkit.engines import find_engine
from orderkit.errors import UsageError, check_known
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order, random_orders
from orderkit.retry import Permanent, RetryPolicy, Transient
from orderkit.retry.backoff import Backoff

POINTS = {
    "fetch": "after records were fetched",
    "handler": "after the handler has done its work",
    "dlq-produce": "after a dead letter was produced, before its acknowledgement",
    "dlq-ack": "after a dead letter's acknowledgement, before the commit",
    "commit-sent": "while the commit is on its way; in a transaction, after the offsets were sent and before its end",
    "commit": "after the commit was answered",
}
PRODUCER_POINTS = {
    "produce": "after an order was produced, before its acknowledgement",
    "ack": "after an order's acknowledgement",
}
ACTS = {
    "kill": "kill -9",
    "term": "SIGTERM",
    "freeze": "SIGSTOP for longer than the session time-out",
    "broker-restart": "the broker is stopped and started again",
    "broker-kill": "the broker is killed and started again on its data",
    "dlq-refused": "the dead-letter topic refuses every letter for a while",
    "dlq-deleted": "the dead-letter topic is deleted, and comes back empty later",
    "storm": "other members join the group and leave it again",
    "cut": "one consumer's network goes silent for longer than the session time-out",
    "delay": "one consumer's network is slow",
}
FOR_ANYBODY = ("kill", "term", "freeze")  # the others are done to what all share, or to a consumer
SESSION = 2.0  # seconds: the session time-out of a plan's consumers
PRODUCER = "producer"
CODEC = Codec()
# The n-th passage is drawn so that it comes while orders still flow: as a share of a consumer's orders.
SHARES = {"fetch": 0.05, "handler": 0.2, "dlq-produce": 0.02, "dlq-ack": 0.02, "commit-sent": 0.04, "commit": 0.04}
SHARES |= {"produce": 0.5, "ack": 0.5}


@dataclass(frozen=True)
class Injury:
    """One thing that goes wrong.

    Args:
        act: what, out of `ACTS`.
        worker: whose passage sets it off: `producer`, or `consumer-` and a number from 0.
        point: where it has to pass, out of `POINTS` or `PRODUCER_POINTS`.
        nth: how often, since its start or its last injury.
        seconds: how long it lasts.
    """

    act: str
    worker: str
    point: str
    nth: int
    seconds: float = 0.0

    def __str__(self) -> str:
        whom = f" {self.worker}" if self.act in FOR_ANYBODY else ""
        return f"{self.act}{whom} at {self.point} {self.nth}"


@dataclass(frozen=True)
class CrashPlan:
    """A run and what goes wrong in it.

    Args:
        seed: decides orders, failures and injuries.
        delivery: when offsets are committed: one of `MODES`.
        engine: how a retry waits: one of `ENGINES`.
        injuries: what goes wrong.
        orders: how many there are.
        members: consumers in the group.
        partitions: of the orders' topic.
        rate: orders a second.
        batch: records that a consumer fetches at once, at most.
        patience: seconds in which every order has to have its fate.
        policy: how often an order is tried.

    Raises:
        UsageError: a number out of range, or an unknown word.
    """

    seed: int
    delivery: str = "at-least-once"
    engine: str = "pause"
    injuries: tuple[Injury, ...] = ()
    orders: int = 300
    members: int = 2
    partitions: int = 4
    rate: float = 150.0
    batch: int = 50
    patience: float = 180.0
    policy: RetryPolicy = field(default_factory=lambda: RetryPolicy(backoff=Backoff("fixed", base=0.02)))

    def __post_init__(self) -> None:
        find_mode(self.delivery)
        find_engine(self.engine)
        if self.orders < 1 or self.members < 1 or self.partitions < 1 or not self.rate > 0:
            raise UsageError("A crash test needs at least one order, one consumer and one partition, and a rate.")
        for injury in self.injuries:
            points = PRODUCER_POINTS if injury.worker == PRODUCER else POINTS
            if injury.act not in ACTS or injury.point not in points:
                raise UsageError(
                    f"No such injury: {injury}. Acts are {', '.join(ACTS)}; points are {', '.join(points)}."
                )

    @property
    def faults(self) -> Faults:
        """What goes wrong with the orders themselves."""
        return Faults(self.seed, transient_rate=0.3, permanent_rate=0.05, poison_rate=0.03)

    @property
    def workers(self) -> list[str]:
        """Name the processes."""
        return [PRODUCER, *(f"consumer-{number}" for number in range(self.members))]

    def stream(self) -> Iterator[Order]:
        """Yield the orders; `product` is the key."""
        return islice(random_orders(self.seed), self.orders)

    def values(self) -> dict[bytes, Order]:
        """Give each order by the bytes that the producer writes, spoiled ones included."""
        faults = self.faults
        return {faults.spoil(order["orderId"], CODEC.encode(order)): order for order in self.stream()}

    def fails(self, order: Order, attempt: int) -> bool:
        """Say whether this attempt fails for the moment, from nothing but the seed."""
        try:
            self.faults.strike(order, attempt)
        except Transient:
            return True
        return False

    def dies(self, order: Order) -> bool:
        """Say whether an order ends as a dead letter, from nothing but the seed."""
        value = CODEC.encode(order)
        if self.faults.spoil(order["orderId"], value) != value:
            return True
        try:
            return all(self.fails(order, attempt) for attempt in range(1, self.policy.max_attempts + 1))
        except Permanent:
            return True

    def __str__(self) -> str:
        return "; ".join(map(str, self.injuries)) or "nothing"


def make_plan(
    seed: int, delivery: str = "at-least-once", acts: Sequence[str] = tuple(ACTS), **more: object
) -> CrashPlan:
    """Draw a plan: one kill -9 of a consumer at least, and up to three further injuries.

    The same seed gives the same injuries in every delivery mode. Six seeds in a row kill at six points.

    Args:
        seed: any whole number.
        delivery: one of `MODES`.
        acts: what may be drawn, out of `ACTS`; a kill comes in any case.
        more: further arguments of `CrashPlan`.

    Raises:
        UsageError: an unknown word.
    """
    for act in acts:
        check_known("injury", act, ACTS)
    plan = CrashPlan(seed, delivery, **more)  # type: ignore[arg-type]
    chance = random.Random(f"crash/{seed}")
    points = list(POINTS)
    injuries = [_draw(chance, plan, "kill", "consumer-0", points[seed % len(points)])]
    for _ in range(chance.randint(0, 3)):
        act = chance.choice(list(acts))
        others = plan.workers if act in FOR_ANYBODY else plan.workers[1:]
        worker = "consumer-0" if act in ("cut", "delay") else chance.choice(others)
        point = chance.choice(list(PRODUCER_POINTS if worker == PRODUCER else POINTS))
        injuries.append(_draw(chance, plan, act, worker, point))
    return CrashPlan(seed, delivery, **{**more, "injuries": tuple(injuries)})  # type: ignore[arg-type]


def _draw(chance: random.Random, plan: CrashPlan, act: str, worker: str, point: str) -> Injury:
    most = max(1, round(plan.orders / plan.members * SHARES[point]))
    seconds = SESSION + 1.0 if act in ("freeze", "cut") else chance.choice([1.0, 2.0])
    return Injury(act, worker, point, chance.randint(1, most), seconds)


def make_plans(plans: int, seed: int, deliveries: Sequence[str] = tuple(MODES), **more: object) -> list[CrashPlan]:
    """Draw plans with seeds in a row, each in all delivery modes asked for."""
    return [make_plan(number, mode, **more) for number in range(seed, seed + plans) for mode in deliveries]  # type: ignore[arg-type]
