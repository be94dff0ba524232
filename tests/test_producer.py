"""The producer: delivery reports counted, refusals told, the pace kept, nothing left unreported."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from itertools import islice
from typing import Any

import pytest
from helpers import PATIENCE, Kit, Late, shared, slowed, take_orders, wait_for, within

from orderkit.brokers import EmbeddedBroker
from orderkit.cli.produce import pace
from orderkit.dead_letters import read_topic
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order, random_orders
from orderkit.producer import KeyBy, OrderProducer, Produced
from orderkit.retry import Failure


def decoded(kit: Kit) -> list[Order]:
    """Read all orders back, by number."""
    codec = Codec()
    orders = [codec.decode(message.value()) for message in read_topic(kit.connection, kit.topic)]
    return sorted(orders, key=lambda order: int(order["orderId"]))


class InBackground:
    """Produces endless orders in a thread until stopped."""

    def __init__(self, producer: OrderProducer, every: float) -> None:
        self.producer = producer
        self._thread = threading.Thread(target=producer.run, args=(random_orders(1), every), daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Stop it and give the seconds that took."""
        start = time.monotonic()
        self.producer.stop()
        self._thread.join(30 * PATIENCE)
        if self._thread.is_alive():
            raise Late("the producer has not ended")
        return time.monotonic() - start


@pytest.mark.parametrize("wire", ["single", "raw"])
def test_delivery_reports_are_counted(wire: str) -> None:
    """Every order sent is acknowledged, is in the topic, and its place is noted."""
    kit = Kit(4)
    produced = OrderProducer(kit.connection, kit.topic, codec=Codec(wire)).run(take_orders(200))
    assert (produced.sent, produced.acknowledged, produced.failed, produced.waiting) == (200, 200, 0, 0)
    assert {number: tally.count(2) for number, tally in produced.where.items()} == {
        number: high for number, (_, high) in kit.connection.watermarks(kit.topic).items()
    }
    assert decoded(kit) == take_orders(200)
    assert str(produced) == "200 produced, 200 acknowledged, 0 failed"


@pytest.mark.parametrize(("key", "wanted"), [("orderId", b"1"), ("product", None), ("none", None)])
def test_the_key_is_what_was_asked_for(key: KeyBy, wanted: bytes | None) -> None:
    """A record's key is the order's id, its product, or nothing."""
    kit, (order,) = Kit(), take_orders(1)
    OrderProducer(kit.connection, kit.topic, key=key).run([order])
    (message,) = read_topic(kit.connection, kit.topic)
    assert message.key() == (order["product"].encode() if key == "product" else wanted)


def test_the_same_key_goes_to_the_same_partition() -> None:
    """Orders of one product share a partition, so their order is kept."""
    kit = Kit(4)
    OrderProducer(kit.connection, kit.topic, key="product").run(take_orders(100))
    where: dict[bytes | None, set[int | None]] = {}
    for message in read_topic(kit.connection, kit.topic):
        where.setdefault(message.key(), set()).add(message.partition())
    assert len(where) == 8
    assert all(len(partitions) == 1 for partitions in where.values())


PLACES = pytest.mark.parametrize("places", [True, False])


@PLACES
def test_a_refused_order_is_failed_with_its_reason(places: bool) -> None:
    """Orders that the broker does not take are counted as failed, and the reason is told."""
    kit = Kit()
    producer = OrderProducer(kit.connection, kit.topic, places=places)
    shared().refuse(kit.topic)
    produced = producer.run(take_orders(5))
    shared().accept(kit.topic)
    assert (produced.sent, produced.acknowledged, produced.failed) == (5, 0, 5)
    assert produced.error
    assert "authorization" in produced.error.lower()
    assert str(produced).endswith(f"5 failed (last: {produced.error})")


@PLACES
def test_an_order_that_is_too_large_is_failed(places: bool) -> None:
    """An order that the client itself will not send is counted as failed, and the next ones go on."""
    kit = Kit()
    large: Order = {"orderId": "x" * 2_000_000, "product": "Lamp", "price": 1.0}
    produced = OrderProducer(kit.connection, kit.topic, places=places).run([large, *take_orders(2)])
    assert (produced.sent, produced.acknowledged, produced.failed) == (3, 2, 1)
    assert produced.error
    assert "too large" in produced.error.lower()


