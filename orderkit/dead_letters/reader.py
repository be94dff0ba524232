"""Read dead letters back, whoever wrote them."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from confluent_kafka import Consumer, Message, TopicPartition

from orderkit.dead_letters.plans import find_plan
from orderkit.dead_letters.story import Headers, header_list
from orderkit.dead_letters.strangers import check_there, gone, known
from orderkit.dead_letters.times import whole
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection

BATCH = 2000  # records
HEAVY = 8 * 1024 * 1024  # bytes that a batch should not exceed
SILENT = 2.0  # seconds without a record after which it is asked whether the topic is still there
AHEAD = 8 * 1024  # KiB that the client fetches ahead
GONE = {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID", "INCONSISTENT_TOPIC_ID"}


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """A dead letter as read back.

    Args:
        topic, partition, offset: where it lies in the dead-letter topic.
        timestamp: when it was written there, in ms since 1970.
        key, value: the original bytes.
        headers: the original headers, and those that no dialect knows.
        story: what the added headers tell, in the names of `orderkit.dead_letters.dialects`.
        dialect: whose headers they are; "" for nobody known.
        first_origin: topic, partition and offset the record had first, before any replay.
        replays: how often it was replayed.
        original_value: what the value was before a replay mended it.
        notes: which headers are not what they should be, a line each.
        raw: all headers, as they lie there.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    story: dict[str, str]
    dialect: str = ""
    first_origin: tuple[str, int, int] = ("?", -1, -1)
    replays: int = 0
    original_value: bytes | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    raw: Headers = field(default_factory=list, repr=False)

    @property
    def origin(self) -> tuple[str, int, int]:
        """Topic, partition and offset the record came from last; of what nobody wrote down "?" and -1."""
        partition, offset = (whole(self.story.get(name)) for name in ("partition", "offset"))
        return (
            self.story.get("topic") or "?",
            -1 if partition is None else max(-1, partition),
            -1 if offset is None else max(-1, offset),
        )

    @property
    def place(self) -> str:
        """Where it lies, as `dlq show` takes it: PARTITION:OFFSET."""
        return f"{self.partition}:{self.offset}"

    @classmethod
    def of(cls, message: Message) -> DeadLetterRecord:
        """Take a record of a dead-letter topic apart."""
        headers = header_list(message)
        plan = find_plan(headers)
        mended = headers[plan.value][1] if plan.value >= 0 else None
        told, notes = plan.read(headers)
        return cls(
            message.topic() or "",
            message.partition() or 0,
            message.offset() or 0,
            message.timestamp()[1],
            message.key(),
            message.value(),
            [headers[i] for i in plan.kept],
            told,
            plan.dialect.name if plan.dialect else "",
            plan.origin(headers),
            plan.replay_count(headers),
            mended.encode() if isinstance(mended, str) else mended,
            notes,
            headers,
        )


def read_batches(
    connection: Connection,
    topic: str,
    timeout: float = 15.0,
    since: Mapping[int, int] | None = None,
    most: int = BATCH,
    only: Container[int] | None = None,
) -> Iterator[list[Message]]:
    """Yield all records that a topic holds now in batches, without joining a group; in order within a partition.

    Args:
        connection: the cluster.
        topic: its name.
        timeout: seconds without a record after which the broker is given up.
        since: the first offset wanted of a partition; by default the first there is.
        most: records in a batch.
        only: of these partitions; by default of all.

    Raises:
        OrderkitError: no such topic, or the broker stopped answering.
    """
    marks = connection.watermarks(topic, "--dlq-topic")
    marks = {number: ends for number, ends in marks.items() if only is None or number in only}
    starts = {number: max(low, (since or {}).get(number, low)) for number, (low, _) in marks.items()}
    ends = {number: high for number, (_, high) in marks.items() if high > starts[number]}
    if not ends:
        return
    consumer = connection.consumer(
        "orderkit-reader",
        isolation_level="read_committed",
        enable_partition_eof=True,
        queued_max_messages_kbytes=AHEAD,
    )
    try:
        consumer.assign([TopicPartition(topic, number, starts[number]) for number in ends])
        yield from _read_until(consumer, ends, topic, timeout, most)
    finally:
        consumer.close()


