"""What the tests of consumer, producer and run share: records in, conditions awaited, the truth computed."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from ctypes import CDLL, c_char_p, c_int, c_size_t, c_ssize_t, c_void_p, create_string_buffer
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from types import TracebackType
from typing import Any, Self, cast

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from orderkit.account.audit import Origin, dead_letter_origins
from orderkit.account.average import RunningAverage
from orderkit.account.block import Attempt
from orderkit.account.state import GroupState, group_state
from orderkit.account.tally import RETRY
from orderkit.brokers import Broker, EmbeddedBroker, apache
from orderkit.brokers._mock import load
from orderkit.brokers._ports import Ports
from orderkit.consumer import RetryingConsumer
from orderkit.consuming.loop import Handler, accept
from orderkit.consuming.saved import Saved
from orderkit.dead_letters import DeadLetterRecord, Headers, read_dead_letters, read_topic
from orderkit.kafka import Connection
from orderkit.ledger import Ledger
from orderkit.members import group
from orderkit.members.commits import saved_with
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order, random_orders
from orderkit.retry import Failure, Permanent, RetryPolicy, Transient
from orderkit.retry.backoff import Backoff

AT_ONCE = RetryPolicy(backoff=Backoff("fixed", base=0.0))
SOON = RetryPolicy(backoff=Backoff("fixed", base=0.02))

# Every deadline is so many times as long: `ORDERKIT_PATIENCE=3 pytest` on a slow or a crowded machine.
PATIENCE = float(os.environ.get("ORDERKIT_PATIENCE", "1"))

BROKERS = ["embedded", pytest.param("apache", marks=pytest.mark.kafka)]


class Late(Exception):
    """Something did not come in time. It alone may have a second try: a wrong number never has."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Expect the block to take at most so many seconds of a machine that has nothing else to do."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    if took > seconds * PATIENCE:
        raise Late(f"it took {took:.1f} s, not {seconds * PATIENCE:g} at most")


def crowd() -> float:
    """Say how many processes want a core at the same time, at least one."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1.0, load / (os.cpu_count() or 1))


@cache
def shared() -> EmbeddedBroker:
    """Open the embedded broker that tests share; one that is broken on purpose is mended by the test that broke it."""
    return EmbeddedBroker(topics={})


# For one that joins the embedded broker waits for the others as long as a session lasts, less a second: no shorter
# ones, or they miss it.
SHORT_SESSIONS = {"session_timeout_ms": 1700, "heartbeat_interval_ms": 100}


def shorten_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the embedded broker give a group to its next member sooner; see `EMBEDDED_SETTINGS`."""
    monkeypatch.setattr(group, "EMBEDDED_SETTINGS", SHORT_SESSIONS)


def shorten_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let refused letters be offered again after a fraction of a second."""
    for module in ("dead_letters.writer", "delivery.mode", "delivery.at_least_once", "delivery.exactly_once"):
        monkeypatch.setattr(f"orderkit.{module}.PROBE", (0.3, 1.0))


@contextmanager
def slowed(milliseconds: int) -> Iterator[None]:
    """Let every answer of the shared broker take so long."""
    shared().slow(milliseconds)
    try:
        yield
    finally:
        shared().slow(0)


def open_broker(name: str, request: pytest.FixtureRequest) -> Broker:
    """Give the shared embedded broker, or the session's real one."""
    broker: Broker = shared() if name == "embedded" else request.getfixturevalue("apache")
    return broker


def take_orders(count: int, seed: int = 1) -> list[Order]:
    """Give the first random orders of a seed."""
    return list(islice(random_orders(seed), count))


def soon(condition: Callable[[], object], seconds: float = 20.0) -> Callable[[], bool]:
    """Make a condition that raises `Late` when it does not come true in time."""
    deadline = time.monotonic() + seconds * PATIENCE

    def met() -> bool:
        if condition():
            return True
        if time.monotonic() > deadline:
            raise Late(f"not within {seconds * PATIENCE:g} s")
        return False

    return met


