"""Where Kafka is, and how this kit's clients are set up."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewTopic

from orderkit.errors import OrderkitError, UsageError
from orderkit.properties import bare, is_text, read_properties

log = logging.getLogger("orderkit.kafka")
log.addHandler(logging.NullHandler())  # librdkafka's lines reach whoever asks for them, and nobody else

ORDERS = "orders"
DEAD_LETTERS = "orders-dlq"
LOCALHOST = "localhost:9092"

# After a topic was deleted and made anew a client may take a record of its own for a duplicate of what it wrote before,
# and report it as acknowledged. Such a report names no offset, and the record is in no topic.
NOWHERE = "acknowledged without an offset"
PATIENCE = 8.0  # seconds for a question about one partition
# A broker that has just been started, or made the leader, answers so for a moment.
TAKING_OVER = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
}

CLIENT_SETTINGS: dict[str, int | str] = {
    "log_level": 3,
    "socket.timeout.ms": 10_000,
    "reconnect.backoff.max.ms": 2000,  # default 10,000: a broker that is back would be found so late
    # After an outage a client that asks for its first brokers anew may wait for its group for ever (librdkafka #5511).
    "metadata.recovery.strategy": "none",
}
CONSUMER_SETTINGS = {
    "enable.auto.commit": False,  # the kit commits offset and average together
    "session.timeout.ms": 10_000,  # default 45,000: a killed member would keep its partitions for so long
    "auto.offset.reset": "earliest",  # a new group accounts for every order there is
    "fetch.queue.backoff.ms": 10,  # default 1,000: a fast consumer would idle for most of each second
    "fetch.wait.max.ms": 100,  # a slow topic answers within a tenth of a second
    "queued.min.messages": 20_000,  # default 100,000 for each partition: 30 MB more, and no faster
}
PRODUCER_SETTINGS = {
    "enable.idempotence": True,  # a resend after a lost answer is written once (KIP-98)
    "linger.ms": 5,  # short enough for one order every 2 s, long enough to fill batches
    "message.timeout.ms": 30_000,
}


def _logged(error: object) -> None:
    log.warning("%s", error)


@dataclass(frozen=True)
class Connection:
    """How to reach a Kafka cluster.

    Args:
        bootstrap: `host:port`, or several separated by commas.
        config: further librdkafka properties (TLS, SASL), as `read_properties` gives them.
    """

    bootstrap: str = LOCALHOST
    config: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a password

    def consumer(self, group: str, **settings: Any) -> Consumer:
        """Open a consumer of `group`; `settings` are librdkafka properties with `_` for `.`."""
        consumer: Consumer = self._client(Consumer, {**CONSUMER_SETTINGS, "group.id": group}, settings)
        return consumer

    def producer(self, **settings: Any) -> Producer:
        """Open a producer; `settings` are librdkafka properties with `_` for `.`."""
        producer: Producer = self._client(Producer, PRODUCER_SETTINGS, settings)
        return producer

    def admin(self) -> AdminClient:
        """Open an admin client. Keep it until its futures are done: they die with it."""
        admin: AdminClient = self._client(AdminClient, {}, {})
        return admin

    def _client(self, kind: Any, defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        named = {name if callable(value) else name.replace("_", "."): value for name, value in settings.items()}
        conf = {
            "bootstrap.servers": self.bootstrap,
            **CLIENT_SETTINGS,
            "error_cb": _logged,
            **defaults,
            **self.config,
            **named,
        }
        for name, value in conf.items():
            if isinstance(value, str) and not is_text(value):
                raise UsageError(f"{name} {value!r} is no text. Write it in UTF-8.")  # the client would abort us
        try:
            return kind(conf, logger=log)
        except KafkaException as error:
            raise UsageError(f"Kafka client settings: {error.args[0].str()}. Check --command-config.") from None

    def metadata(self, timeout: float = 8.0) -> ClusterMetadata:
        """Ask the cluster what it has.

        Args:
            timeout: seconds to wait for an answer.

        Raises:
            OrderkitError: nobody answers, with the ways to get a broker.
        """
        told: list[KafkaError] = []
        admin = self._client(AdminClient, {}, {"error_cb": told.append})
        try:
            found: ClusterMetadata = admin.list_topics(timeout=timeout)
        except KafkaException:
            if refused := [error for error in told if error.code() == KafkaError._AUTHENTICATION]:
                raise OrderkitError(
                    f"The broker at {self.bootstrap} refuses this user or password: {refused[0].str()}. "
                    "Check --command-config."
                ) from None
            raise OrderkitError(
                f"No Kafka broker answers at {self.bootstrap}. Start one with `orderkit broker` or "
                "`docker compose up`, or name yours with --bootstrap-server HOST:PORT "
                "(and --command-config FILE if it wants TLS or a password)."
            ) from None
        return found

    @property
    def is_embedded(self) -> bool:
        """Whether the cluster is librdkafka's mock: no admin requests, no enforced transactions."""
        return str(self.metadata().cluster_id).startswith("mockCluster")

    def partitions(self, topic: str) -> list[int]:
        """List the partitions of `topic`.

        Raises:
            OrderkitError: the topic does not exist.
        """
        found = self.metadata().topics.get(topic)
        if found is None:
            raise OrderkitError(
                f"Topic {topic!r} does not exist at {self.bootstrap}, or may not be seen. "
                "Create it with `orderkit topics create`, or ask for the right to describe it."
            )
        return sorted(found.partitions)

    def create_topics(self, topics: Mapping[str, int], config: Mapping[str, str] | None = None) -> list[str]:
        """Create what is missing of `topics` (name to number of partitions); return the names created."""
        there = self.metadata().topics
        missing = {name: count for name, count in topics.items() if name not in there}
        admin = self.admin()
        if self.is_embedded:
            for name in missing:
                admin.list_topics(topic=name, timeout=8)  # the mock creates a topic that is asked for
            return list(missing)
        new = [NewTopic(name, count, config=dict(config or {})) for name, count in missing.items()]
        for name, future in admin.create_topics(new).items() if new else ():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise OrderkitError(f"Topic {name!r} cannot be created: {error.args[0].str()}.") from None
        self._await_topics(missing)
        return list(missing)

    def _await_topics(self, names: Iterable[str], timeout: float = 10.0) -> None:
        """Wait until the brokers know new topics; they hear of them a moment after the controller has said yes."""
        deadline = time.monotonic() + timeout
        while set(names) - set(self.metadata().topics) and time.monotonic() < deadline:
            time.sleep(0.02)

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete topics with all that is in them.

        Raises:
            OrderkitError: the broker does not let us.
        """
        admin = self.admin()
        for name, future in admin.delete_topics(list(names)).items() if names else ():
            try:
                future.result()
            except KafkaException as error:
                raise OrderkitError(f"Topic {name!r} cannot be deleted: {error.args[0].str()}.") from None

    def watermarks(self, topic: str) -> dict[int, tuple[int, int]]:
        """Give the first and the next offset of each partition of `topic`."""
        numbers = self.partitions(topic)
        consumer = self.consumer("orderkit-watermarks")
        try:
            return {n: _ends(consumer, TopicPartition(topic, n)) for n in numbers}
        except KafkaException as error:
            raise OrderkitError(f"Topic {topic!r} cannot be read: {error.args[0].str()}.") from None
        finally:
            consumer.close()


def _ends(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Ask for a partition's ends, and again while the broker is taking it over: it has just been started, say."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, timeout=PATIENCE)
        except KafkaException as error:
            if error.args[0].code() not in TAKING_OVER or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return low, high


def named_broker() -> str | None:
    """Give the address in `KAFKA_BOOTSTRAP_SERVERS`, if there is one."""
    return bare(os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")) or None


def connect(bootstrap: str | None = None, properties: str | Path | None = None) -> Connection:
    """Make a `Connection` from a flag, else `KAFKA_BOOTSTRAP_SERVERS`, else the file, else `localhost:9092`.

    Args:
        bootstrap: `host:port`, as `--bootstrap-server` has it.
        properties: a Kafka client properties file, as `--command-config` has it.

    Raises:
        UsageError: the file cannot be read or holds what librdkafka does not know.
    """
    config = read_properties(Path(properties)) if properties else {}
    in_file = config.pop("bootstrap.servers", None)
    address = bare(bootstrap or "") or named_broker() or in_file or LOCALHOST
    address = re.sub(r"\s*,\s*", ",", address)
    if not all(re.fullmatch(r"[^\s:,]+:\d{1,5}|\[[^\]]+\]:\d{1,5}", part) for part in address.split(",")):
        raise UsageError(f"{address!r} is not a Kafka address. Write HOST:PORT, as in {LOCALHOST}.")
    return Connection(address, config)
