"""How far an import is, in Kafka itself: its group's offsets in the targets, and the line in their metadata."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Self

from confluent_kafka import KafkaException, Message, TopicPartition

from orderkit.dead_letters.reader import last_offsets, read_batches
from orderkit.dead_letters.story import Headers, header_list
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.kafka.asking import Answer, ask
from orderkit.letter_files.copies import LetterCopy

PATIENCE = 30.0  # seconds for an answer
Part = tuple[str, int]  # a topic and one of its partitions


def identity(topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """Give what two letters have in common only if they are the same, but for the time at which they were written."""
    flat = [text.encode() if isinstance(text, str) else text for text in chain.from_iterable(headers)]
    parts = [topic.encode(), b"%d" % partition, key, value, *flat]
    sizes = ",".join("-" if part is None else str(len(part)) for part in parts).encode()
    return hashlib.blake2b(b"".join([sizes, b"|", *(part or b"" for part in parts)]), digest_size=16).digest()


class Bookmark:
    """Keeps how far an import is.

    For each partition of the targets it holds the offset behind the last letter that is known to be there; and once,
    how many lines are done. After a kill there may be more: `written` reads what lies behind those offsets.

    Args:
        connection: the cluster.
        group: whose offsets.
        targets: topic to its number of partitions.

    Raises:
        OrderkitError: the broker does not say where the group is.
    """

    def __init__(self, connection: Connection, group: str, targets: Mapping[str, int]) -> None:
        self.group, self.done = group, 0
        self._connection, self._targets = connection, targets
        self._consumer = connection.consumer(group)
        parts = [TopicPartition(topic, number) for topic, many in targets.items() for number in range(many)]
        self._marks: dict[Part, int] = {}
        for commit in self._patiently(lambda: self._consumer.committed(parts, timeout=PATIENCE)):
            if commit.offset >= 0:
                self._marks[commit.topic, commit.partition] = commit.offset
                self.done = max(self.done, _lines(commit.metadata))

    @property
    def is_new(self) -> bool:
        """Whether nobody has begun this import."""
        return not self._marks

    def _patiently(self, call: Callable[[], Answer]) -> Answer:
        """Call, and again while a broker that has just started looks for the group."""
        try:
            return ask(call, PATIENCE)
        except KafkaException as error:
            raise self._lost(error) from None

    def begin(self) -> None:
        """Note where the targets end before the first letter is written.

        Raises:
            OrderkitError: the broker does not keep it.
        """
        self.done = 0
        ends = {topic: self._connection.watermarks(topic, "--dlq-topic") for topic in self._targets}
        self.save(0, {(topic, number): high for topic, marks in ends.items() for number, (_, high) in marks.items()})

    def save(self, done: int, marks: Mapping[Part, int]) -> None:
        """Note that so many lines are done, and behind which offsets the next letters will be.

        Raises:
            OrderkitError: the broker does not keep it.
        """
        self.done = done
        self._marks |= marks
        text = json.dumps({"lines": done})
        offsets = [TopicPartition(*part, offset, text) for part, offset in self._marks.items()]
        kept = self._patiently(lambda: self._consumer.commit(offsets=offsets, asynchronous=False))
        if failed := [each.error for each in kept or () if each.error]:
            raise self._lost(KafkaException(failed[0]))

    def written(self, by_key: bool) -> tuple[Counter[bytes], dict[Part, int]]:
        """Count what lies behind the marks: letters that were written and not yet noted when an import was killed.

        Args:
            by_key: letters may lie in any partition.

        Returns:
            How often each identity lies there, and the offset behind the last one of each partition.
        """
        found, ends = Counter[bytes](), dict[Part, int]()
        for topic in self._targets:
            since = {number: offset for (name, number), offset in self._marks.items() if name == topic}
            for messages in read_batches(self._connection, topic, since=since):
                found.update(_identity_of(message, by_key) for message in messages)
                ends |= {(topic, number): offset + 1 for number, offset in last_offsets(messages).items()}
        return found, ends

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._consumer.close()

    def _lost(self, error: KafkaException) -> OrderkitError:
        return OrderkitError(
            f"The offsets of group {self.group} cannot be kept: {error.args[0].str()}. Is another import of this file "
            "at work? Run the same command again to go on."
        )


def _identity_of(message: Message, by_key: bool) -> bytes:
    partition = -1 if by_key else message.partition() or 0
    return identity(message.topic() or "", partition, message.key(), message.value(), header_list(message))


def identity_of(letter: LetterCopy, topic: str, by_key: bool) -> bytes:
    """Give a letter's identity as it will be in its target."""
    return identity(topic, -1 if by_key else letter.partition, letter.key, letter.value, letter.headers)


def _lines(metadata: str | None) -> int:
    try:
        return int(json.loads(metadata or "{}").get("lines", 0))
    except (ValueError, AttributeError, TypeError):  # somebody else's
        return 0