def rarely(condition: Callable[[], object], every: float = 0.2) -> Callable[[], bool]:
    """Ask a condition that costs the broker work no more often than this; in between it is not met."""
    due = 0.0

    def met() -> bool:
        nonlocal due
        if time.monotonic() < due:
            return False
        due = time.monotonic() + every
        return bool(condition())

    return met


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a condition comes true; raise `Late` when it does not in time."""
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


def average_of(orders: Sequence[Order]) -> RunningAverage:
    """Average orders one by one, in whole units."""
    average = RunningAverage()
    for order in orders:
        average.add(order["price"])
    return average


class Kit:
    """Topics and a group that no other test uses.

    Args:
        partitions: of both topics.
        broker: by default the shared embedded one.
    """

    def __init__(self, partitions: int = 1, broker: Broker | None = None) -> None:
        broker = broker or shared()
        name = uuid.uuid4().hex[:8]
        self.connection = broker.connection
        self.partitions = partitions
        self.topic, self.dead_letters, self.group = f"orders.{name}", f"orders.{name}.dlq", f"orderkit.{name}"
        broker.create_topics({self.topic: partitions, self.dead_letters: partitions})

    def consumer(self, handler: Handler = accept, **settings: Any) -> RetryingConsumer:
        """Open a member of the group."""
        settings = {"connection": self.connection, **settings}
        return RetryingConsumer(
            handler=handler, group=self.group, topic=self.topic, dead_letters=self.dead_letters, **settings
        )

    def send(self, records: Sequence[Record]) -> None:
        """Write records byte for byte, and wait until the broker has them all."""
        errors: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                errors.append(error)

        # An idempotent producer waits half a second for its id. The flush, which does not linger, sends a partition's
        # records as one batch, and the embedded broker hands over a batch at a time. The topic has to be known before:
        # records that wait for it reach their partition one by one, and the flush sends what it finds.
        producer = self.connection.producer(
            enable_idempotence=False, linger_ms=10_000, message_max_bytes=16 * 1024 * 1024
        )
        producer.list_topics(self.topic, timeout=20)
        for record in records:
            headers: Any = record.headers or None
            producer.produce(
                self.topic, record.value, record.key, record.partition, headers=headers, on_delivery=delivered
            )
        assert producer.flush(20) == 0
        assert not errors

    def send_orders(self, orders: Sequence[Order], wire: str = "single") -> None:
        """Write orders, dealt to the partitions in turn."""
        encode = Codec(wire).encode
        self.send(
            [
                Record(encode(order), order["orderId"].encode(), partition=i % self.partitions)
                for i, order in enumerate(orders)
            ]
        )

    def letters(self) -> list[DeadLetterRecord]:
        """Read all dead letters."""
        return list(read_dead_letters(self.connection, self.dead_letters))

    def state(self) -> GroupState:
        """Ask the broker, through a client of its own, what the group has committed."""
        return group_state(self.connection, self.group, self.topic)

    def offsets(self) -> dict[int, int]:
        """Ask the broker, through a client of its own, where the group stands."""
        return dict(self.state().offsets)

    def saved(self, partition: int = 0) -> Saved | None:
        """Read what a partition's commit carries."""
        reader = self.connection.consumer(self.group)
        try:
            (commit,) = reader.committed([TopicPartition(self.topic, partition)], timeout=10)
        finally:
            reader.close()
        return saved_with(commit)

    def left(self) -> int:
        """Count the records behind the group's offsets."""
        ends = self.connection.watermarks(self.topic).values()
        return sum(high for _, high in ends) - sum(self.offsets().values())

    @property
    def settled(self) -> Callable[[], bool]:
        """A condition: the group has committed everything."""
        return rarely(lambda: self.left() == 0)

    def assert_all_accounted(self, faults: Faults, attempts: int = 3, *, again: bool = False) -> None:
        """Hold what lies in the topic against what was committed and given up: nothing lost, nothing twice.

        Args:
            faults: decide which orders end in the average.
            attempts: how many each order has.
            again: dead letters may lie there twice, because a commit was refused after they were written.
        """
        codec = Codec()
        good: list[Order] = []
        dead: list[Origin] = []
        for message in read_topic(self.connection, self.topic):
            try:
                order = codec.decode(message.value())
            except Failure:
                order = None
            if order is not None and fate(order, faults, attempts):
                good.append(order)
            else:
                dead.append((self.topic, message.partition() or 0, message.offset() or 0))
        state = self.state()
        ends = self.connection.watermarks(self.topic)
        came_to = {number: offset for number, offset in state.offsets.items() if offset}  # 0: only where one begins
        assert came_to == {number: high for number, (_, high) in ends.items() if high}
        letters = dead_letter_origins(self.connection, self.dead_letters, self.group)
        assert sorted(set(letters) if again else letters) == sorted(dead)
        assert state.dead == len(dead)
        assert state.average == average_of(good)