def _read_until(
    consumer: Consumer, ends: dict[int, int], topic: str, timeout: float, most: int
) -> Iterator[list[Message]]:
    heard, many = time.monotonic(), 1  # nobody knows how heavy they are
    look = heard + SILENT
    while ends:
        messages = consumer.consume(many, 0.05)
        now = time.monotonic()
        if messages:
            heard, many = now, min(most, _many(messages))
            look = now + SILENT
        elif now > heard + timeout:
            raise OrderkitError(f"Topic {topic} stopped answering. Is the broker still up? Try again.")
        elif now > look:
            look = now + SILENT
            check_there(consumer, topic)
        if wanted := _plainly_wanted(messages, ends) or _wanted(messages, ends, topic):
            yield wanted


def _many(messages: Sequence[Message]) -> int:
    """Say how many records like these a batch may have."""
    size = sum(map(len, filter(None, map(Message.value, messages))))
    return max(1, HEAVY * len(messages) // max(1, size))


def _plainly_wanted(messages: list[Message], ends: dict[int, int]) -> list[Message] | None:
    """Give a batch back that holds nothing but wanted records, as most do; `None` when it takes a closer look."""
    if any(map(Message.error, messages)):
        return None
    last = last_offsets(messages)
    if not all(number in ends and offset < ends[number] for number, offset in last.items()):
        return None
    for number, offset in last.items():
        if offset == ends[number] - 1:
            del ends[number]
    return messages


def _wanted(messages: list[Message], ends: dict[int, int], topic: str) -> list[Message]:
    wanted: list[Message] = []
    for message in messages:
        number, error = message.partition() or 0, message.error()
        if error and error.name() == "GROUP_AUTHORIZATION_FAILED":
            continue  # the client asks for its group, whose name is all that is needed here
        if error and error.name() in GONE:
            raise gone(topic)
        if error and error.name() != "_PARTITION_EOF":
            raise OrderkitError(f"Topic {topic} cannot be read: {error.str()}.")
        if number not in ends:
            continue
        if error or (message.offset() or 0) >= ends[number] - 1:
            del ends[number]
        if not error:
            wanted.append(message)
    return wanted


def last_offsets(messages: Sequence[Message]) -> dict[int, int]:
    """Give the last offset of each partition in a batch."""
    return dict(zip(map(Message.partition, messages), map(Message.offset, messages), strict=True))  # type: ignore[arg-type]


def read_topic(
    connection: Connection, topic: str, timeout: float = 15.0, since: Mapping[int, int] | None = None
) -> Iterator[Message]:
    """Yield all records that a topic holds now, without joining a group; arguments as for `read_batches`.

    Raises:
        OrderkitError: no such topic, or the broker stopped answering.
    """
    for messages in read_batches(connection, topic, timeout, since):
        yield from messages


def read_dead_letters(connection: Connection, topic: str, *, any_topic: bool = True) -> Iterator[DeadLetterRecord]:
    """Yield the dead letters that a topic holds now.

    Args:
        connection: the cluster.
        topic: its name.
        any_topic: yield what is there, even if nothing has a header of a known dialect.

    Raises:
        OrderkitError: no such topic, no dead letters, or the broker stopped answering.
    """
    letters = (DeadLetterRecord.of(message) for message in read_topic(connection, topic))
    return letters if any_topic else known(letters, topic)


def read_one(connection: Connection, topic: str, partition: int, offset: int) -> DeadLetterRecord | None:
    """Read one dead letter; `None` when there is none at that place.

    Raises:
        OrderkitError: no such topic, or the broker stopped answering.
    """
    low, high = connection.watermarks(topic, "--dlq-topic").get(partition, (0, 0))
    if not low <= offset < high:
        return None
    batches = read_batches(connection, topic, since={partition: offset}, only=[partition])
    for message in chain.from_iterable(batches):
        return DeadLetterRecord.of(message) if message.offset() == offset else None
    return None
