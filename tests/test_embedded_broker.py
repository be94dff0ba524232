"""The embedded broker, and its faults as real clients see them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Message, Producer
from helpers import wait_for, within

from orderkit.brokers import Broker, EmbeddedBroker, _mock, embedded
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as opened:
        yield opened


def deliver(producer: Producer, topic: str, value: bytes = b"x", wait: float = 10.0) -> str | None:
    """Produce one record; give the name of the error in its delivery report, or `None`."""
    reports: list[str | None] = []

    def delivered(error: object, _message: Message) -> None:
        reports.append(error.name() if error is not None else None)  # type: ignore[attr-defined]

    try:
        producer.produce(topic, value, on_delivery=delivered)
    except KafkaException as error:  # the client knows already that the topic is refused
        return str(error.args[0].name())
    producer.flush(wait)
    return reports[0] if reports else "waiting"


def read(connection: Connection, topic: str, count: int, group: str = "readers") -> list[bytes | None]:
    """Read `count` records as a member of `group`, commit, and leave."""
    consumer = connection.consumer(group)
    consumer.subscribe([topic])
    values: list[bytes | None] = []
    try:
        deadline = time.monotonic() + 15
        while len(values) < count and time.monotonic() < deadline:
            values += [message.value() for message in consumer.consume(count, 0.1) if message.error() is None]
        consumer.commit(asynchronous=False)
    finally:
        consumer.close()
    return values


def test_it_has_the_broker_face(broker: EmbeddedBroker) -> None:
    """An embedded broker can stand wherever a broker is asked for."""
    face: Broker = broker
    assert face.kind == "embedded"
    assert face.connection.bootstrap == face.bootstrap
    assert face.connection.is_embedded


def test_topics_have_the_partitions_asked_for() -> None:
    """Any number of topics and partitions can be had, and asking again changes nothing."""
    with EmbeddedBroker({"wide": 50, **{f"t{number}": 1 for number in range(20)}}) as broker:
        broker.create_topics({"wide": 50, "t1": 3})
        assert len(broker.connection.partitions("wide")) == 50
        assert broker.connection.partitions("t1") == [0]
        assert len(broker.connection.metadata().topics) == 21


@pytest.mark.parametrize("topics", [{"no partitions": 0}, {"a": -1}])
def test_a_topic_without_partitions_is_refused(broker: EmbeddedBroker, topics: dict[str, int]) -> None:
    """A topic has at least one partition."""
    with pytest.raises(UsageError, match="at least one"):
        broker.create_topics(topics)


def test_records_are_read_back_and_a_member_that_returns_goes_on(broker: EmbeddedBroker) -> None:
    """A group goes on where it was, within seconds of its last member's leaving."""
    producer = broker.connection.producer()
    assert deliver(producer, "orders", b"first") is None
    assert read(broker.connection, "orders", 1) == [b"first"]
    assert deliver(producer, "orders", b"second") is None
    with within(10):
        assert read(broker.connection, "orders", 1) == [b"second"]


def test_a_refused_topic_says_so_in_the_delivery_report(broker: EmbeddedBroker) -> None:
    """A client that has written before meets the refusal at its next record; other topics go on."""
    producer = broker.connection.producer()
    assert deliver(producer, "orders-dlq") is None
    broker.refuse("orders-dlq")
    assert deliver(producer, "orders-dlq") == "TOPIC_AUTHORIZATION_FAILED"
    assert deliver(broker.connection.producer(), "orders-dlq") == "TOPIC_AUTHORIZATION_FAILED"
    assert deliver(producer, "orders") is None
    broker.accept("orders-dlq")
    wait_for(lambda: deliver(producer, "orders-dlq") is None)
    assert sum(high for _, high in broker.connection.watermarks("orders-dlq").values()) == 2


def test_a_reader_of_a_refused_topic_goes_on_when_it_is_accepted(broker: EmbeddedBroker) -> None:
    """Refusing a topic under a reader harms neither broker nor reader."""
    producer = broker.connection.producer()
    consumer = broker.connection.consumer("readers")
    consumer.subscribe(["orders"])
    try:
        assert deliver(producer, "orders", b"before") is None
        values: list[bytes | None] = []

        def got(value: bytes) -> bool:
            values.extend(message.value() for message in consumer.consume(10, 0.1) if message.error() is None)
            return value in values

        wait_for(lambda: got(b"before"))
        broker.refuse("orders")
        assert deliver(producer, "orders", b"refused") == "TOPIC_AUTHORIZATION_FAILED"
        consumer.consume(10, 0.3)
        broker.accept("orders")
        wait_for(lambda: deliver(producer, "orders", b"after") is None)
        wait_for(lambda: got(b"after"))
        assert b"refused" not in values
    finally:
        consumer.close()


