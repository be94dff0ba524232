"""What the tests of consumer, producer and run share: records in, conditions awaited, the truth computed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType
from typing import Any, Self

import pytest
from confluent_kafka import KafkaError, Message

from orderkit.audit import Origin, dead_letter_origins, group_state
from orderkit.average import RunningAverage
from orderkit.avro import Codec
from orderkit.backoff import Backoff
from orderkit.brokers import Broker, EmbeddedBroker
from orderkit.consumer import RetryingConsumer
from orderkit.dead_letters import DeadLetterRecord, Headers, read_dead_letters, read_topic
from orderkit.faults import Faults
from orderkit.kafka import Connection
from orderkit.order import Order, random_orders
from orderkit.retry import Failure, Permanent, RetryPolicy, Transient

AT_ONCE = RetryPolicy(backoff=Backoff("fixed", base=0.0))
SOON = RetryPolicy(backoff=Backoff("fixed", base=0.02))

BROKERS = ["embedded", pytest.param("apache", marks=pytest.mark.kafka)]


@contextmanager
def any_broker(name: str, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Open a fresh embedded broker, or borrow the session's real one."""
    if name == "embedded":
        with EmbeddedBroker(topics={}) as broker:
            yield broker
    else:
        yield request.getfixturevalue("apache")


def one_partition() -> EmbeddedBroker:
    """Open a broker whose topics have one partition each."""
    return EmbeddedBroker(topics={"orders": 1, "orders-dlq": 1})


def take_orders(count: int, seed: int = 1) -> list[Order]:
    """Give the first random orders of a seed."""
    return list(islice(random_orders(seed), count))


def soon(condition: Callable[[], object], seconds: float = 20.0) -> Callable[[], bool]:
    """Make a condition that fails the test when it does not come true in time."""
    deadline = time.monotonic() + seconds

    def met() -> bool:
        if condition():
            return True
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        return False

    return met


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a condition comes true; the test fails when it does not in time."""
    met = soon(condition, seconds)
    while not met():
        time.sleep(0.005)


@dataclass
class Record:
    """A record to be written as it is."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = field(default_factory=list)
    partition: int = 0


def send(connection: Connection, records: Sequence[Record], topic: str = "orders") -> None:
    """Write records byte for byte, and wait until the broker has them all."""
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            errors.append(error)

    producer = connection.producer(message_max_bytes=16 * 1024 * 1024, queue_buffering_max_messages=200_000)
    for record in records:
        headers: Any = record.headers or None
        producer.produce(
            topic, record.value, record.key, record.partition, headers=headers, on_delivery=delivered
        )
    assert producer.flush(20) == 0
    assert not errors


def send_orders(
    connection: Connection, orders: Sequence[Order], topic: str = "orders", partitions: int = 1, wire: str = "single"
) -> None:
    """Write orders, dealt to the partitions in turn."""
    codec = Codec(wire)
    send(
        connection,
        [
            Record(codec.encode(order), order["orderId"].encode(), partition=i % partitions)
            for i, order in enumerate(orders)
        ],
        topic,
    )


def average_of(orders: Sequence[Order]) -> RunningAverage:
    """Average orders one by one, in whole units."""
    average = RunningAverage()
    for order in orders:
        average.add(order["price"])
    return average


def dead_letters(connection: Connection, topic: str = "orders-dlq") -> list[DeadLetterRecord]:
    """Read all dead letters."""
    return list(read_dead_letters(connection, topic))


def committed(connection: Connection, group: str = "orderkit", topic: str = "orders") -> Mapping[int, int]:
    """Ask the broker, through a client of its own, where a group stands."""
    return group_state(connection, group, topic).offsets


@dataclass
class Names:
    """Topics and group that no other test uses."""

    topic: str
    dead_letters: str
    group: str

    @classmethod
    def create(cls, broker: Broker, partitions: int) -> Names:
        """Create the topics."""
        name = uuid.uuid4().hex[:8]
        names = cls(f"orders.{name}", f"orders.{name}.dlq", f"orderkit.{name}")
        broker.create_topics({names.topic: partitions, names.dead_letters: partitions})
        return names

    def consumer(self, connection: Connection, handler: Any, **settings: Any) -> RetryingConsumer:
        """Open a member of the group."""
        return RetryingConsumer(
            connection, handler, group=self.group, topic=self.topic, dead_letters=self.dead_letters, **settings
        )


def fate(order: Order, faults: Faults, attempts: int = 3) -> bool:
    """Say whether an order ends in the average, from nothing but its faults and the number of attempts."""
    for attempt in range(1, attempts + 1):
        try:
            faults.strike(order, attempt)
        except Permanent:
            return False
        except Transient:
            continue
        return True
    return False


def assert_all_accounted(connection: Connection, names: Names, faults: Faults, attempts: int = 3) -> None:
    """Hold what lies in the topic against what the group committed and what it gave up: nothing lost, nothing twice."""
    codec = Codec()
    good: list[Order] = []
    dead: list[Origin] = []
    for message in read_topic(connection, names.topic):
        try:
            order = codec.decode(message.value())
        except Failure:
            order = None
        if order is not None and fate(order, faults, attempts):
            good.append(order)
        else:
            dead.append((names.topic, message.partition() or 0, message.offset() or 0))
    state = group_state(connection, names.group, names.topic)
    ends = {number: high for number, (_, high) in connection.watermarks(names.topic).items() if high}
    assert dict(state.offsets) == ends
    assert sorted(dead_letter_origins(connection, names.dead_letters, names.group)) == sorted(dead)
    assert state.dead == len(dead)
    assert state.average == average_of(good)


class Background:
    """Runs a consumer in a thread; leaving the block stops it and raises what it raised."""

    def __init__(self, consumer: RetryingConsumer, **until: Any) -> None:
        self.consumer = consumer
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, kwargs=until, daemon=True)

    def _work(self, **until: Any) -> None:
        try:
            self.consumer.run(**until)
        except BaseException as error:  # raised again where the test sees it
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = self.stop()
        if error is None:
            assert seconds < 30
            if self.error is not None:
                raise self.error

    def stop(self) -> float:
        """Stop the consumer, wait for its thread, and give the seconds that took."""
        start = time.monotonic()
        self.consumer.stop()
        self._thread.join(30)
        return time.monotonic() - start
