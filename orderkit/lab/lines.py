"""Orders in line behind one that fails: how long the others wait, and who overtakes whom, engine by engine."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

from orderkit.brokers import EmbeddedBroker
from orderkit.consumer import RetryingConsumer
from orderkit.consuming.consumers import open_consumer
from orderkit.consuming.loop import Handler
from orderkit.consuming.share import ShareGroupConsumer
from orderkit.engines import ENGINES
from orderkit.errors import OrderkitError
from orderkit.lab.arrival import quick
from orderkit.lab.picture import Picture
from orderkit.lab.plots import legend, panel, theory
from orderkit.lab.table import Table
from orderkit.orders.faults import draw
from orderkit.orders.order import Order, random_orders
from orderkit.producer import OrderProducer
from orderkit.retry import RetryPolicy, Transient
from orderkit.retry.backoff import Backoff
from orderkit.show.chart import COLOURS

SLACK = 0.15  # seconds: a consumer polls at least every 0.1 s, and a machine is busy with other things too
DEADLINE = 60.0  # seconds for a line to come to its end
WARM = 4  # orders before the clock starts: joining a group is nobody's wait


@dataclass
class Line:
    """What one engine made of a line of orders.

    Args:
        engine: its name.
        orders: in the order of the topic.
        bad: the ids of those that fail at all attempts but the last.
        sent: when each order was produced, in seconds; by id.
        done: when each succeeded, in seconds; by id, in the order of success.
        records: written in all, those of retry topics included.
    """

    engine: str
    orders: Sequence[Order]
    bad: frozenset[str]
    sent: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    records: int = 0

    def waits(self) -> list[tuple[int, float]]:
        """Give for each order that does not fail its place in the line, and the seconds it waited."""
        names = [order["orderId"] for order in self.orders]
        return [(i, self.done[name] - self.sent[name]) for i, name in enumerate(names) if name not in self.bad]

    def overtaken(self) -> int:
        """Count the orders that were done after a younger one of the same product."""
        place = {order["orderId"]: (i, order["product"]) for i, order in enumerate(self.orders)}
        newest: dict[str, int] = {}
        count = 0
        for name in self.done:
            i, product = place[name]
            count += i < newest.get(product, -1)
            newest[product] = max(i, newest.get(product, -1))
        return count


def failing(orders: Sequence[Order], share: float, seed: int) -> frozenset[str]:
    """Choose the orders that fail at first."""
    return frozenset(one["orderId"] for one in orders if draw(seed, one["orderId"], 0, "line") < share)


def line(
    broker: EmbeddedBroker, engine: str, *, orders: int, pace: float, failure_rate: float, max_attempts: int,
    backoff_base: float, seed: int,
) -> Line:  # fmt: skip
    """Send orders down one partition at a steady pace, and note when each is done.

    Args:
        broker: where.
        engine: how a retry waits.
        orders: how many.
        pace: orders a second.
        failure_rate: share of the orders that fail at all attempts but the last.
        max_attempts: delivery attempts in all.
        backoff_base: seconds between two attempts.
        seed: decides the orders and who fails.

    Raises:
        OrderkitError: it does not come to an end.
    """
    some = list(islice(random_orders(seed), orders))
    result = Line(engine, some, failing(some, failure_rate, seed))
    name, policy = uuid.uuid4().hex[:8], RetryPolicy(max_attempts, Backoff("fixed", backoff_base))
    topic, group, letters = f"orders.{name}", f"orderkit.{name}", f"orders.{name}.dlq"
    topics = [topic, letters, *ENGINES[engine].topics(topic, group, policy)]
    broker.create_topics(dict.fromkeys(topics, 1))
    where = {"group": group, "topic": topic, "dead_letters": letters}
    handler = _handler(result, max_attempts)
    consumer = open_consumer(broker.connection, handler, engine=engine, policy=policy, seed=seed, **where)
    with _running(consumer, engine):
        producer = OrderProducer(quick(broker), topic, key="product")
        _send(result, pace, producer, lambda: consumer.ledger.finished)
    marks = [mark for one in topics for mark in broker.connection.watermarks(one).values()]
    result.records = sum(high - low for low, high in marks) - WARM
    return result


def _handler(result: Line, last: int) -> Handler:
    """Make the handler of a line: bad orders fail until their `last` attempt, and who succeeds is noted."""

    def handle(order: Order, attempt: int) -> None:
        if order["orderId"] in result.bad and attempt < last:
            raise Transient("not yet")
        if order["orderId"] in result.sent:
            result.done[order["orderId"]] = time.monotonic()

    return handle


@contextmanager
def _running(consumer: RetryingConsumer | ShareGroupConsumer, engine: str) -> Iterator[None]:
    """Let a consumer run in the background."""
    worker = threading.Thread(target=consumer.run, name=f"line-{engine}", daemon=True)
    worker.start()
    try:
        yield
    finally:
        consumer.stop()
        worker.join(DEADLINE)


def _send(result: Line, pace: float, producer: OrderProducer, finished: Callable[[], int]) -> None:
    """Send the orders of a line when the consumer is warm, and wait until it is done with all of them."""
    producer.run(({"orderId": f"warm-{i}", "product": "-", "price": 1.0} for i in range(WARM)), 0.001)
    _await(lambda: finished() >= WARM, result.engine)
    for i, order in enumerate(result.orders):
        _pace(i, pace, result)
        result.sent[order["orderId"]] = time.monotonic()
        producer.send([order])
    producer.finish()
    _await(lambda: finished() >= WARM + len(result.orders), result.engine)


def _pace(i: int, pace: float, result: Line) -> None:
    if result.sent:
        start = next(iter(result.sent.values()))
        time.sleep(max(0.0, start + i / pace - time.monotonic()))


def _await(condition: Callable[[], bool], engine: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise OrderkitError(f"The engine {engine} is not done after {DEADLINE:g} s. Is the broker still up?")
        time.sleep(0.005)


def queue(blocks: Sequence[float], gap: float) -> list[float]:
    """Give the wait of each order in a line that stands still now and then: Lindley's formula.

    Args:
        blocks: for how many seconds each order keeps those behind it.
        gap: seconds between two arrivals.
    """
    waits = [0.0]
    for block in blocks[:-1]:
        waits.append(max(0.0, waits[-1] + block - gap))
    return waits


def blocked(orders: Sequence[Order], bad: frozenset[str], seconds: float) -> list[float]:
    """Give for how many seconds each order keeps those behind it, when the partition waits for it."""
    return [seconds if order["orderId"] in bad else 0.0 for order in orders]


def line_band(expected: Sequence[float]) -> tuple[list[float], list[float]]:
    """Give the least and the most seconds of each order's wait: what the formula says, without and with the slack."""
    return list(expected), [wait + SLACK for wait in expected]