def test_a_record_waits_while_the_broker_is_down(broker: EmbeddedBroker) -> None:
    """What is produced while the broker is down is delivered once it is up, and earlier records are kept."""
    producer = broker.connection.producer()
    assert deliver(producer, "orders", b"before") is None
    broker.down()
    assert deliver(producer, "orders", b"meanwhile", wait=0.3) == "waiting"
    broker.up()
    assert producer.flush(10) == 0
    assert sorted(filter(None, read(broker.connection, "orders", 2))) == [b"before", b"meanwhile"]


def test_a_slow_broker_takes_its_time(broker: EmbeddedBroker) -> None:
    """Every round trip takes at least the delay, until it is set to 0."""
    producer = broker.connection.producer()
    assert deliver(producer, "orders") is None
    broker.slow(400)
    started = time.monotonic()
    assert deliver(producer, "orders") is None
    assert time.monotonic() - started >= 0.4
    broker.slow(0)
    wait_for(lambda: _seconds(lambda: deliver(producer, "orders")) < 0.3)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def test_the_next_requests_fail_and_then_no_more(broker: EmbeddedBroker) -> None:
    """Exactly `count` requests fail; the record after them is written."""
    once = broker.connection.producer(enable_idempotence=False, retries=0)
    assert deliver(once, "orders") is None
    broker.fail_next(2, error="NOT_ENOUGH_REPLICAS")
    assert [deliver(once, "orders") for _ in range(3)] == ["NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS", None]


def test_a_producer_that_retries_survives_failing_requests(broker: EmbeddedBroker) -> None:
    """The kit's own producer settings ride out a few refused requests without a duplicate."""
    producer = broker.connection.producer()
    broker.fail_next(3)
    assert deliver(producer, "orders") is None
    assert sum(high for _, high in broker.connection.watermarks("orders").values()) == 1


def test_failing_requests_can_be_called_off(broker: EmbeddedBroker) -> None:
    """A later call replaces what is left of an earlier one; a count of 0 leaves nothing."""
    once = broker.connection.producer(enable_idempotence=False, retries=0)
    broker.fail_next(1000)
    broker.fail_next(0)
    assert deliver(once, "orders") is None


def test_commits_can_be_made_to_fail(broker: EmbeddedBroker) -> None:
    """Faults reach other requests than Produce."""
    assert deliver(broker.connection.producer(), "orders") is None
    broker.fail_next(1, error="GROUP_AUTHORIZATION_FAILED", request="OffsetCommit")
    with pytest.raises(KafkaException, match="GROUP_AUTHORIZATION_FAILED"):
        read(broker.connection, "orders", 1)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda broker: broker.refuse("orders", error="NO_SUCH_ERROR"),
        lambda broker: broker.refuse("orders", error="NO_ERROR"),
        lambda broker: broker.fail_next(1, error="code"),
        lambda broker: broker.fail_next(1, request="Sing"),
        lambda broker: broker.fail_next(-1),
        lambda broker: broker.slow(-1),
        lambda _: EmbeddedBroker(brokers=0),
    ],
)
def test_a_fault_that_cannot_be_is_wrong_usage(
    broker: EmbeddedBroker, wrong: Callable[[EmbeddedBroker], object]
) -> None:
    """An unknown name or a negative number is refused before anything breaks."""
    with pytest.raises(UsageError):
        wrong(broker)


def test_refusing_an_unknown_topic_says_that_it_is_unknown(broker: EmbeddedBroker) -> None:
    """A fault on a misspelt topic is an error, not a new topic."""
    with pytest.raises(OrderkitError, match="does not exist"):
        broker.refuse("ordres")


@pytest.mark.parametrize(
    ("records", "size", "batch", "fits"),
    [
        (4_000, 100, 1, True),
        (400_000, 40, 1, False),  # bytes: each record pays for a batch of its own
        (250_000, 40, 1000, True),
        (400_001, 0, 1, False),
    ],
)
def test_a_run_too_large_for_memory_is_refused(
    broker: EmbeddedBroker, records: int, size: int, batch: int, fits: bool
) -> None:
    """More than the broker keeps is refused with what to change; less is not."""
    if fits:
        broker.room_for(records, size, batch=batch)
    else:
        with pytest.raises(OrderkitError, match=r"fewer orders.*partitions.*ApacheBroker"):
            broker.room_for(records, size, batch=batch)


