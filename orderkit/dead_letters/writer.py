"""Write dead letters, and know which of them the broker has acknowledged."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orderkit.dead_letters.story import Headers, header_list, story
from orderkit.kafka import Connection
from orderkit.progress import Checkpoint, History, Progress
from orderkit.retry import Reason

log = logging.getLogger("orderkit")

PROBE = (1.0, 30.0)  # seconds until a refused dead letter is offered again: the first wait, and the longest
DLQ_CONFIG = {
    "retention.ms": "-1",  # a dead letter that expires before somebody looks is a second loss
    "max.message.bytes": str(16 * 1024 * 1024),  # the story needs room beside the largest record
}


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
        """Take in delivery reports for at most `wait` seconds, and offer refused letters again when they are due.

        Those of a partition that is somebody else's now are dropped: its offset did not move.
        """
        self._producer.poll(wait)
        for _ in range(len(self.refused)):
            letter = self.refused.popleft()
            if letter.part.gone:
                continue
            if letter.due <= time.monotonic():
                self._produce(letter)
            else:
                self.refused.append(letter)

    def drain(self, deadline: float) -> None:
        """Wait until every letter under way is answered for, at most until `deadline` on the monotonic clock."""
        while self.under_way and time.monotonic() < deadline:
            self._producer.poll(0.05)
