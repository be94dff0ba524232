"""Read dead letters back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, Message, TopicPartition

from orderkit.dead_letters.story import PREFIX, Headers, header_list
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection


@dataclass(frozen=True)
class DeadLetterRecord:
    """A dead letter as read back.

    Args:
        topic, partition, offset: where it lies in the dead-letter topic.
        key, value: the original bytes.
        headers: the original headers.
        story: the added headers, names without their prefix.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    story: dict[str, str]

    @property
    def origin(self) -> tuple[str, int, int]:
        """Topic, partition and offset the record came from; ("?", -1, -1) when nobody wrote it down."""
        told = self.story
        try:
            return told["topic"], int(told["partition"]), int(told["offset"])
        except (KeyError, ValueError):
            return "?", -1, -1

    @classmethod
    def of(cls, message: Message) -> DeadLetterRecord:
        """Take a record of a dead-letter topic apart."""
        headers = header_list(message)
        told = {
            name.removeprefix(PREFIX): value.decode(errors="replace") if isinstance(value, bytes) else value or ""
            for name, value in headers
            if name.startswith(PREFIX)
        }
        kept = [(name, value) for name, value in headers if not name.startswith(PREFIX)]
        return cls(
            message.topic() or "",
            message.partition() or 0,
            message.offset() or 0,
            message.timestamp()[1],
            message.key(),
            message.value(),
            kept,
            told,
        )


def read_topic(connection: Connection, topic: str, timeout: float = 15.0) -> Iterator[Message]:
    """Yield all records that a topic holds now, partition by partition, without joining a group.

    Args:
        connection: the cluster.
        topic: its name.
        timeout: seconds without a record after which the broker is given up.

    Raises:
        OrderkitError: no such topic, or the broker stopped answering.
    """
    marks = connection.watermarks(topic)
    ends = {number: high for number, (low, high) in marks.items() if high > low}
    if not ends:
        return
    consumer = connection.consumer("orderkit-reader", isolation_level="read_committed", enable_partition_eof=True)
    try:
        consumer.assign([TopicPartition(topic, number, marks[number][0]) for number in ends])
        yield from _read_until(consumer, ends, topic, timeout)
    finally:
        consumer.close()


def _read_until(consumer: Consumer, ends: dict[int, int], topic: str, timeout: float) -> Iterator[Message]:
    deadline = time.monotonic() + timeout
    while ends:
        messages = consumer.consume(1000, 0.05)
        if messages:
            deadline = time.monotonic() + timeout
        elif time.monotonic() > deadline:
            raise OrderkitError(f"Topic {topic} stopped answering. Is the broker still up? Try again.")
        for message in messages:
            number, error = message.partition() or 0, message.error()
            if error and error.name() != "_PARTITION_EOF":
                raise OrderkitError(f"Topic {topic} cannot be read: {error.str()}.")
            if number not in ends:
                continue
            if error or (message.offset() or 0) >= ends[number] - 1:
                del ends[number]
            if not error:
                yield message


def read_dead_letters(connection: Connection, topic: str) -> Iterator[DeadLetterRecord]:
    """Yield the dead letters that a topic holds now.

    Raises:
        OrderkitError: no such topic, or the broker stopped answering.
    """
    return (DeadLetterRecord.of(message) for message in read_topic(connection, topic))
