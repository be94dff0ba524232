"""Write dead letters, and know which of them the broker has acknowledged."""

from __future__ import annotations

import logging
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History
from orderkit.dead_letters.story import Headers, header_list, story
from orderkit.errors import OrderkitError
from orderkit.kafka import NOWHERE, Connection
from orderkit.members.stranded import Lookout, is_stranded
from orderkit.retry import Reason

log = logging.getLogger("orderkit")

PROBE = (1.0, 30.0)  # seconds until a refused dead letter is offered again: the first wait, and the longest
DLQ_CONFIG = {
    "retention.ms": "-1",  # a dead letter that expires before somebody looks is a second loss
    "max.message.bytes": str(16 * 1024 * 1024),  # the story needs room beside the largest record
}


@dataclass(slots=True)
class Letter:
    """A record on its way: what to write, and the checkpoint that waits for it."""

    topic: str
    message: Message
    headers: Headers
    part: Partition
    checkpoint: Checkpoint
    partition: int = -1  # by the key
    refusals: int = 0
    due: float = 0.0


class DeadLetterWriter:
    """Writes dead letters and knows which of them the broker has acknowledged.

    `flush()` returning 0 proves nothing: only the delivery report does. A refused letter is kept and offered again.

    Args:
        connection: the cluster.
        topic: the dead-letter topic.
        group: the consumer group, named in the story.
        producer: writes them; by default one of its own.

    Attributes:
        dialect: in whose headers the story is told; one of `WRITABLE`.
    """

    def __init__(self, connection: Connection, topic: str, group: str, producer: Producer | None = None) -> None:
        self.topic = topic
        self.group = group
        self.dialect = "orderkit"
        self.acknowledged = 0
        self.under_way = 0
        self.refused: deque[Letter] = deque()
        self.trouble: str | None = None
        self._lost = self._answered = False
        self._connection, self._lookout = connection, Lookout(connection, topic)
        self._is_ours = producer is None
        self.producer = producer or self._open()

    def _open(self) -> Producer:
        return self._connection.producer(message_max_bytes=100_000_000)

    def is_stranded(self) -> bool:
        """Find out whether the producer has lost all its brokers; takes some seconds when it has."""
        return is_stranded(self._connection, self.producer, self.topic)

    def replace(self, producer: Producer) -> None:
        """Go on with another producer; what the old one had under way is refused, and offered again."""
        self.producer.purge()
        with suppress(OrderkitError):  # it may be broken for good
            self.drain(time.monotonic() + 1.0)
        self.under_way, self._lost = 0, False
        self.producer = producer

    def send(self, message: Message, part: Partition, reason: Reason, error: BaseException, history: History) -> None:
        """Put a record on its way; its partition's checkpoint waits until it is acknowledged."""
        headers = header_list(message) + story(message, self.group, reason, error, history, self.dialect)
        self.write(self.topic, message, headers, part)

    def write(self, topic: str, message: Message, headers: Headers, part: Partition, partition: int = -1) -> None:
        """Put a record on its way to any topic, a retry topic, say; by default its key decides the partition."""
        self._produce(Letter(topic, message, headers, part, part.points.expect_ack(), partition))

    def _produce(self, letter: Letter) -> None:
        def delivered(error: object, report: Message) -> None:
            self.under_way -= 1
            if error is None and report.offset() is not None:
                self._accept(letter)
            else:
                self._refuse(letter, error or NOWHERE)

        message = letter.message
        self.under_way += 1
        try:
            self.producer.produce(
                letter.topic, message.value(), message.key(), letter.partition,
                headers=letter.headers, on_delivery=delivered,
            )  # fmt: skip
        except BufferError as error:  # the client's queue is full
            delivered(error, message)
        except KafkaException as error:  # the record is too large for the client, or the topic is refused at once
            delivered(error.args[0], message)

    def _accept(self, letter: Letter) -> None:
        self._answered = True
        self.acknowledged += letter.topic == self.topic
        letter.checkpoint.unacknowledged -= 1
        if letter.refusals:
            letter.part.refused -= 1
        if self.trouble and not self.refused:
            self.trouble = None

    def _refuse(self, letter: Letter, error: object) -> None:
        if letter.part.gone:
            return  # its new owner writes it
        told = error.str() if isinstance(error, KafkaError) else str(error)
        kind = "dead-letter" if letter.topic == self.topic else "retry"
        trouble = f"{kind} topic {letter.topic} refuses: {told}; {letter.part} waits, its offset stays"
        if self.trouble is None:
            log.warning("%s", trouble)
        self.trouble = trouble  # first: who sees, in another thread, that a letter was refused finds out why
        if not letter.refusals:
            letter.part.refused += 1
        first, longest = PROBE
        letter.due = time.monotonic() + min(longest, first * 2.0 ** min(letter.refusals, 10))
        letter.refusals += 1
        self.refused.append(letter)

    def serve(self, wait: float = 0.0) -> None:
        """Take in delivery reports for at most `wait` seconds, and offer refused letters again when they are due."""
        self._poll(wait)
        waiting = self.under_way or self.refused
        if self._is_ours and waiting and self._lookout.has_lost(self.producer):  # else who gave it gives another
            log.warning("the producer of dead letters has lost all its brokers; a new one is opened")
            self.replace(self._open())
        for _ in range(len(self.refused)):
            letter = self.refused.popleft()
            if letter.due <= time.monotonic():
                self._produce(letter)
            else:
                self.refused.append(letter)

    def drain(self, deadline: float) -> None:
        """Wait until every letter under way is answered for, at most until `deadline` on the monotonic clock."""
        while self.under_way and not self._lost and time.monotonic() < deadline:
            self._poll(0.05)

    def _poll(self, wait: float) -> None:
        if self._lost:
            return
        try:
            self.producer.poll(wait)
            if self._answered:
                self._answered = False
                self._lookout.heard()
        except KafkaException as error:  # fatal for this client: what is under way stays unacknowledged
            self._lost = True
            raise OrderkitError(
                f"Dead-letter topic {self.topic!r} cannot be written: {error.args[0].str()}. "
                "Ask for the right to write to it; the offsets stay where they are."
            ) from None

    def close(self) -> None:
        """End the producer and its connections; what it has under way stays unacknowledged."""
        self._lost = True
        vars(self).pop("producer", None)  # else it would live until Python collects what refers to itself

    def forget(self, part: Partition) -> None:
        """Drop the refused letters of a partition that is somebody else's now; its offset did not move."""
        part.gone = True
        self.refused = deque(letter for letter in self.refused if letter.part is not part)
