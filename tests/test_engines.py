"""Every way to wait: the same handler, the same fates, and what each engine promises about order and time."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from helpers import (
    BROKERS,
    Background,
    Kit,
    Record,
    average_of,
    fate,
    open_broker,
    shared,
    shorten_sessions,
    take_orders,
    wait_for,
)

from orderkit.account.audit import account, dead_letter_origins
from orderkit.consumer import RetryingConsumer
from orderkit.engines import ENGINES
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import RetryPolicy, Transient
from orderkit.retry.backoff import Backoff

FAULTS = Faults(5, transient_rate=0.25, permanent_rate=0.03, poison_rate=0.0)
SOON = RetryPolicy(backoff=Backoff("fixed", base=0.05))
LATER = RetryPolicy(backoff=Backoff("fixed", base=0.4))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let restarts come after a fraction of a second."""
    shorten_sessions(monkeypatch)


def send_keyed(kit: Kit, orders: list[Order], keys: int, first: int = 0) -> None:
    """Write orders under so many keys, each key in one partition; `first` were written before."""
    encode = Codec().encode
    kit.send(
        [
            Record(encode(order), f"k{i % keys}".encode(), partition=i % keys % kit.partitions)
            for i, order in enumerate(orders, first)
        ]
    )


class Watch:
    """A handler that notes each attempt, and fails as the faults say."""

    def __init__(self, fail: Callable[[Order, int], object]) -> None:
        self.fail = fail
        self.seen: list[tuple[float, str, int]] = []
        self.done: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, order: Order, attempt: int) -> None:
        with self._lock:
            self.seen.append((time.time(), order["orderId"], attempt))
        self.fail(order, attempt)
        with self._lock:
            self.done.append(order["orderId"])

    def attempts_of(self, order: Order) -> list[int]:
        """Give the numbers of an order's attempts, as they came."""
        return [attempt for _, name, attempt in self.seen if name == order["orderId"]]


@pytest.mark.parametrize("name", BROKERS)
@pytest.mark.parametrize("engine", list(ENGINES))
def test_all_engines_give_the_same_fates(engine: str, name: str, request: pytest.FixtureRequest) -> None:
    """Whatever the engine, the same orders end in the average and as dead letters, after the same attempts."""
    kit, orders = Kit(2, open_broker(name, request)), take_orders(120)
    send_keyed(kit, orders, 12)
    watch = Watch(FAULTS.strike)
    policy = RetryPolicy(backoff=Backoff("fixed", base=0.01))
    consumer = kit.consumer(watch, engine=engine, policy=policy)
    consumer.run(orders=120)
    good = [order for order in orders if fate(order, FAULTS)]
    assert 0 < len(good) < 120
    state = kit.state()
    assert state.average == average_of(good)
    assert state.dead == 120 - len(good)
    for order in orders:
        numbers = watch.attempts_of(order)
        assert numbers == list(range(1, len(numbers) + 1))
    letters = dead_letter_origins(kit.connection, kit.dead_letters, kit.group)
    assert len(set(letters)) == len(letters) == 120 - len(good)
    assert {topic for topic, _, _ in letters} == {kit.topic}
    report = account(consumer.ledger, state, kit.topic, letters=letters)
    assert report.conserved
    assert (report.in_flight, report.lost, report.duplicated) == (0, 0, 0)


@pytest.mark.parametrize("engine", list(ENGINES))
def test_no_retry_comes_early_or_late(engine: str) -> None:
    """Between two attempts lies at least the back-off, and in a warm group at most 0.1 s more.

    A busy machine may take its time over three of the ten retries, not over the others.
    """
    kit, orders = Kit(1), take_orders(25)
    send_keyed(kit, orders[:20], 25)
    failing = {order["orderId"] for order in orders[20:]}

    def fail(order: Order, attempt: int) -> None:
        if order["orderId"] in failing and attempt < 3:
            raise Transient("not yet")

    watch = Watch(fail)
    consumer = kit.consumer(watch, engine=engine, policy=RetryPolicy(backoff=Backoff("fixed", base=0.25)))

    def go_through(order: Order) -> None:
        send_keyed(kit, [order], 25, 20)
        wait_for(lambda: order["orderId"] in watch.done)

    with Background(consumer):
        wait_for(lambda: len(watch.done) == 20)
        for order in orders[20:]:
            go_through(order)  # alone: no order waits for another
    times = [[at for at, name, _ in watch.seen if name == order["orderId"]] for order in orders[20:]]
    late = sorted(later - earlier - 0.25 for each in times for earlier, later in pairwise(each))
    print(f"{engine}: late by {[round(1000 * wait) for wait in late]} ms")
    assert len(late) == 10
    assert late[0] >= 0
    assert late[6] < 0.1