def test_writes_that_fail_at_first_are_repeated() -> None:
    """A broker in trouble for a moment costs time and no order."""
    kit = Kit()
    producer = OrderProducer(kit.connection, kit.topic)
    shared().fail_next(3)
    produced = producer.run(take_orders(20))
    assert (produced.acknowledged, produced.failed) == (20, 0)
    assert decoded(kit) == take_orders(20)


@PLACES
def test_a_full_queue_is_waited_for(places: bool) -> None:
    """When the client's queue is full the producer waits; no order is dropped, and none fails."""
    kit = Kit()
    connection = Connection(kit.connection.bootstrap, {"queue.buffering.max.messages": "10"})
    produced = OrderProducer(connection, kit.topic, places=places).run(take_orders(300))
    assert (produced.sent, produced.acknowledged, produced.failed) == (300, 300, 0)
    assert decoded(kit) == take_orders(300)


def test_the_pace_is_kept() -> None:
    """With `every` seconds between two orders, N orders take N - 1 times as long, and none comes early."""
    kit, at = Kit(), []
    producer = OrderProducer(kit.connection, kit.topic)
    producer.run(take_orders(6), 0.1, told=lambda _: at.append(time.monotonic()))
    assert len(at) == 6
    assert at[-1] - at[0] >= 0.5 - 0.02
    assert all(later - first >= 0.1 * steps - 0.02 for steps, later in enumerate(at) for first in at[:1])


def test_the_pace_may_change_on_the_way() -> None:
    """`every` is looked at after each order."""
    kit = Kit()
    producer = OrderProducer(kit.connection, kit.topic)

    def faster(order: Order) -> None:
        if order["orderId"] == "2":
            producer.every = 0.0

    start = time.monotonic()
    with within(5):
        producer.run(take_orders(50), 0.2, told=faster)
    assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize("every", [0.0, 0.02])