def lines_picture(lines: Mapping[str, Line], pace: float, seconds: float) -> Picture:
    """Draw how long the orders waited that do not fail, and what theory says of a partition that stands still.

    Args:
        lines: by the engine's name.
        pace: orders a second.
        seconds: that a failing order waits in all.
    """
    some = next(iter(lines.values()))
    figure, axes = panel(
        "place in the line", "seconds until done", f"{len(some.bad)} of {len(some.orders)} orders fail"
    )
    expected = queue(blocked(some.orders, some.bad, seconds), 1 / pace)
    theory(axes, range(len(expected)), expected, line_band(expected), "theory: pause")
    hues = COLOURS["retry"], COLOURS["averaged"], COLOURS["replayed"]
    for (name, one), hue, mark in zip(lines.items(), hues, ("o", "s", "^"), strict=False):
        places, waits = zip(*one.waits(), strict=True)
        axes.plot(places, waits, mark, color=hue, markersize=4, alpha=0.8, label=name)
    for i, order in enumerate(some.orders):
        if order["orderId"] in some.bad:
            axes.plot([i], [-0.06 * max(*expected, SLACK)], "|", color=COLOURS["dead"], markersize=12)
    axes.plot([], [], "|", color=COLOURS["dead"], label="an order that fails")
    legend(axes, "upper left")
    return Picture(figure)


def lines_table(lines: Mapping[str, Line]) -> Table:
    """Tell of each engine what is the same in every run of a seed."""
    rows = [(name, len(one.done), one.overtaken() == 0, one.records) for name, one in lines.items()]
    return Table(("engine", "orders done", "order kept per key", "records written"), rows)
