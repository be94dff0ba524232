"""Write the letters of an import with acknowledgement; its bookmark moves behind them, never before."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message

from orderkit.errors import OrderkitError
from orderkit.kafka import NOWHERE, Connection
from orderkit.kafka.settings import BULK_SETTINGS
from orderkit.letter_files.bookmark import Bookmark, Part, identity_of
from orderkit.letter_files.copies import LetterCopy, Portion

PATIENCE = 60.0  # seconds for an answer
ON_THE_WAY = 2  # portions that are not acknowledged yet; while one is answered the next is read
UNNOTED = ON_THE_WAY + 2  # portions that a killed import may have written and not noted, and one for edits in between
BY_KEY = -1
SETTINGS = {**BULK_SETTINGS, "compression_type": "lz4", "linger_ms": 50, "batch_size": 1_000_000}


class Shipment:
    """A portion on its way: what is not acknowledged yet, and the offset behind the last letter of each partition."""

    def __init__(self, portion: Portion) -> None:
        self.portion = portion
        self.left = 0
        self.marks: dict[Part, int] = {}
        self.error: str | None = None
        self.refused: Message | None = None

    def __call__(self, error: KafkaError | None, report: Message) -> None:
        """Take in the delivery report of one letter."""
        self.left -= 1
        offset = report.offset()
        if error is None and offset is not None:
            self.marks[report.topic() or "", report.partition() or 0] = offset + 1
        elif self.error is None:
            self.error, self.refused = NOWHERE if error is None else error.str(), report

    @property
    def number(self) -> int:
        """The line of the letter that was refused."""
        for letter in self.portion.letters:
            if self.refused is None or (letter.key, letter.value) == (self.refused.key(), self.refused.value()):
                return letter.number
        return self.portion.end


class Shipper:
    """Writes portions, in order.

    Args:
        connection: the cluster.
        bookmark: notes what is acknowledged.
        to: the topic for all; by default each letter goes to where it lay.
        by_key: choose partitions by key.
        refused: makes the error for a line that was not written, and why.
    """

    def __init__(
        self,
        connection: Connection,
        bookmark: Bookmark,
        to: str | None,
        by_key: bool,
        refused: Callable[[int, str], OrderkitError],
    ) -> None:
        self.written: Counter[str] = Counter()
        self.again = 0  # letters that were there already
        self._bookmark, self._to, self._by_key, self._refused = bookmark, to, by_key, refused
        self._producer = connection.producer(**SETTINGS)
        self._under_way: deque[Shipment] = deque()
        self._there, self._ends = bookmark.written(by_key)
        self._unnoted = UNNOTED if self._there else 0

    def send(self, portion: Portion) -> None:
        """Write a portion; earlier ones are noted as their acknowledgements come.

        Raises:
            OrderkitError: a letter was refused, or the broker does not answer.
        """
        self._under_way.append(self._produce(portion))
        if self._unnoted:  # an earlier import may have written some of these: they are noted together
            self._unnoted -= 1
            if not self._unnoted:
                self.finish()
            return
        while len(self._under_way) > ON_THE_WAY:
            self._settle()

    def finish(self) -> None:
        """Wait for all acknowledgements, and note them.

        Raises:
            OrderkitError: a letter was refused, or the broker does not answer.
        """
        if self._ends:
            marks = dict(self._ends)
            for shipment in self._under_way:
                self._await(shipment)
                marks |= shipment.marks
            if not self._under_way:
                return
            self._bookmark.save(self._under_way[-1].portion.end, marks)
            self._under_way.clear()
            self._there, self._ends, self._unnoted = Counter(), {}, 0
        while self._under_way:
            self._settle()

    def close(self) -> None:
        """Let go; what is not acknowledged is not noted."""
        self._producer.purge()
        self._producer.flush(1.0)

    def _produce(self, portion: Portion) -> Shipment:
        """Hand a portion to the client, without the letters that are there."""
        shipment, produce = Shipment(portion), self._producer.produce
        letters = [it for it in portion.letters if not self._is_there(it)] if self._there else portion.letters
        for letter in letters:
            partition = BY_KEY if self._by_key else letter.partition
            topic: Any = self._to or letter.topic
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    produce(
                        topic, letter.value, letter.key, partition, shipment, None, letter.timestamp, letter.headers
                    )
                    break
                except BufferError:  # the client's queue is full
                    if not self._producer.poll(0.1) and time.monotonic() > deadline:
                        raise self._refused(letter.number, "the broker takes nothing") from None
                except KafkaException as error:  # larger than the client sends, or the topic has gone
                    raise self._refused(letter.number, error.args[0].str()) from None
        shipment.left += len(letters)
        self.again += len(portion.letters) - len(letters)
        self.written.update([self._to] * len(letters) if self._to else (letter.topic for letter in letters))
        self._producer.poll(0)
        return shipment

    def _is_there(self, letter: LetterCopy) -> bool:
        found = identity_of(letter, self._to or letter.topic, self._by_key)
        if self._there[found] <= 0:
            return False
        self._there[found] -= 1
        return True

    def _await(self, shipment: Shipment) -> None:
        deadline = time.monotonic() + PATIENCE
        while shipment.left > 0 and shipment.error is None and time.monotonic() < deadline:
            self._producer.poll(0.05)
        if shipment.error is not None or shipment.left > 0:
            raise self._refused(shipment.number, shipment.error or "the broker does not answer")

    def _settle(self) -> None:
        shipment = self._under_way[0]
        self._await(shipment)
        self._under_way.popleft()
        self._bookmark.save(shipment.portion.end, shipment.marks)
