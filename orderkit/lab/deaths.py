"""A consumer process is killed between a dead letter and the commit, on real Kafka; another one goes on."""

from __future__ import annotations

import json
import sys
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from confluent_kafka import TopicPartition

from orderkit.account.state import GroupState, group_state
from orderkit.brokers import ApacheBroker
from orderkit.consumer import RetryingConsumer
from orderkit.crash.mortal import await_death
from orderkit.crash.plan import Injury
from orderkit.crash.watched import Trap, WatchedConnection
from orderkit.dead_letters import DLQ_CONFIG, DeadLetterRecord
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.lab.picture import Picture
from orderkit.lab.plots import legend, panel, theory
from orderkit.lab.table import Table
from orderkit.lab.ways_back import rounds_band
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order, random_orders
from orderkit.producer import OrderProducer
from orderkit.show.chart import COLOURS

PATIENCE = 60.0  # seconds for a process to come to its death, and for one read
IDLE = 1.0  # seconds without an order after which the second consumer is done
# For so many ms the broker keeps the dead member's partitions.
SESSION = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "500"}


@dataclass
class Death:
    """What a death left behind.

    Args:
        delivery: the delivery mode of both consumers.
        orders: as produced, in one partition.
        doomed: how many of them the plan of failures lets die.
        killed: whether the first process died by kill -9.
        state: what the group has committed at the end.
        committed: for each order its dead letters, as a reader sees them that asks for committed records only.
        written: the same for a reader that takes everything.
    """

    delivery: str
    orders: Sequence[Order]
    doomed: int
    killed: bool
    state: GroupState
    committed: Counter[int]
    written: Counter[int]

    @property
    def lost(self) -> int:
        """Orders that are neither in the average nor dead."""
        return len(self.orders) - self.state.average.count - len(self.committed)

    @property
    def repeated(self) -> int:
        """Dead letters beyond an order's first."""
        return sum(self.committed.values()) - len(self.committed)

    @property
    def undone(self) -> int:
        """Dead letters that lie in the topic, and belong to a transaction that never ended well."""
        return sum(self.written.values()) - sum(self.committed.values())


def death(
    broker: ApacheBroker, delivery: str, *, orders: int, permanent_rate: float, crash_at: int, seed: int
) -> Death:
    """Kill a consumer when so many of its dead letters are acknowledged; let another one finish, and count.

    Args:
        broker: a real one.
        delivery: the delivery mode.
        orders: how many.
        permanent_rate: share of them that the handler refuses for good.
        crash_at: the dead letter after whose acknowledgement the process is killed.
        seed: decides the orders and who dies.

    Raises:
        OrderkitError: the process ended otherwise; too few orders die, say.
    """
    name = uuid.uuid4().hex[:8]
    told = {
        "topic": f"orders.{name}", "dead_letters": f"orders.{name}.dlq", "group": f"orderkit.{name}",
        "delivery": delivery, "instance": "one", "batch": orders,
    }  # fmt: skip
    connection = Connection(broker.bootstrap, {**broker.connection.config, **SESSION})
    some = list(islice(random_orders(seed), orders))
    faults = Faults(seed, permanent_rate=permanent_rate)
    connection.create_topics({told["topic"]: 1})  # type: ignore[dict-item]
    connection.create_topics({told["dead_letters"]: 1}, DLQ_CONFIG)  # type: ignore[dict-item]
    OrderProducer(broker.connection, str(told["topic"])).run(some)
    job = {"told": told, "at": crash_at, "seed": seed, "rate": permanent_rate}
    job |= {"bootstrap": connection.bootstrap, "config": dict(connection.config)}
    killed = _die(job, crash_at)
    second = RetryingConsumer(connection, faults.strike, **told)  # type: ignore[arg-type]
    second.run(idle=IDLE)
    state = group_state(connection, str(told["group"]), str(told["topic"]))
    counts = [
        letters_by_order(connection, str(told["dead_letters"]), level)
        for level in ("read_committed", "read_uncommitted")
    ]
    doomed = sum(faults._hits("permanent", permanent_rate, order["orderId"]) for order in some)
    return Death(delivery, some, doomed, killed, state, *counts)


