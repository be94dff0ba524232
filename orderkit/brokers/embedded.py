"""A Kafka broker inside this process: librdkafka's mock cluster, which the Python client brings along.

It needs nothing, starts in milliseconds, serves every client of this machine, and breaks on request. It keeps
records in memory only, does not enforce transactions, and takes no commit while members join a group, so that what
was done since the last one is done again; for those there is `ApacheBroker`.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from ctypes import c_int
from typing import Any, Self

from confluent_kafka import KafkaError, Producer

from orderkit.brokers import _mock
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import DEAD_LETTERS, MOCK_PARTITIONS, ORDERS, Connection
from orderkit.kafka.names import MOST_AT_ONCE, PARTITIONS, check_count, check_seconds, check_topic

RECORD_LIMIT = 100_000  # batches the mock keeps per partition; a slow producer's batches hold one record
BYTE_LIMIT = 5 * 1024 * 1024  # bytes it keeps per partition; what is older is dropped without a word
BATCH_BYTES = 61  # Kafka's frame around a batch
RECORD_BYTES = 12  # and around each record in it, at the most for a small record without headers

DEFAULT_TOPICS = {ORDERS: 4, DEAD_LETTERS: 4}
CLIENT_SETTINGS = {
    "session.timeout.ms": "3000",  # the mock rebalances a second before this is over; by default after 44 s
    "heartbeat.interval.ms": "300",
}
MOST_BROKERS = 100  # each is a listener and some threads
EVERY_BROKER = -1
LEADERLESS = -1
FAULTS = ("refuse", "accept", "down", "up", "slow", "fail_next")


class EmbeddedBroker:
    """A Kafka cluster in this process. Keep a reference to it: without one it is gone.

    Args:
        topics: topics to create, name to number of partitions.
        brokers: how many brokers the cluster has.

    Raises:
        OrderkitError: the cluster cannot start.
    """

    kind = "embedded"

    def __init__(self, topics: Mapping[str, int] | None = None, brokers: int = 1) -> None:
        if isinstance(brokers, int) and brokers < 1:
            raise UsageError(f"brokers={brokers}: a cluster has at least one broker.")
        self._brokers = check_count("brokers", brokers, 1, MOST_BROKERS)
        self._lock = threading.Lock()  # a call must not meet `close` half way: C would follow a dead pointer
        self._partitions: dict[str, int] = {}
        self._library = _mock.load()
        self._cluster: int | None = None
        self._end: weakref.finalize[..., EmbeddedBroker]  # runs once: on `close`, when nobody refers to it, or at exit
        if self._library is None:
            with _mock.no_signals():
                producer = Producer({"test.mock.num.brokers": brokers, "log_level": 0})
            found = producer.list_topics(timeout=8).brokers.values()
            self.bootstrap = ",".join(f"{broker.host}:{broker.port}" for broker in found)
            self._end = weakref.finalize(self, _hold, producer)
        else:
            handle, self._cluster = _mock.start(self._library, brokers)
            self.bootstrap = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
            self._end = weakref.finalize(self, _mock.destroy, self._library, self._cluster, handle, os.getpid())
        self.connection = Connection(self.bootstrap, CLIENT_SETTINGS)
        try:
            self.create_topics(DEFAULT_TOPICS if topics is None else topics)
        except OrderkitError:
            self.close()
            raise

    @property
    def missing_faults(self) -> tuple[str, ...]:
        """The fault verbs that cannot be had: none, unless this build of the client hides librdkafka's functions."""
        return FAULTS if self._cluster is None else ()

    def create_topics(self, topics: Mapping[str, int]) -> None:
        """Create topics (name to number of partitions); those that exist stay as they are.

        Raises:
            OrderkitError: a name Kafka does not allow, or the broker is closed.
        """
        for name, partitions in topics.items():
            if isinstance(partitions, int) and partitions < 1:
                raise UsageError(f"Topic {name!r} with {partitions} partitions: a topic has at least one.")
            check_count(f"The number of partitions of {check_topic(name)}", partitions, 1, PARTITIONS)
            if name not in self._partitions:
                self._create(name, partitions)
                self._partitions[name] = partitions

    def _create(self, name: str, partitions: int) -> None:
        if self._cluster is None:
            self._create_by_asking(name, partitions)
            return
        replicas = min(3, self._brokers)
        code = self._call("topic_create", name.encode(), partitions, replicas)
        if code not in (KafkaError.NO_ERROR, KafkaError.TOPIC_ALREADY_EXISTS):
            raise OrderkitError(f"Topic {name!r} with {partitions} partitions: {KafkaError(code).str()}.")

    def _create_by_asking(self, name: str, partitions: int) -> None:
        self._must_be_open()
        if partitions != MOCK_PARTITIONS:
            raise OrderkitError(
                f"Topic {name!r}: this build of confluent-kafka makes embedded topics with {MOCK_PARTITIONS} "
                f"partitions only, not {partitions}. Ask for {MOCK_PARTITIONS}, or use ApacheBroker."
            )
        self.connection.admin().list_topics(topic=name, timeout=8)

    def refuse(self, topic: str, error: str = "TOPIC_AUTHORIZATION_FAILED") -> None:
        """Answer every use of `topic` with `error` until `accept`.

        Raises:
            UsageError: Kafka has no error of that name.
            OrderkitError: there is no such topic.
        """
        code = _code(error)
        partitions = self._partitions_of(topic)
        self._call("topic_set_error", topic.encode(), code)
        for partition in range(partitions):  # a client that knows the topic by heart must ask again, and meet the error
            self._call("partition_set_leader", topic.encode(), partition, LEADERLESS)

    def accept(self, topic: str) -> None:
        """Let `topic` be used again. Clients notice within a second or two."""
        partitions = self._partitions_of(topic)
        self._call("topic_set_error", topic.encode(), KafkaError.NO_ERROR)
        for partition in range(partitions):
            self._call("partition_set_leader", topic.encode(), partition, partition % self._brokers + 1)

    def _partitions_of(self, topic: str) -> int:
        self._must_be_open()
        if topic not in self._partitions:  # created by a client, not by this object
            self._partitions[topic] = len(self.connection.partitions(topic))
        return self._partitions[topic]

    def down(self) -> None:
        """Drop every connection and take no new ones; records are kept."""
        self._call("broker_set_down", EVERY_BROKER)

    def up(self) -> None:
        """Take connections again."""
        self._call("broker_set_up", EVERY_BROKER)

    def slow(self, milliseconds: int) -> None:
        """Take at least `milliseconds` for every answer; 0 is full speed."""
        if milliseconds < 0:
            raise UsageError(f"slow({milliseconds}): a delay cannot be negative.")
        check_seconds("A delay", milliseconds / 1000)
        self._call("broker_set_rtt", EVERY_BROKER, int(milliseconds))

    def fail_next(self, count: int, error: str = "NOT_ENOUGH_REPLICAS", request: str = "Produce") -> None:
        """Answer the next `count` requests of one kind with `error`. A later call replaces what is left of this one.

        Raises:
            UsageError: an error or a request that Kafka does not have, or a negative count.
        """
        if request not in _mock.REQUESTS:
            raise UsageError(f"There is no request {request!r}. Choose from: {', '.join(_mock.REQUESTS)}.")
        if count < 0:
            raise UsageError(f"fail_next({count}): a count cannot be negative.")
        check_count("count", count, 0, MOST_AT_ONCE)
        errors = (c_int * count)(*[_code(error)] * count)
        self._call("clear_request_errors", _mock.REQUESTS[request])
        if count:
            self._call("push_request_errors_array", _mock.REQUESTS[request], count, errors)

    def room_for(self, records: int, bytes_each: int, topic: str = ORDERS, batch: int = 1) -> None:
        """Make sure that the partitions of `topic` can keep `records`, evenly spread, with Kafka's framing around them.

        Args:
            records: how many are to be written.
            bytes_each: size of key, value and headers of one.
            topic: where to.
            batch: records that a producer sends together. 1 is the worst case: the frame is paid for each.

        Raises:
            OrderkitError: older records would be dropped without a word; says what to change.
        """
        partitions = self._partitions_of(topic)
        most = _most(bytes_each, batch)
        if math.ceil(records / partitions) > most:
            raise OrderkitError(
                f"The embedded broker keeps about {most * partitions:,} such records in {topic!r} "
                f"({partitions} partitions), not {records:,}. Send fewer orders, "
                f"give the topic {math.ceil(records / most)} partitions, or use ApacheBroker."
            )

    @staticmethod
    def room(bytes_each: int, partitions: int) -> int:
        """Say how many records of a size a topic can keep, though keys spread them a little unevenly.

        Args:
            bytes_each: size of key, value and headers of one.
            partitions: of the topic.
        """
        return int(0.9 * _most(bytes_each) * partitions)

    def close(self) -> None:
        """End the cluster and forget its records. A second call does nothing; the end of the program does it too."""
        with self._lock:
            self._end()

    def _must_be_open(self) -> None:
        if not self._end.alive:
            raise OrderkitError("This embedded broker is closed. Open a new one with EmbeddedBroker().")

    def _call(self, verb: str, *arguments: Any) -> Any:
        with self._lock:
            self._must_be_open()
            if self._library is None or self._cluster is None:
                raise OrderkitError(
                    "This build of confluent-kafka hides the functions that break the embedded broker. "
                    "Install its wheel with `pip install --force-reinstall --only-binary :all: confluent-kafka`."
                )
            function: Callable[..., Any] = getattr(self._library, f"rd_kafka_mock_{verb}")
            return function(self._cluster, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EmbeddedBroker({self.bootstrap}{'' if self._end.alive else ', closed'})"


def _most(bytes_each: int, batch: int = 1) -> int:
    """Say how many records of a size a partition keeps."""
    framed = bytes_each + RECORD_BYTES + BATCH_BYTES / batch
    return min(RECORD_LIMIT * batch, int(BYTE_LIMIT / framed))


def _code(error: str) -> int:
    code = getattr(KafkaError, error, None)
    if not isinstance(code, int) or code == KafkaError.NO_ERROR:
        raise UsageError(f"Kafka has no error {error!r}. Names are those of confluent_kafka.KafkaError.")
    return code


def _hold(producer: Producer) -> None:
    """Let the producer live until now; its cluster ends with it."""
    producer.flush(0)
