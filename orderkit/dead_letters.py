"""Dead letters: written with their story and an acknowledgement, and read back.

Key, value and headers of the record stay byte for byte; the story goes into added headers, as UTF-8 text.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.progress import Checkpoint, History, Progress
from orderkit.retry import Reason, root_cause

log = logging.getLogger("orderkit")

PREFIX = "orderkit.dlq."
MESSAGE_LIMIT = 1_000  # characters of an exception's message; longer ones bloat every hop
PROBE = (1.0, 30.0)  # seconds until a refused dead letter is offered again: the first wait, and the longest
DLQ_CONFIG = {
    "retention.ms": "-1",  # a dead letter that expires before somebody looks is a second loss
    "max.message.bytes": str(16 * 1024 * 1024),  # the story needs room beside the largest record
}

Headers = list[tuple[str, str | bytes | None]]


def header_list(message: Message) -> Headers:
    """Give a record's headers as a list; a record without headers has an empty one."""
    return cast(Headers, list(message.headers() or []))


def story(message: Message, group: str, reason: Reason, error: BaseException, history: History) -> Headers:
    """Tell in headers where a record came from and why it was given up."""
    cause = root_cause(error)
    kind, timestamp = message.timestamp()
    told = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": "" if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        "group": group,
        "attempts": history.attempts,
        "reason": reason,
        "exception": f"{type(cause).__module__}.{type(cause).__qualname__}".removeprefix("builtins."),
        "message": str(cause)[:MESSAGE_LIMIT],
        "first-failure": int(history.since * 1000),
        "last-failure": int(time.time() * 1000),
    }
    return [(PREFIX + name, str(value).encode(errors="replace")) for name, value in told.items()]


@dataclass
class Letter:
    """A dead letter on its way: what to write, and the checkpoint that waits for it."""

    message: Message
    headers: Headers
    part: Progress
    checkpoint: Checkpoint
    refusals: int = 0
    due: float = 0.0


class DeadLetterWriter:
    """Writes dead letters and knows which of them the broker has acknowledged.

    `flush()` returning 0 proves nothing: only the delivery report does. A refused letter is kept and offered again.

    Args:
        connection: the cluster.
        topic: the dead-letter topic.
        group: the consumer group, named in the story.
    """

    def __init__(self, connection: Connection, topic: str, group: str) -> None:
        self.topic = topic
        self.group = group
        self.acknowledged = 0
        self.under_way = 0
        self.refused: deque[Letter] = deque()
        self.trouble: str | None = None
        self._producer: Producer = connection.producer(message_max_bytes=100_000_000)

    def send(self, message: Message, part: Progress, reason: Reason, error: BaseException, history: History) -> None:
        """Put a record on its way; its partition's checkpoint waits until it is acknowledged."""
        headers = header_list(message) + story(message, self.group, reason, error, history)
        self._produce(Letter(message, headers, part, part.expect_letter()))

    def _produce(self, letter: Letter) -> None:
        def delivered(error: object, _: Message) -> None:
            self.under_way -= 1
            if error is None:
                self._accept(letter)
            else:
                self._refuse(letter, error)

        message = letter.message
        self.under_way += 1
        try:
            self._producer.produce(
                self.topic, message.value(), message.key(), headers=letter.headers, on_delivery=delivered
            )
        except BufferError as error:  # the client's queue is full
            delivered(error, message)
        except KafkaException as error:  # the record is too large for the client, or the topic is refused at once
            delivered(error.args[0], message)

    def _accept(self, letter: Letter) -> None:
        self.acknowledged += 1
        letter.checkpoint.unacknowledged -= 1
        if letter.refusals:
            letter.part.refused -= 1
            self.trouble = self.trouble if self.refused else None

    def _refuse(self, letter: Letter, error: object) -> None:
        if letter.part.gone:
            return  # its new owner writes it
        if not letter.refusals:
            letter.part.refused += 1
        first, longest = PROBE
        letter.due = time.monotonic() + min(longest, first * 2.0 ** min(letter.refusals, 10))
        letter.refusals += 1
        self.refused.append(letter)
        told = error.str() if isinstance(error, KafkaError) else str(error)
        trouble = f"dead-letter topic {self.topic} refuses: {told}; {letter.part} waits, its offset stays"
        if self.trouble is None:
            log.warning("%s", trouble)
        self.trouble = trouble

    def serve(self, wait: float = 0.0) -> None:
        """Take in delivery reports for at most `wait` seconds, and offer refused letters again when they are due."""
        self._producer.poll(wait)
        for _ in range(len(self.refused)):
            letter = self.refused.popleft()
            if letter.due <= time.monotonic():
                self._produce(letter)
            else:
                self.refused.append(letter)

    def drain(self, deadline: float) -> None:
        """Wait until every letter under way is answered for, at most until `deadline` on the monotonic clock."""
        while self.under_way and time.monotonic() < deadline:
            self._producer.poll(0.05)

    def forget(self, part: Progress) -> None:
        """Drop the refused letters of a partition that is somebody else's now; its offset did not move."""
        part.gone = True
        self.refused = deque(letter for letter in self.refused if letter.part is not part)


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
