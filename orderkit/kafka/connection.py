"""Where Kafka is, and how this kit's clients are set up."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, ShareConsumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewTopic

from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka.asking import ask, comes_true
from orderkit.kafka.names import (
    PARTITIONS,
    check_address,
    check_config,
    check_count,
    check_group,
    check_seconds,
    check_topic,
)
from orderkit.kafka.reach import ask_for_brokers, check_advertised
from orderkit.kafka.settings import (
    CLIENT_SETTINGS,
    CONSUMER_SETTINGS,
    PRODUCER_SETTINGS,
    check_settings,
    for_share,
    merge,
    refusal,
)

log = logging.getLogger("orderkit.kafka")
log.addHandler(logging.NullHandler())  # librdkafka's lines reach whoever asks for them, and nobody else

ORDERS = "orders"
DEAD_LETTERS = "orders-dlq"
LOCALHOST = "localhost:9092"
MOCK_PARTITIONS = 4  # what the mock cluster gives a topic that is only asked for

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


def _logged(error: object) -> None:
    log.warning("%s", error)


@dataclass(frozen=True)
class Connection:
    """How to reach a Kafka cluster.

    Args:
        bootstrap: `host:port`, or several separated by commas.
        config: further librdkafka properties (TLS, SASL), as `read_properties` gives them.

    Raises:
        UsageError: no address, or a setting that the kit cannot work with.
    """

    bootstrap: str = LOCALHOST
    config: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a password

    def __post_init__(self) -> None:
        check_address(self.bootstrap)
        check_settings(check_config(self.config))

    def consumer(self, group: str, **settings: Any) -> Consumer:
        """Open a consumer of `group`; `settings` are librdkafka properties with `_` for `.`."""
        consumer: Consumer = self._client(Consumer, {**CONSUMER_SETTINGS, "group.id": check_group(group)}, settings)
        return consumer

    def share_consumer(self, group: str, **settings: Any) -> ShareConsumer:
        """Open a consumer of a share group; `settings` are librdkafka properties with `_` for `.`."""
        consumer: ShareConsumer = self._client(ShareConsumer, {"group.id": check_group(group)}, settings)
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
        ours = {"bootstrap.servers": self.bootstrap, **CLIENT_SETTINGS, "error_cb": _logged, **defaults}
        theirs = for_share(self.config) if kind is ShareConsumer else self.config
        conf = check_config(merge(ours, theirs, named))
        try:
            return kind(conf, logger=log)
        except (KafkaException, ValueError, TypeError) as error:
            raise UsageError(refusal(error)) from None

    def metadata(self, timeout: float = 8.0) -> ClusterMetadata:
        """Ask the cluster what it has.

        Args:
            timeout: seconds to wait for an answer.

        Raises:
            OrderkitError: nobody answers, with the ways to get a broker; or none can be reached where it says it is.
        """
        check_seconds("timeout", timeout)
        told: list[KafkaError] = []
        protocol = self.config.get("security.protocol")
        admin = self._client(AdminClient, {}, {"error_cb": told.append})
        found = ask_for_brokers(admin, timeout, self.bootstrap, protocol, told)
        places = [(broker.host, broker.port) for broker in found.brokers.values()]
        check_advertised(self.bootstrap, places, (protocol or "PLAINTEXT").upper())
        return found

    @property
    def is_embedded(self) -> bool:
        """Whether the cluster is librdkafka's mock: no admin requests, no enforced transactions."""
        return is_mock(self.metadata())

    def partitions(self, topic: str, option: str = "--topic") -> list[int]:
        """List the partitions of `topic`.

        Args:
            topic: its name.
            option: of the command line, that names such a topic: for the advice.

        Raises:
            UsageError: that is no name for a topic.
            OrderkitError: the topic does not exist.
        """
        check_topic(topic)
        found = self.metadata().topics.get(topic)
        if found is None:
            usual = topic == (ORDERS if option == "--topic" else DEAD_LETTERS)
            raise OrderkitError(
                f"Topic {topic!r} does not exist at {self.bootstrap}, or may not be seen. Create it with "
                f"`orderkit topics create{'' if usual else f' {option} {topic}'}`, or ask for the right to describe it."
            )
        return sorted(found.partitions)

    def check_partitions(self, count: int) -> None:
        """Make sure that a topic created from here would have so many partitions.

        Raises:
            OrderkitError: the embedded broker gives each the same number.
        """
        if check_count("The number of partitions", count, 1, PARTITIONS) != MOCK_PARTITIONS and self.is_embedded:
            raise OrderkitError(
                f"A topic with {count} partitions: the embedded broker gives {MOCK_PARTITIONS} to a topic that others "
                "create. Ask for as many, or use real Kafka (`orderkit broker --apache`)."
            )

    def create_topics(self, topics: Mapping[str, int], config: Mapping[str, str] | None = None) -> list[str]:
        """Create what is missing of `topics` (name to number of partitions); return the names created.

        Raises:
            UsageError: a name or a number that Kafka does not take.
            OrderkitError: the broker does not create one.
        """
        for name, count in topics.items():
            check_count(f"The number of partitions of {check_topic(name)}", count, 1, PARTITIONS)
        there = self.metadata()
        missing = {name: count for name, count in topics.items() if name not in there.topics}
        if not missing:
            return []
        admin = self.admin()
        if is_mock(there):
            for name in missing:
                admin.list_topics(topic=name, timeout=8)  # the mock creates a topic that is asked for
            return list(missing)
        new = [NewTopic(name, count, config=dict(config or {})) for name, count in missing.items()]
        for name, future in admin.create_topics(new).items():
            try:
                future.result()
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise OrderkitError(f"Topic {name!r} cannot be created: {error.args[0].str()}.") from None
        comes_true(lambda: missing.keys() <= self.metadata().topics.keys())
        return list(missing)

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete topics with all that is in them, and wait until they are gone.

        Raises:
            OrderkitError: the broker does not let us.
        """
        for name in names:
            check_topic(name)
        if not names:
            return
        admin = self.admin()
        for name, future in admin.delete_topics(list(names)).items():
            try:
                future.result()
            except KafkaException as error:
                raise OrderkitError(f"Topic {name!r} cannot be deleted: {error.args[0].str()}.") from None
        comes_true(lambda: self.metadata().topics.keys().isdisjoint(names))

    def watermarks(self, topic: str, option: str = "--topic") -> dict[int, tuple[int, int]]:
        """Give the first and the next offset of each partition of `topic`; `option` as in `partitions`."""
        numbers = self.partitions(topic, option)
        consumer = self.consumer("orderkit-watermarks")
        try:
            return {n: _ends(consumer, TopicPartition(topic, n)) for n in numbers}
        except KafkaException as error:
            raise OrderkitError(f"Topic {topic!r} cannot be read: {error.args[0].str()}.") from None
        finally:
            consumer.close()


def is_mock(cluster: ClusterMetadata) -> bool:
    """Whether a cluster that was asked is librdkafka's mock."""
    return str(cluster.cluster_id).startswith("mockCluster")


def _ends(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Ask for a partition's ends, and again while the broker is taking it over: it has just been started, say."""
    low, high = ask(
        lambda: consumer.get_watermark_offsets(partition, timeout=PATIENCE),
        PATIENCE,
        lambda error: error.code() in TAKING_OVER,
    )
    return low, high