def test_a_pause_holds_orders_back_and_nothing_is_caught_up(every: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """While `paused` no order is sent; after it they go on at the pace, not in a burst for the time lost."""
    monkeypatch.setattr("orderkit.producer.BATCH", 5)
    kit, at = Kit(), []
    producer = OrderProducer(kit.connection, kit.topic)

    def note(order: Order) -> None:
        at.append(time.monotonic())
        if order["orderId"] == "5":
            producer.paused = True
            threading.Timer(1.0, setattr, (producer, "paused", False)).start()

    produced = producer.run(take_orders(30), every, told=note)
    assert (produced.sent, produced.acknowledged) == (30, 30)
    assert 1.0 - 0.02 <= at[5] - at[4] < 5
    assert at[-1] - at[5] >= 24 * every - 0.02


def test_stop_ends_a_pause() -> None:
    """`stop()` while `paused` ends the run soon, and no further order is sent."""
    kit = Kit()
    producer = OrderProducer(kit.connection, kit.topic)
    producer.paused = True
    work = InBackground(producer, every=0.0)
    assert work.stop() < 2
    assert producer.produced == Produced()


def test_stop_ends_the_wait_and_everything_is_reported() -> None:
    """`stop()` in a long pause between two orders ends the run soon, with a report for each order."""
    kit = Kit()
    work = InBackground(OrderProducer(kit.connection, kit.topic), every=60.0)
    wait_for(lambda: work.producer.produced.sent == 1)
    with within(2):
        work.stop()
    produced = work.producer.produced
    assert (produced.sent, produced.acknowledged, produced.waiting) == (1, 1, 0)


def test_stop_at_full_speed_leaves_no_order_unreported() -> None:
    """`stop()` in the middle of a burst waits for the reports of what was sent; exactly that is in the topic."""
    kit = Kit(4)
    with slowed(50):
        work = InBackground(OrderProducer(kit.connection, kit.topic), every=0.001)
        wait_for(lambda: work.producer.produced.sent >= 50)
        work.stop()
    produced = work.producer.produced
    assert produced.waiting == 0
    assert produced.acknowledged == produced.sent
    assert decoded(kit) == list(islice(random_orders(1), produced.sent))


@pytest.mark.parametrize("rate", [0.3, 1.0])
def test_a_share_of_poison_is_what_faults_say(rate: float) -> None:
    """Exactly the orders that the faults name are damaged, and no others."""
    kit, orders, faults = Kit(), take_orders(200), Faults(5, poison_rate=rate)
    OrderProducer(kit.connection, kit.topic, faults=faults).run(orders)
    codec, damaged = Codec(), set()
    for message in read_topic(kit.connection, kit.topic):
        try:
            codec.decode(message.value())
        except Failure:
            damaged.add((message.key() or b"").decode())
    wanted = {order["orderId"] for order in orders if faults.spoil(order["orderId"], b"123456") != b"123456"}
    assert damaged == wanted
    assert abs(len(wanted) - 200 * rate) < 30


@pytest.mark.parametrize(
    ("given", "seconds"),
    [({}, 2.0), ({"every": 0.0}, 0.0), ({"every": 0.5}, 0.5), ({"rate": 0.0}, 0.0), ({"rate": 4.0}, 0.25)],
)
def test_a_pace_has_two_names(given: dict[str, Any], seconds: float) -> None:
    """`every` and `rate` say the same; by default an order comes every two seconds."""
    assert pace(**given) == seconds


@pytest.mark.parametrize(
    "given",
    [
        {"every": 1.0, "rate": 1.0}, {"every": 0.0, "rate": 0.0}, {"every": -1.0}, {"rate": -1.0},
        {"every": float("inf")}, {"rate": float("inf")}, {"every": float("nan")}, {"rate": float("nan")},
    ],
)  # fmt: skip
def test_a_senseless_pace_is_refused(given: dict[str, Any]) -> None:
    """A pace that is negative, endless, no number, or given twice is a usage error in one line."""
    with pytest.raises(UsageError) as told:
        pace(**given)
    assert "\n" not in str(told.value)


def test_a_missing_topic_is_said_at_the_start() -> None:
    """A producer without its topic says which one, and what to do."""
    with pytest.raises(OrderkitError, match=r"'nowhere' does not exist.*topics create"):
        OrderProducer(shared().connection, "nowhere")


def test_no_orders_at_all_is_no_trouble() -> None:
    """An empty run ends at once with nothing produced."""
    kit = Kit()
    assert OrderProducer(kit.connection, kit.topic).run([]) == Produced()


@PLACES
def test_orders_that_never_arrive_are_failed_one_by_one(places: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the broker goes for good, what arrived and what did not are counted apart, and nothing is left open."""
    monkeypatch.setattr("orderkit.producer.BATCH", 50)
    with EmbeddedBroker({"orders": 1}) as broker:
        connection = Connection(broker.bootstrap, {"message.timeout.ms": "3000"})
        producer = OrderProducer(connection, "orders", places=places)
        producer.send(take_orders(100))
        producer.finish()
        broker.down()
        producer.send(take_orders(60))
        producer.finish()
    produced = producer.produced
    assert (produced.sent, produced.acknowledged, produced.failed, produced.waiting) == (160, 100, 60, 0)


@PLACES
def test_a_producer_asked_to_stop_does_not_wait_for_a_broker_that_is_away(
    places: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`stop()` in an outage ends the run soon, be the client's queue full or not; what has no answer has failed."""
    monkeypatch.setattr("orderkit.producer.STOP_PATIENCE", 0.5)
    with EmbeddedBroker({"orders": 1}) as broker:
        connection = Connection(broker.bootstrap, {"queue.buffering.max.messages": "20"})
        work = InBackground(OrderProducer(connection, "orders", places=places), every=0.001)
        wait_for(lambda: work.producer.produced.acknowledged > 10)
        broker.down()
        wait_for(lambda: "_ALL_BROKERS_DOWN" in caplog.text)  # until then answers may be on their way
        wait_for(lambda: work.producer.produced.waiting >= 20)
        assert work.stop() < 5
        broker.up()
        produced = work.producer.produced
        assert produced.sent == produced.acknowledged + produced.failed
        assert produced.failed >= 20
        assert str(produced).endswith("(last: the broker did not answer)")
        assert broker.connection.watermarks("orders")[0][1] >= produced.acknowledged  # an answer may be lost, too


def test_batches_and_single_orders_go_to_the_same_partitions() -> None:
    """An order's partition depends on its key alone, however many are sent with it."""
    kit, orders = Kit(4), take_orders(60)
    for every in (0.0, 0.0001):
        OrderProducer(kit.connection, kit.topic).run(orders, every)
    where: defaultdict[bytes | None, Counter[int | None]] = defaultdict(Counter)
    for message in read_topic(kit.connection, kit.topic):
        where[message.key()][message.partition()] += 1
    assert [list(seen.values()) for seen in where.values()] == [[2]] * 60
