"""Write replayed records, and move the replay's offsets behind their acknowledgements."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.kafka.asking import Answer, ask
from orderkit.kafka.settings import BULK_SETTINGS
from orderkit.replay.batch import Outgoing
from orderkit.replay.claims import RENEWED, SECOND_LOOK, Claim, refuse_others
from orderkit.replay.positions import Position
from orderkit.replay.shipment import LARGE, TOO_LARGE, Shipment

PATIENCE = 30.0  # seconds for an answer
ON_THE_WAY = 2  # shipments that are not acknowledged yet; while one is answered the next is written

Positions = Mapping[int, Position]


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
        self.acknowledged = 0
        self.refused: list[Outgoing] = []
        self._again: defaultdict[int, set[int]] = defaultdict(set)
        self._claim = Claim()
        self._under_way: deque[Shipment] = deque()
        self._noted: dict[int, Position] = {}
        self._noted_at = 0.0
        self._connection, self._opened = connection, list[Producer]()
        # For a first look: a transaction that a killed replay has left open hides nothing.
        self._offsets = connection.consumer(group, isolation_level="read_uncommitted")

    def positions(self, marks: Mapping[int, tuple[int, int]]) -> dict[int, Position]:
        """Read how far the group is.

        Args:
            marks: the first and the next offset of each partition.

        Raises:
            OrderkitError: the broker does not say.
        """
        wanted = [TopicPartition(self.source, number) for number in marks]
        commits = self._ask(lambda: self._offsets.committed(wanted, timeout=PATIENCE))
        return {it.partition: Position.from_commit(it, marks[it.partition][0]) for it in commits}

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        """Ask for the group, and again while the brokers decide who has it."""
        try:
            return ask(call, PATIENCE)
        except KafkaException as error:
            raise self._no_offsets(error.args[0]) from None

    def begin(self, marks: Mapping[int, tuple[int, int]]) -> dict[int, Position]:
        """Claim the partitions; give how far the group is.

        Raises:
            OrderkitError: somebody else is at work on one of them, or the broker does not let us.
        """
        refuse_others(self.group, (it.claim for it in self.positions(marks).values()), self._claim)
        self._opened.append(self._open(self._connection))  # this ends what a killed replay has left open
        self._offsets.close()
        self._offsets = self._connection.consumer(self.group)  # from now on nothing may be undecided
        self._claim.enter()
        claimed = {number: replace(it, claim=self._claim) for number, it in self.positions(marks).items()}
        self._commit(claimed)
        self._note(claimed, 0)
        time.sleep(SECOND_LOOK)
        found = self.positions(marks)
        refuse_others(self.group, (it.claim for it in found.values()), self._claim)
        return found

    def _open(self, connection: Connection) -> Producer:
        return connection.producer(**BULK_SETTINGS)

    @property
    def producer(self) -> Producer:
        """What writes; `begin` opens it."""
        return self._opened[0]

    def send(self, outgoing: Sequence[Outgoing], positions: Positions) -> None:
        """Write records; once they are acknowledged, `positions` are committed.

        Raises:
            OrderkitError: the broker refused a record, or an offset.
        """
        shipment = Shipment(outgoing, positions)
        self._under_way.append(shipment)
        self._produce(outgoing, shipment)
        while len(self._under_way) > ON_THE_WAY:
            self._settle()

    def finish(self) -> None:
        """Wait for all acknowledgements, commit, and give the claim back.

        Raises:
            OrderkitError: the broker refused a record, or an offset.
        """
        while self._under_way:
            self._settle()
        self._commit({number: replace(it, claim=None) for number, it in self._noted.items()})

    def renew(self) -> None:
        """Renew the claim when nothing else has done it for a while.

        Raises:
            OrderkitError: the broker refused it.
        """
        if time.monotonic() - self._noted_at > RENEWED:
            self._commit(self._noted)
            self._noted_at = time.monotonic()

    def close(self) -> None:
        """Let go; what is not acknowledged is not committed."""
        for producer in self._opened:
            producer.purge()
            producer.flush(1.0)
        self._claim.leave()
        self._offsets.close()

    def _produce(self, outgoing: Sequence[Outgoing], shipment: Shipment) -> None:
        producer = self.producer
        produce, again = producer.produce, 0
        deadline = time.monotonic() + PATIENCE
        for record in outgoing:
            topic, value, key, partition, headers, _ = record
            told: Callable[..., None] = shipment
            if value is not None and len(value) > LARGE:
                told = shipment.report_for(record)
            while True:
                try:
                    produce(topic, value, key, partition, headers=headers, on_delivery=told)
                    break
                except BufferError:  # the client's queue is full
                    again = producer.poll(0.1)
                    deadline = time.monotonic() + PATIENCE if again else deadline
                    if time.monotonic() > deadline:
                        raise self._unwritten(f"topic {topic} takes nothing") from None
                except KafkaException as error:  # larger than the client sends, or the topic has gone
                    if error.args[0].code() != TOO_LARGE or told is shipment:
                        raise self._unwritten(error.args[0].str()) from None
                    told(error.args[0], None)
                    break
        producer.poll(0)

    def _settle(self) -> None:
        """Wait for the oldest shipment, and commit its positions; what was refused stays behind them."""
        shipment = self._under_way[0]
        deadline = time.monotonic() + 2 * PATIENCE
        while shipment.left and shipment.error is None and time.monotonic() < deadline:
            self.producer.poll(0.05)
        if shipment.error is not None or shipment.left:
            told = (
                shipment.error.str() if isinstance(shipment.error, KafkaError) else str(shipment.error or "no answer")
            )
            raise self._unwritten(told)
        self._refuse(shipment.refused)
        settled = self._settled(shipment)
        self._commit(settled)
        self._note(settled, shipment.many - len(shipment.refused))
        self._under_way.popleft()

    def _settled(self, shipment: Shipment) -> dict[int, Position]:
        """Say where the group is once a shipment has arrived: what was refused stays behind."""
        return {
            number: Position(it.next, it.stay | self._again[number], self._claim)
            for number, it in shipment.positions.items()
        }

    def _refuse(self, records: Sequence[Outgoing]) -> None:
        """Leave what its target does not take for the next replay."""
        self.refused += records
        for *_, message in records:
            self._again[message.partition() or 0].add(message.offset() or 0)

    def _to_offsets(self, positions: Positions) -> list[TopicPartition]:
        commits = [(number, *position.to_commit()) for number, position in positions.items()]
        return [TopicPartition(self.source, number, offset, text) for number, offset, text in commits]

    def _commit(self, positions: Positions) -> None:
        offsets = self._to_offsets(positions)
        done = self._ask(lambda: self._offsets.commit(offsets=offsets, asynchronous=False)) if offsets else []
        if failed := [it.error for it in done or () if it.error]:
            raise self._no_offsets(failed[0])

    def _note(self, positions: Positions, many: int) -> None:
        """Note what the group has committed, and how many records have arrived since."""
        self._noted |= positions
        self.acknowledged += many
        self._noted_at = time.monotonic()

    def _unwritten(self, told: str) -> OrderkitError:
        return OrderkitError(
            f"A record could not be written: {told}. What was acknowledged is noted; "
            "run the same command again to go on."
        )

    def _no_offsets(self, error: KafkaError) -> OrderkitError:
        return OrderkitError(
            f"The offsets of group {self.group} cannot be kept: {error.str()}. "
            "Is another replay of this group at work? Run the same command again to go on."
        )