def send_odd(connection: Connection, topic: str, value: bytes, headers: Sequence[tuple[bytes, bytes | None]]) -> None:
    """Write a record whose headers have names that no text is: Python's client refuses to, librdkafka does not."""
    library, told = cast(CDLL, load()), create_string_buffer(512)
    conf = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(conf, b"bootstrap.servers", connection.bootstrap.encode(), told, len(told))
    client = library.rd_kafka_new(0, conf, told, len(told))
    named: list[Any] = []
    for name, given in headers:
        named += [c_int(9), c_char_p(name), c_char_p(given), c_ssize_t(-1 if given is None else len(given))]
    library.rd_kafka_producev(
        c_void_p(client), c_int(1), c_char_p(topic.encode()), c_int(7), c_int(2),  # the topic; copy what is given
        c_int(4), c_char_p(value), c_size_t(len(value)), *named, c_int(0),
    )  # fmt: skip
    assert library.rd_kafka_flush(c_void_p(client), c_int(20_000)) == 0
    library.rd_kafka_destroy(client)


def read_to_end(terminal: int) -> bytes:
    """Read what is written to a pseudo-terminal, until nobody has its other end."""
    written = b""
    with suppress(OSError):  # Linux: the other end is closed
        while chunk := os.read(terminal, 65_536):
            written += chunk
    return written


def lose_port_once(monkeypatch: pytest.MonkeyPatch, taken: int, listener: str = "PLAINTEXT") -> list[object]:
    """Let the next real broker look for ports, and find one that is taken; give a list that has an item a look."""
    looks = list[object]()

    class Unlucky(Ports):
        def __init__(self, names: Collection[str], given: Mapping[str, int]) -> None:
            super().__init__(names, given)
            looks.append(names)
            if len(looks) == 1:
                self.numbers[listener] = taken

    monkeypatch.setattr(apache, "Ports", Unlucky)
    return looks


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

    def start(self) -> Self:
        """Start it outside of a `with` block."""
        self._thread.start()
        return self

    @property
    def stopped(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = self.stop()
        if self.error is not None and (error is None or isinstance(error, Late)):
            raise self.error from None  # what did not come was waited for in vain: its consumer had failed
        if error is None and not self.stopped:
            raise Late(f"the consumer has not ended after {seconds:.0f} s")

    def stop(self) -> float:
        """Stop the consumer, wait for its thread, and give the seconds that took."""
        start = time.monotonic()
        self.consumer.stop()
        self._thread.join(30 * PATIENCE)
        return time.monotonic() - start


def note_failure(
    ledger: Ledger, topic: str, partition: int, offset: int, fate: int, order: Order | Failure, **more: Any
) -> None:
    """Let a ledger note one failed attempt of one record."""
    told = {"at": 1.0, "number": 1, "reason": "transient", "error": "E: x", **more}
    ledger.note(told["at"], topic, partition, [offset], [order], [Attempt(0, fate=fate, **told)], int(fate != RETRY))
