"""How a consumer keeps its ledger: by the topic and offset that an order had first, before any retry topic."""

from __future__ import annotations

import time

from orderkit.account.block import Noted
from orderkit.consuming.backlog import Backlog
from orderkit.consuming.partition import Partition
from orderkit.ledger import Ledger


class Books:
    """Enters in a ledger what becomes of the records of partitions.

    Args:
        ledger: takes the entries.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def took(self, part: Partition, many: int) -> None:
        """Enter that the last `many` records of the backlog were fetched."""
        topic, origins = part.origins(part.backlog, len(part.backlog) - many)
        self._ledger.took(topic, part.partition, origins)

    def note(self, part: Partition, batch: Backlog, done: int, attempts: list[Noted], aside: set[int]) -> None:
        """Enter what became of a batch: its first `done` records are out of the way, those `aside` for now."""
        (topic, origins), orders = part.origins(batch, 0, done + 1), batch.orders[: done + 1]
        self._ledger.note(time.time(), topic, part.partition, origins, orders, attempts, done, aside)

    def gave_back(self, part: Partition) -> None:
        """Enter that a partition went, and what was not finished with it."""
        self._ledger.give_back(part.origin or part.topic, part.partition)

    def undone(self, part: Partition, at_hand: bool) -> None:
        """Void what was entered of records after the last commit: they are delivered, and decided, again.

        Args:
            part: as it was.
            at_hand: this consumer has the partition, and its records, still.
        """
        first, keep = part.uncommitted()
        self._ledger.forget_from(part.origin or part.topic, part.partition, first, keep)
        again = part.backlog.restore() if at_hand else None
        if again:
            topic, origins = part.origins(again)
            self._ledger.took(topic, part.partition, origins)

    def expired(self, part: Partition, gap: range) -> None:
        """Enter records that nobody has read, and nobody can any more."""
        self._ledger.expire(part.topic, part.partition, gap)

    def begun(self, part: Partition) -> None:
        """Begin a new account: the offsets of this partition are those of other records now."""
        self._ledger.begin(part.topic, part.partition)