def test_the_limit_is_the_real_one() -> None:
    """Records up to the stated room are all kept, and a partition that gets twice as many has lost some."""
    size, batch = 1000, 100
    most = int(embedded.BYTE_LIMIT / (size + embedded.RECORD_BYTES + embedded.BATCH_BYTES / batch))
    with EmbeddedBroker({"orders": 1}) as broker:
        broker.room_for(most, size, batch=batch)
        with pytest.raises(OrderkitError):
            broker.room_for(most + 1, size, batch=batch)
        producer = broker.connection.producer(linger_ms=200, batch_num_messages=batch)
        for expected in (0, 1):
            for _ in range(most):
                producer.produce("orders", bytes(size))
            assert producer.flush(20) == 0
            first, after_last = broker.connection.watermarks("orders")[0]
            assert after_last == most * (expected + 1)
            assert (first > 0) == bool(expected)


def test_two_clusters_know_nothing_of_each_other() -> None:
    """Two brokers run side by side, each with its own topics and faults."""
    with EmbeddedBroker({"a": 1}) as one, EmbeddedBroker({"b": 1}, brokers=3) as other:
        one.down()
        assert deliver(other.connection.producer(), "b") is None
        assert set(other.connection.metadata().topics) == {"b"}
        assert len(other.connection.metadata().brokers) == 3


def test_a_closed_broker_says_that_it_is_closed(broker: EmbeddedBroker) -> None:
    """Closing twice is fine; every verb after it is one clear error, never a crash."""
    broker.close()
    broker.close()
    for verb in (
        broker.down,
        broker.up,
        lambda: broker.slow(1),
        lambda: broker.refuse("orders"),
        lambda: broker.accept("orders"),
        lambda: broker.fail_next(1),
        lambda: broker.create_topics({"new": 1}),
        lambda: broker.room_for(1, 1),
    ):
        with pytest.raises(OrderkitError, match="closed"):
            verb()
    assert "closed" in repr(broker)


SIGNALLED = """
import ctypes, os, pathlib, signal
from orderkit import EmbeddedBroker
signal.signal(signal.SIGUSR1, lambda *_: None)
broker = EmbeddedBroker()
named = {int(t): pathlib.Path(f"/proc/self/task/{t}/comm").read_text() for t in os.listdir("/proc/self/task")}
assert "rdk:mock\\n" in named.values(), named
for thread, name in named.items():
    if name.startswith("rdk:"):
        assert ctypes.CDLL(None).tgkill(os.getpid(), thread, signal.SIGUSR1) == 0
assert "orders" in broker.connection.metadata().topics
broker.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc names the threads")
def test_a_signal_ends_no_thread_of_the_cluster() -> None:
    """Ctrl-C, `kill` or a kernel's interrupt may meet any thread; the cluster still answers, and can be closed."""
    done = subprocess.run([sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_forgets_to_close_ends_in_silence() -> None:
    """Leaving the broker open at exit neither hangs, crashes nor prints."""
    program = "from orderkit.brokers import EmbeddedBroker as E; a = E(); b = E(brokers=3); c = a.connection.producer()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_its_functions_the_broker_still_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where librdkafka's functions are hidden there is a plain broker, which names the faults it lacks."""
    monkeypatch.setattr(_mock, "libraries", lambda: iter([Path("nowhere.so")]))
    with EmbeddedBroker() as broker:
        assert broker.missing_faults == ("refuse", "accept", "down", "up", "slow", "fail_next")
        assert len(broker.connection.partitions("orders")) == 4
        assert deliver(broker.connection.producer(), "orders", b"plain") is None
        assert read(broker.connection, "orders", 1) == [b"plain"]
        for verb in (broker.down, broker.up, lambda: broker.slow(1), lambda: broker.fail_next(1)):
            with pytest.raises(OrderkitError, match="confluent-kafka"):
                verb()
        with pytest.raises(OrderkitError, match="4 partitions only"):
            broker.create_topics({"wide": 8})
    with pytest.raises(OrderkitError, match="closed"):
        broker.create_topics({"late": 4})


def test_the_functions_are_found_beside_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client itself hides the functions, the library its wheel carries has them."""
    beside = list(_mock.libraries())[1:]
    if not beside:
        pytest.skip("this build of the client has everything in one file")
    monkeypatch.setattr(_mock, "libraries", lambda: iter(beside))
    with EmbeddedBroker() as broker:
        assert broker.missing_faults == ()
        assert deliver(broker.connection.producer(), "orders") is None
