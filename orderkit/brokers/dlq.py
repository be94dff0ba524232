"""The broker's side of a share group: how often it delivers, and where its own dead letters go (KIP-1191)."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from orderkit.dead_letters import DLQ_CONFIG
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.kafka.configs import GROUP, change_config, read_config
from orderkit.kafka.names import check_group, check_topic

LIMITS = (2, 10)  # deliveries: what Kafka allows as a group's limit
BROKER_DLQ = "errors.deadletterqueue.topic.name"  # of a group, KIP-1191
NEEDED = "Kafka 4.4 or newer"
# What brokers say to requests that they are too old for.
TOO_OLD = {
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.INVALID_REQUEST,
    KafkaError.INVALID_CONFIG,
}


def prepare(connection: Connection, group: str, max_attempts: int) -> str:
    """Let the broker count as many deliveries as the policy has attempts; return the group's own dead-letter topic.

    With a dead-letter topic of its own the broker gives up after `max_attempts` deliveries by itself. Without one it
    would drop the record then; so it is allowed one delivery more, in which this consumer writes the dead letter.
    """
    admin = connection.admin()
    try:
        broker_dlq = _dlq_of(admin, group)
        limit = max_attempts + (not broker_dlq)
        if not LIMITS[0] <= limit <= LIMITS[1]:
            raise UsageError(f"A share group counts {LIMITS[0]} to {LIMITS[1]} deliveries, and {limit} are wanted.")
        config = {"share.auto.offset.reset": "earliest", "share.delivery.count.limit": str(limit)}
        change_config(admin, GROUP, group, config)
    except KafkaException as error:
        told = error.args[0]
        hint = f" The broker may be too old: this needs {NEEDED}." if told.code() in TOO_OLD else ""
        raise OrderkitError(f"The share group cannot be set up: {told.str()}.{hint}") from None
    return broker_dlq


def _dlq_of(admin: AdminClient, group: str) -> str:
    """Ask for a share group's own dead-letter topic; there may be none.

    Raises:
        OrderkitError: the broker is too old.
        KafkaException: the broker does not tell.
    """
    there = read_config(admin, GROUP, group)
    if BROKER_DLQ not in there:
        raise OrderkitError(f"This broker has no dead-letter queues for share groups: {NEEDED} has them.")
    return there[BROKER_DLQ]


def use_broker_dlq(connection: Connection, group: str, topic: str, partitions: int) -> None:
    """Let the broker write a share group's dead letters, records included, to a topic of its own (KIP-1191).

    Args:
        connection: the cluster, Kafka 4.4 or newer.
        group: the share group.
        topic: where to; Kafka wants its name to begin with `dlq.`.
        partitions: of that topic, if it is not there yet.

    Raises:
        UsageError: the name is not one that Kafka takes, or the broker is the embedded one.
        OrderkitError: the broker cannot do it.
    """
    check_group(group)
    if not check_topic(topic, "broker's dead-letter topic").startswith("dlq."):
        raise UsageError(f"Kafka wants a broker's dead-letter topic to be called dlq.SOMETHING, not {topic!r}.")
    if connection.is_embedded:
        raise UsageError(f"The embedded broker has no share groups; this needs {NEEDED}.")
    admin = connection.admin()
    try:
        _dlq_of(admin, group)
        connection.create_topics({topic: partitions}, {**DLQ_CONFIG, "errors.deadletterqueue.group.enable": "true"})
        config = {BROKER_DLQ: topic, "errors.deadletterqueue.copy.record.enable": "true"}
        change_config(admin, GROUP, group, config)
    except KafkaException as error:
        raise OrderkitError(
            f"The broker does not dead-letter into {topic!r}: {error.args[0].str()}. {NEEDED} does."
        ) from None
