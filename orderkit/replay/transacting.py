"""Write replayed records and the replay's offsets in one transaction (KIP-98)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from confluent_kafka import KafkaException, Producer

from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.kafka.settings import BULK_SETTINGS
from orderkit.kafka.transactions import insist, no_transactions
from orderkit.replay.batch import Outgoing
from orderkit.replay.sending import Positions, Sender
from orderkit.replay.shipment import Shipment


class TransactionalSender(Sender):
    """Writes records and offsets in one transaction: what a crash interrupts never happened."""

    def _open(self, connection: Connection) -> Producer:
        producer = connection.producer(**BULK_SETTINGS, transactional_id=f"{self.group}.{self.first}")
        try:
            insist(producer.init_transactions)
        except KafkaException as error:
            raise no_transactions(error.args[0], f"{self.group}.") from None
        return producer

    def send(self, outgoing: Sequence[Outgoing], positions: Positions) -> None:
        """Write records and offsets as one transaction, and again without those that their target does not take.

        Raises:
            OrderkitError: the transaction failed; nothing of it is to be seen.
        """
        while not self._arrives(shipment := Shipment(outgoing, positions), outgoing):
            self._refuse(shipment.refused)
            outgoing = [it for it in outgoing if not any(it is other for other in shipment.refused)]
            # A client whose record was refused asks for a new epoch, and takes no offsets meanwhile: a new one has one.
            self._opened[0] = self._open(self._connection)

    def _arrives(self, shipment: Shipment, outgoing: Sequence[Outgoing]) -> bool:
        """Whether a transaction was committed; it was not when something in it was too large."""
        producer, settled = self.producer, self._settled(shipment)
        try:
            producer.begin_transaction()
            self._produce(outgoing, shipment)
            if not shipment.refused:
                metadata = self._offsets.consumer_group_metadata()
                insist(producer.send_offsets_to_transaction, self._to_offsets(settled), metadata)
                insist(producer.commit_transaction)
                self._note(settled, len(outgoing))
                return True
        except KafkaException as error:
            self._abort()
            if not shipment.refused:
                raise self._unwritten(error.args[0].str()) from None
        except OrderkitError:
            self._abort()
            raise
        else:
            self._abort()
        return False

    def _abort(self) -> None:
        """Undo the transaction, and hear what became of its records: only then all reports have come."""
        with suppress(KafkaException):  # a newer replay has taken over, or the broker ends it after its time-out
            insist(self.producer.abort_transaction)
        self.producer.poll(0)
