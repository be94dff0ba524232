"""Records that nobody will ever read: the broker says that their transaction is over, and its end is not there.

Kafka 4.4 can lose it where a partition has no leader for a moment. That is the broker's fault, and no promise of a
delivery mode: a plan it happens to can neither be judged nor waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from orderkit.dead_letters import read_topic
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection

OFFSETS, TRANSACTIONS = "__consumer_offsets", "__transaction_state"
STATUS = 16  # which byte of a transaction's state it is: behind a version, the producer's id and epoch, a time-out
OVER = (0, 4, 5, 6)  # nothing in it yet, committed, aborted, forgotten; 1 is open, 2 and 3 are about to end
SURE = 5.0  # seconds: an end that is decided is written within one, once the broker is up
LOOK = 0.2  # seconds between two looks


class EndMissing(OrderkitError):
    """A transaction is over by the broker's own books, and its end is not in a topic."""


def hidden(connection: Connection, topics: Iterable[str]) -> set[tuple[str, int, int]]:
    """Give topic, partition and offset of the first record of each partition that a transaction hides.

    Raises:
        OrderkitError: no such topic, or the broker does not answer.
        KafkaException: it does not answer in time.
    """
    places = [TopicPartition(topic, number) for topic in topics for number in connection.partitions(topic)]
    # In this order: a transaction that ends between the two looks hides nothing.
    levels = IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED
    every, stable = (_ends(connection, places, level) for level in levels)
    return {
        (place.topic, place.partition, offset)
        for place, end, offset in zip(places, every, stable, strict=True)
        if offset < end
    }


def _ends(connection: Connection, places: list[TopicPartition], level: IsolationLevel) -> list[int]:
    admin = connection.admin()
    wanted = {place: OffsetSpec.latest() for place in places}  # type: ignore[no-untyped-call]
    found = admin.list_offsets(wanted, isolation_level=level, request_timeout=10)
    return [found[place].result().offset for place in places]


def in_transactions(connection: Connection) -> set[str]:
    """Name those transactional producers whose transaction is not over, by the broker's own books.

    Raises:
        OrderkitError: there has never been a transaction, or the broker does not answer.
    """
    states = {message.key(): message.value() for message in read_topic(connection, TRANSACTIONS)}
    # The key: a version and a length, two bytes each, and the transactional id.
    return {key[4:].decode() for key, value in states.items() if key and value and value[STATUS] not in OVER}


def check_ends(connection: Connection, topics: Iterable[str]) -> None:
    """Look whether what a transaction hides will ever be seen; say nothing when that cannot be told.

    Args:
        connection: the cluster.
        topics: where records of transactions are; the groups' offsets are looked at as well.

    Raises:
        EndMissing: for `SURE` seconds the same records were hidden, and no transaction was open that could hide them.
    """
    lost: set[tuple[str, int, int]] = set()
    with suppress(OrderkitError, KafkaException):  # the broker is away, or has never had a transaction
        lost = _lost(connection, [*topics, OFFSETS])
    for topic, partition, offset in sorted(lost)[:1]:
        raise EndMissing(
            f"The broker has lost the end of a transaction: by its books all are over, and {topic}[{partition}] stays "
            f"hidden from offset {offset} on. Start again with another broker."
        )


def _lost(connection: Connection, topics: Iterable[str]) -> set[tuple[str, int, int]]:
    begun, stuck = time.monotonic(), hidden(connection, topics)
    while stuck and time.monotonic() < begun + SURE:
        if in_transactions(connection):
            return set()
        time.sleep(LOOK)
        stuck &= hidden(connection, topics)
    return stuck