def blocked(engine: str) -> tuple[list[str], Order, list[Order]]:
    """Give what was done, in order, when the first of twelve orders under three keys fails twice."""
    kit, orders = Kit(1), take_orders(12)
    send_keyed(kit, orders, 3)

    def fail(order: Order, attempt: int) -> None:
        if order["orderId"] == orders[0]["orderId"] and attempt < 3:
            raise Transient("not yet")

    watch = Watch(fail)
    kit.consumer(watch, engine=engine, policy=SOON).run(orders=12)
    return watch.done, orders[0], orders


@pytest.mark.parametrize("engine", ["pause", "in-place"])
def test_whoever_keeps_the_order_blocks_the_partition(engine: str) -> None:
    """With `pause` and `in-place` all is done in the order of the partition."""
    done, _, orders = blocked(engine)
    assert done == [order["orderId"] for order in orders]


def test_key_parking_lets_the_other_keys_flow() -> None:
    """With `key-parking` the failing key waits, in its order, and all others are done before it."""
    done, _, orders = blocked("key-parking")
    names = [order["orderId"] for order in orders]
    assert done == [name for i, name in enumerate(names) if i % 3] + names[::3]


def test_retry_topics_give_up_the_order() -> None:
    """With `topics` only the failing order waits; it comes after younger ones of its key."""
    done, first, orders = blocked("topics")
    assert done == [order["orderId"] for order in orders[1:]] + [first["orderId"]]


@pytest.mark.parametrize("name", BROKERS)
def test_parked_orders_survive_a_restart(name: str, request: pytest.FixtureRequest) -> None:
    """What is done beyond a parked order is neither lost nor done again after a restart, and attempts count on."""
    kit, orders = Kit(1, open_broker(name, request)), take_orders(60)
    send_keyed(kit, orders, 6)
    bad = {orders[7]["orderId"], orders[20]["orderId"]}
    down = True

    def fail(order: Order, _attempt: int) -> None:
        if order["orderId"] in bad and down:
            raise Transient("down")

    policy = RetryPolicy(max_attempts=5, backoff=Backoff("fixed", base=1.0))
    first = Watch(fail)
    consumer = kit.consumer(first, engine="key-parking", policy=policy)
    with Background(consumer):
        wait_for(lambda: consumer.ledger.finished == 60 - 9 - 7)
    saved = kit.saved()
    assert kit.offsets() == {0: 7}
    assert saved is not None
    assert len(saved.holes) == 9 + 7 - 1
    assert saved.average.count == 60 - 9 - 7
    down = False
    second = Watch(fail)
    kit.consumer(second, engine="key-parking", policy=policy).run(orders=16)
    assert sorted(first.done + second.done) == sorted(order["orderId"] for order in orders)
    assert [n for name in bad for n in [min(a for _, o, a in second.seen if o == name)]] == [2, 2]
    assert kit.state().average == average_of(orders)
    assert kit.offsets() == {0: 60}


def test_a_group_that_parked_can_go_on_with_another_engine() -> None:
    """A commit with holes is understood by every engine: nothing beyond is done twice."""
    kit, orders = Kit(1), take_orders(30)
    send_keyed(kit, orders, 3)

    def fail(order: Order, _attempt: int) -> None:
        if order["orderId"] == orders[4]["orderId"]:
            raise Transient("down")

    policy = RetryPolicy(backoff=Backoff("fixed", base=5.0))
    consumer = kit.consumer(fail, engine="key-parking", policy=policy)
    with Background(consumer):
        wait_for(lambda: consumer.ledger.finished == 21)
    watch = Watch(lambda _order, _attempt: None)
    kit.consumer(watch, policy=policy).run(orders=9)
    assert watch.done == [order["orderId"] for order in orders[4::3]]
    assert kit.state().average == average_of(orders)


