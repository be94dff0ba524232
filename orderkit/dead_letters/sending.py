"""Write replayed records, and move the replay's offsets behind their acknowledgements."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from orderkit.dead_letters.batch import Outgoing
from orderkit.dead_letters.positions import Position
from orderkit.errors import OrderkitError
from orderkit.kafka import NOWHERE, Connection
from orderkit.kafka.transactions import insist, no_transactions

PATIENCE = 30.0  # seconds for an answer
ON_THE_WAY = 2  # shipments that are not acknowledged yet; while one is answered the next is written
PRODUCER_SETTINGS = {
    "message_max_bytes": 100_000_000,
    "queue_buffering_max_messages": 500_000,
    "queue_buffering_max_kbytes": 512 * 1024,
    "linger_ms": 20,
}


class Shipment:
    """Records on their way, and the offsets that wait for them."""

    def __init__(self, many: int, offsets: list[TopicPartition]) -> None:
        self.left = many
        self.offsets = offsets
        self.error: object = None

    def __call__(self, error: object, report: Message) -> None:
        """Take in the delivery report of one record."""
        self.left -= 1
        if error is not None or report.offset() is None:
            self.error = error or NOWHERE


class Sender:
    """Writes records with acknowledgement; the group's offsets follow, never before.

    Args:
        connection: the cluster.
        source: the dead-letter topic.
        group: whose offsets say how far the replay is.
        first: the first partition it is for; tells the processes of one replay apart.
    """

    def __init__(self, connection: Connection, source: str, group: str, first: int = 0) -> None:
        self.source, self.group, self.first = source, group, first
        self.committed = 0
        self._under_way: deque[Shipment] = deque()
        self._offsets = connection.consumer(group)
        self._producer = self._open(connection)

    def _open(self, connection: Connection) -> Producer:
        return connection.producer(**PRODUCER_SETTINGS)

    def positions(self, marks: Mapping[int, tuple[int, int]]) -> dict[int, Position]:
        """Read how far the group is.

        Args:
            marks: the first and the next offset of each partition.

        Raises:
            OrderkitError: the broker does not say.
        """
        wanted = [TopicPartition(self.source, number) for number in marks]
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                commits = self._offsets.committed(wanted, timeout=PATIENCE)
            except KafkaException as error:  # a broker that has just started looks for the group
                if time.monotonic() > deadline or not error.args[0].retriable():
                    raise self._no_offsets(error.args[0]) from None
                time.sleep(0.1)
            else:
                return {it.partition: Position.from_commit(it, marks[it.partition][0]) for it in commits}

    def send(self, outgoing: Sequence[Outgoing], positions: Mapping[int, Position]) -> None:
        """Write records; once they are acknowledged, `positions` are committed.

        Raises:
            OrderkitError: the broker refused a record, or an offset.
        """
        shipment = Shipment(len(outgoing), self._to_offsets(positions))
        self._under_way.append(shipment)
        self._produce(outgoing, shipment)
        while len(self._under_way) > ON_THE_WAY:
            self._settle()

    def finish(self) -> None:
        """Wait for all acknowledgements, and commit.

        Raises:
            OrderkitError: the broker refused a record, or an offset.
        """
        while self._under_way:
            self._settle()

    def close(self) -> None:
        """Let go; what is not acknowledged is not committed."""
        self._producer.purge()
        self._producer.flush(1.0)
        self._offsets.close()

    def _to_offsets(self, positions: Mapping[int, Position]) -> list[TopicPartition]:
        commits = [(number, *position.to_commit()) for number, position in positions.items()]
        return [TopicPartition(self.source, number, offset, text) for number, offset, text in commits]

    def _produce(self, outgoing: Sequence[Outgoing], shipment: Shipment) -> None:
        produce, again = self._producer.produce, 0
        deadline = time.monotonic() + PATIENCE
        for topic, value, key, partition, headers in outgoing:
            while True:
                try:
                    produce(topic, value, key, partition, headers=headers, on_delivery=shipment)
                    break
                except BufferError:  # the client's queue is full
                    again = self._producer.poll(0.1)
                    deadline = time.monotonic() + PATIENCE if again else deadline
                    if time.monotonic() > deadline:
                        raise self._refused(f"topic {topic} takes nothing") from None
                except KafkaException as error:  # larger than the client sends, or the topic has gone
                    raise self._refused(error.args[0].str()) from None
        self._producer.poll(0)

    def _settle(self) -> None:
        """Wait for the oldest shipment, and commit its offsets."""
        shipment = self._under_way[0]
        deadline = time.monotonic() + 2 * PATIENCE
        while shipment.left and shipment.error is None and time.monotonic() < deadline:
            self._producer.poll(0.05)
        if shipment.error is not None or shipment.left:
            told = (
                shipment.error.str() if isinstance(shipment.error, KafkaError) else str(shipment.error or "no answer")
            )
            raise self._refused(told)
        self._commit(shipment.offsets)
        self._under_way.popleft()

    def _commit(self, offsets: list[TopicPartition]) -> None:
        try:
            done: Any = self._offsets.commit(offsets=offsets, asynchronous=False) if offsets else []
        except KafkaException as error:
            raise self._no_offsets(error.args[0]) from None
        if failed := [it.error for it in done or () if it.error]:
            raise self._no_offsets(failed[0])
        self.committed += 1

    def _refused(self, told: str) -> OrderkitError:
        return OrderkitError(
            f"A record could not be written: {told}. What was acknowledged is noted; "
            "run the same command again to go on."
        )

    def _no_offsets(self, error: KafkaError) -> OrderkitError:
        return OrderkitError(
            f"The offsets of group {self.group} cannot be kept: {error.str()}. "
            "Is another replay of this group at work? Run the same command again to go on."
        )


class TransactionalSender(Sender):
    """Writes records and offsets in one transaction: what a crash interrupts never happened."""

    def _open(self, connection: Connection) -> Producer:
        producer = connection.producer(**PRODUCER_SETTINGS, transactional_id=f"{self.group}.{self.first}")
        try:
            insist(producer.init_transactions)
        except KafkaException as error:
            raise no_transactions(error.args[0], f"{self.group}.") from None
        return producer

    def send(self, outgoing: Sequence[Outgoing], positions: Mapping[int, Position]) -> None:
        """Write records and offsets as one transaction.

        Raises:
            OrderkitError: the transaction failed; nothing of it is to be seen.
        """
        offsets = self._to_offsets(positions)
        shipment = Shipment(len(outgoing), offsets)
        try:
            self._producer.begin_transaction()
            self._produce(outgoing, shipment)
            insist(self._producer.send_offsets_to_transaction, offsets, self._offsets.consumer_group_metadata())
            insist(self._producer.commit_transaction)
        except KafkaException as error:
            self._abort()
            raise self._refused(error.args[0].str()) from None
        except OrderkitError:
            self._abort()
            raise
        self.committed += 1

    def _abort(self) -> None:
        with suppress(KafkaException):  # a newer replay has taken over, or the broker ends it after its time-out
            insist(self._producer.abort_transaction)
