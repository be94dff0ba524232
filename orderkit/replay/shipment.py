"""Records of a replay on their way, and what the broker says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, Message

from orderkit.kafka import NOWHERE
from orderkit.replay.batch import Outgoing
from orderkit.replay.positions import Position

TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
LARGE = 1_000_000  # bytes: a larger value is alone in its batch, so a refusal is its own


class Shipment:
    """Records on their way, and the positions that wait for them.

    Args:
        outgoing: the records.
        positions: how far the replay is once they have arrived; what becomes of them later is not seen here.
    """

    def __init__(self, outgoing: Sequence[Outgoing], positions: Mapping[int, Position]) -> None:
        self.many = self.left = len(outgoing)
        self.positions = {number: Position(it.next, set(it.stay)) for number, it in positions.items()}
        self.error: object = None
        self.refused: list[Outgoing] = []

    def __call__(self, error: object, report: Message) -> None:
        """Take in the delivery report of one record."""
        self.left -= 1
        if error is not None or report.offset() is None:
            self.error = error or NOWHERE

    def report_for(self, record: Outgoing) -> Callable[[Any, Any], None]:
        """Make what takes in the report of a large record: one that its target does not take stays, others go on."""

        def delivered(error: Any, report: Any) -> None:
            if error is not None and error.code() == TOO_LARGE:
                self.left -= 1
                self.refused.append(record)
            else:
                self(error, report)

        return delivered
