"""Where Kafka is, and this kit's clients: their settings, what Kafka takes for a name, and why nobody answers."""

from orderkit.kafka.connection import DEAD_LETTERS, LOCALHOST, MOCK_PARTITIONS, NOWHERE, ORDERS, Connection, is_mock
from orderkit.kafka.where import connect, named_broker

__all__ = [
    "DEAD_LETTERS",
    "LOCALHOST",
    "MOCK_PARTITIONS",
    "NOWHERE",
    "ORDERS",
    "Connection",
    "connect",
    "is_mock",
    "named_broker",
]