def deaths(broker: ApacheBroker, modes: Sequence[str], **settings: Any) -> dict[str, Death]:
    """Let a consumer of each delivery mode die as `death` does, all at the same time, for most of it is waiting."""
    with ThreadPoolExecutor(len(modes)) as pool:
        return dict(zip(modes, pool.map(lambda mode: death(broker, mode, **settings), modes), strict=True))


def _die(job: Mapping[str, Any], crash_at: int) -> bool:
    """Run the first consumer in a process of its own, until its death."""
    survived = f"Fewer than {crash_at} orders die, so the process did not. Let it die earlier."
    await_death("from orderkit.lab.deaths import live; live()", job, survived)
    return True


def live() -> None:
    """Be the first consumer: read the job from standard input, consume, and be killed."""
    job = json.load(sys.stdin)
    trap = Trap([(0, Injury("kill", "consumer-0", "dlq-ack", job["at"]))], lambda _number: None)
    connection = WatchedConnection(job["bootstrap"], job["config"], trap.passed, "dlq-")
    faults = Faults(job["seed"], permanent_rate=job["rate"])
    RetryingConsumer(connection, faults.strike, **job["told"]).run(idle=IDLE)


def letters_by_order(connection: Connection, topic: str, level: str) -> Counter[int]:
    """Count the dead letters of each order, by the offset that they came from, at an isolation level."""
    client = connection.consumer("orderkit-reader", isolation_level=level, enable_partition_eof=True)
    found: Counter[int] = Counter()
    try:
        client.assign([TopicPartition(topic, 0, 0)])
        while (message := client.poll(PATIENCE)) is not None:
            if message.error():
                return found  # the end of the partition
            found[DeadLetterRecord.of(message).origin[2]] += 1
    finally:
        client.close()
    raise OrderkitError(f"Topic {topic} stopped answering. Is the broker still up?")


def deaths_table(deaths: Mapping[str, Death]) -> Table:
    """Tell what is the same in every run: not how many, which is a matter of milliseconds, but whether at all."""
    words = ("none", "some")
    rows = [
        (name, words[one.lost > 0], words[one.repeated > 0], words[one.undone > 0], _all(one))
        for name, one in deaths.items()
    ]
    return Table(("delivery", "orders lost", "dead letters twice", "undone", "healthy ones averaged"), rows)


def _all(one: Death) -> str:
    return "all" if one.state.average.count == len(one.orders) - one.doomed else "fewer"


def deaths_picture(deaths: Mapping[str, Death], permanent_rate: float) -> Picture:
    """Draw the dead letters that readers find, undone ones too, against n times the share that dies."""
    figure, axes = panel("", "dead letters", "Killed between a dead letter and the commit")
    many = len(next(iter(deaths.values())).orders)
    x = range(len(deaths))
    seen = [sum(one.committed.values()) for one in deaths.values()]
    axes.bar(x, seen, width=0.5, color=COLOURS["dead"], label="read_committed")
    undone = [one.undone for one in deaths.values()]
    axes.bar(x, undone, width=0.5, bottom=seen, color=COLOURS["skipped"], label="and read_uncommitted")
    low, high = rounds_band(many, permanent_rate)
    middle, edge = many * permanent_rate, [-0.4, len(deaths) - 0.6]
    theory(axes, edge, [middle] * 2, ([low] * 2, [high] * 2), "theory: n q")
    axes.set_xticks(x, list(deaths))
    axes.set_ylim(0, 1.5 * max(*(one + two for one, two in zip(seen, undone, strict=True)), middle))
    legend(axes, "upper left")
    return Picture(figure)