def test_a_full_park_makes_the_partition_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no more can be parked the partition waits, and its metadata stays within Kafka's limit."""
    monkeypatch.setattr("orderkit.consuming.backlog.ROOM", 200)
    monkeypatch.setattr("orderkit.consuming.backlog.SURELY_FITS", 2)
    kit, orders = Kit(1), take_orders(400)
    send_keyed(kit, orders, 400)
    most = 0

    def fail(order: Order, attempt: int) -> None:
        nonlocal most
        parked = [len(part.park) for part in consumer.member.parts.values()]
        most = max([most, *parked])
        if int(order["orderId"]) % 4 == 0 and attempt < 3:
            raise Transient("not yet")

    consumer = kit.consumer(fail, engine="key-parking", policy=SOON)
    consumer.run(orders=400)
    assert kit.state().average == average_of(orders)
    assert 5 < most < 30


def test_what_parking_saves_fits_whatever_is_parked() -> None:
    """With every other order parked under large offsets, the metadata is never over the limit."""
    from confluent_kafka import Message

    from orderkit.consuming.partition import Partition
    from orderkit.consuming.saved import METADATA_LIMIT, History

    for step in (1, 2, 999, 10**12):
        part = Partition("orders", 0, 10**15)
        offset = 10**15
        while not part.park.full:
            message = Message(topic="orders", partition=0, offset=offset, key=str(offset).encode(), value=b"")
            part.take([message], [take_orders(1)[0]])
            part.failed[offset] = History(99_999, 1.7e9)
            part.park.add(part.backlog.one(0), 0.0)
            part.backlog.drop(1)
            part.went_past([offset])
            offset += step
        assert len(part.here().to_text(part.floor)) <= METADATA_LIMIT
        assert len(part.park) > 130


@pytest.mark.parametrize("name", BROKERS)
def test_retry_topics_survive_a_restart(name: str, request: pytest.FixtureRequest) -> None:
    """An order that waits in a retry topic is tried by the next member, with its attempts counted on."""
    kit, orders = Kit(2, open_broker(name, request)), take_orders(40)
    send_keyed(kit, orders, 8)
    bad, down = orders[9]["orderId"], True

    def fail(order: Order, _attempt: int) -> None:
        if order["orderId"] == bad and down:
            raise Transient("down")

    first = Watch(fail)
    consumer = kit.consumer(first, engine="topics", policy=LATER)
    with Background(consumer):
        wait_for(lambda: consumer.ledger.finished == 39)
    report = account(consumer.ledger, kit.state(), kit.topic)
    assert (report.averaged, report.in_flight, report.lost) == (39, 1, 0)
    down = False
    second = Watch(fail)
    kit.consumer(second, engine="topics", policy=LATER).run(orders=1)
    assert [(name, attempt) for _, name, attempt in second.seen] == [(bad, 2)]
    assert kit.state().average == average_of(orders)


def test_retry_topics_belong_to_one_group() -> None:
    """Each group has retry topics of its own, one for each attempt after the first."""
    kit = Kit(3)
    kit.consumer(engine="topics", policy=RetryPolicy(max_attempts=4)).close()
    topics = [name for name in kit.connection.metadata().topics if name.startswith(f"{kit.topic}.{kit.group}.retry.")]
    assert sorted(topics) == [f"{kit.topic}.{kit.group}.retry.{number}" for number in (1, 2, 3)]
    assert len(kit.connection.partitions(topics[0])) >= 3  # the embedded broker gives four to whoever asks


def test_a_retry_topic_with_too_few_partitions_is_named() -> None:
    """A retry topic with fewer partitions than the orders have could not keep a record's number."""
    kit = Kit(3)
    shared().create_topics({f"{kit.topic}.{kit.group}.retry.1": 1})
    with pytest.raises(OrderkitError, match="give it as many"):
        kit.consumer(engine="topics")


def test_a_dead_letter_from_a_retry_topic_tells_its_first_origin() -> None:
    """The story names topic, partition and offset of the order itself, and its headers are those it came with."""
    kit = Kit(1)
    kit.send([Record(Codec().encode(take_orders(1)[0]), b"key", [("trace", b"7")])])

    def fail(_order: Order, _attempt: int) -> None:
        raise Transient("down")

    kit.consumer(fail, engine="topics", policy=SOON).run(orders=1)
    (letter,) = kit.letters()
    assert (letter.origin, letter.story["attempts"]) == ((kit.topic, 0, 0), "3")
    assert [header for header in letter.headers if not header[0].startswith("orderkit.dlq.")] == [("trace", b"7")]


def test_an_unknown_engine_is_answered_with_those_there_are() -> None:
    """A misspelt engine is a usage error that lists the engines."""
    with pytest.raises(UsageError, match="pause, in-place, topics, key-parking"):
        Kit().consumer(engine="parking")


def test_sleeping_in_place_loses_the_partition() -> None:
    """The bad example: who sleeps longer than `max.poll.interval.ms` is put out of the group, and starts again."""
    kit, orders = Kit(1), take_orders(3)
    send_keyed(kit, orders, 3)
    impatient = {"max.poll.interval.ms": "2500", "session.timeout.ms": "1500"}
    connection = Connection(kit.connection.bootstrap, impatient)

    def fail(order: Order, attempt: int) -> None:
        if order["orderId"] == orders[1]["orderId"] and attempt < 2:
            raise Transient("down")

    watch = Watch(fail)
    policy = RetryPolicy(backoff=Backoff("fixed", base=4.0))
    consumer = kit.consumer(watch, engine="in-place", policy=policy, connection=connection)
    with Background(consumer):
        wait_for(lambda: consumer.member.rebalances > 1, 30)
    paused = Watch(fail)
    other = Kit(1)
    send_keyed(other, orders, 3)
    good = other.consumer(paused, policy=policy, connection=connection)
    good.run(orders=3)
    assert good.member.rebalances == 1


def inversions(done: list[tuple[str, int]]) -> int:
    """Count orders that were done after a younger one of their key."""
    latest: dict[str, int] = defaultdict(lambda: -1)
    count = 0
    for key, number in done:
        count += number < latest[key]
        latest[key] = max(latest[key], number)
    return count


def park_through_a_rebalance_and_a_restart(seed: int) -> tuple[int, bool]:
    """Let a second member join, and both end, while keys wait and orders come; give inversions, and if all is right."""
    kit, orders = Kit(2), take_orders(60, seed)
    keys = 5 + seed % 7
    place = {order["orderId"]: (f"k{i % keys}", i) for i, order in enumerate(orders)}
    faults = Faults(seed, transient_rate=0.3, permanent_rate=0.05)
    # Many attempts: a member that a busy machine puts out of the group counts as dead, and an order may be blamed.
    policy = RetryPolicy(max_attempts=8, backoff=Backoff("fixed", base=0.05))
    watch = Watch(faults.strike)

    def member() -> RetryingConsumer:
        return kit.consumer(watch, engine="key-parking", policy=policy)

    send_keyed(kit, orders[:20], keys)
    with Background(first := member()):
        wait_for(lambda: watch.done, 60)
        with Background(second := member()):
            send_keyed(kit, orders[20:40], keys, 20)
            wait_for(lambda: first.member.rebalances > 1 and second.member.parts, 60)
            send_keyed(kit, orders[40:], keys, 40)
    with Background(member()):
        wait_for(kit.settled, 60)
    done = dict.fromkeys(watch.done)  # what a member did and could not commit is done again
    good = [order for order in orders if fate(order, faults, 8)]
    return inversions([place[name] for name in done]), kit.state().average == average_of(good)


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(first, first + 10), id=f"{first}", marks=[] if first < 20 else [pytest.mark.campaign])
        for first in range(0, 100, 10)
    ],
)
def test_key_parking_keeps_the_order_of_every_key(seeds: range) -> None:
    """Over many seeds, with a rebalance and a restart in each: no order is done after a younger one of its key."""
    shared()  # made once, by this thread
    with ThreadPoolExecutor(len(seeds)) as threads:
        assert set(threads.map(park_through_a_rebalance_and_a_restart, seeds)) == {(0, True)}
