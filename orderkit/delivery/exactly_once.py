"""Commit everything in one transaction: a crash leaves nothing of what it interrupted (KIP-98, KIP-447)."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Producer

from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.dead_letters import PROBE, DeadLetterWriter
from orderkit.delivery.mode import Mode, handed_over
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.kafka.names import check_text
from orderkit.kafka.transactions import PATIENCE, insist, no_transactions
from orderkit.members.commits import Commits, fitting, to_offsets
from orderkit.members.group import GroupMember

log = logging.getLogger("orderkit")

INTERVAL = 0.1  # seconds between two transactions, at least
TRANSACTION_TIMEOUT = 60.0  # seconds after which the broker ends what a dead consumer without a name left open
LETTER_TIMEOUT = 15.0  # seconds after which a dead letter that cannot be written has been refused
LAST_PATIENCE = 5.0  # seconds for which a transaction's end is tried again when stopping
# Another producer has this one's transactional id.
FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
}


class ExactlyOnce(Mode):
    """Commit dead letters, offsets and averages in one transaction; on an error, undo and do it again."""

    keeps = True

    @classmethod
    def producer(cls, connection: Connection, group: str, instance: str | None) -> Producer:
        """Open a transactional producer.

        Raises:
            UsageError: the embedded broker takes transactions, and enforces nothing.
        """
        if connection.is_embedded:
            raise UsageError("exactly-once needs a real broker: the embedded one does not enforce transactions.")
        if str(connection.config.get("isolation.level", "")).lower() == "read_uncommitted":
            raise UsageError("exactly-once reads committed records only: leave out isolation.level=read_uncommitted.")
        name = uuid.uuid4().hex if instance is None else check_text("instance", instance)
        return connection.producer(
            transactional_id=check_text("transactional id", f"{group}.{name}"),
            transaction_timeout_ms=int(TRANSACTION_TIMEOUT * 1000),
            message_timeout_ms=int(LETTER_TIMEOUT * 1000),
            message_max_bytes=100_000_000,
        )

    def __init__(self, member: GroupMember, letters: DeadLetterWriter, opened: Callable[[], Producer | None]) -> None:
        super().__init__(member, letters, opened)
        self._due = 0.0
        self._since: float | None = None  # when this transaction was first to be ended
        self._broken = False
        self._begin()

    @property
    def _producer(self) -> Producer:
        return self._letters.producer

    def _begin(self) -> None:
        try:
            self._insist(self._producer.init_transactions)
            self._producer.begin_transaction()
        except KafkaException as error:
            raise no_transactions(error.args[0], f"{self._member.group}.") from None

    def taken(self, part: Partition) -> bool:
        """Say in the first transaction of an assignment that somebody is at work: a death will be noticed."""
        if not part.reported:
            self._commit({part.key: (part, Checkpoint(part.floor, part.here()))})
        return not part.gone

    def announce(self, part: Partition, offset: int) -> None:
        """Commit the attempt that is about to be made."""
        part.mark()
        self._commit({part.key: (part, Checkpoint(part.floor, part.here(trying=offset)))})

    def conclude(self, part: Partition) -> None:
        """Commit what became of an announced attempt; the slice may have ended before it was made."""
        part.mark()
        self._commit({part.key: (part, Checkpoint(part.floor, part.here()))})

    def settle(self) -> None:
        """End the transaction when it is due and something was done."""
        self._letters.serve()
        if time.monotonic() >= self._due:
            self._commit({})

    def lost(self, parts: list[Partition]) -> None:
        """Undo the transaction when it holds work on a partition that is somebody else's now."""
        if not self._broken and not all(part.is_settled for part in parts):
            self._undo()

    def finish(self, parts: list[Partition], deadline: float) -> None:  # noqa: ARG002  the end of a transaction waits for its letters
        """Commit all that was done, and hand the partitions over."""
        for part in parts:
            part.mark()
        self._commit(handed_over(parts, lambda part: part.points.latest()))

    def _commit(self, points: Commits) -> None:
        """End the transaction with the newest checkpoints of all partitions: their dead letters are in it."""
        newest = {part.key: (part, point) for part in self._member.parts.values() if (point := part.points.latest())}
        wanted = (newest | points).values()
        ready = fitting(wanted)
        if len(ready) < len(wanted):
            raise OrderkitError("The transaction cannot end: an offset has no room for what goes with it. Start again.")
        if self._broken or not ready:
            return
        since = time.monotonic()
        self._since = self._since or since
        sent: Sequence[tuple[Partition, Checkpoint]] = ()
        try:
            group = self._member.client.consumer_group_metadata()
            self._insist(self._producer.send_offsets_to_transaction, to_offsets(ready), group)
            sent = ready  # from here on the broker may have ended the transaction, whatever we hear
            self._insist(self._producer.commit_transaction)
            self._producer.begin_transaction()
        except KafkaException as error:
            log.warning("the transaction is undone, and done again: %s", error.args[0].str())
            self._undo(error.args[0], sent)
            return
        for part, point in ready:
            part.went_through(point)
        self._member.commits.note(since)
        self._since = None
        self._due = time.monotonic() + INTERVAL

    def _insist(self, call: Callable[..., object], *args: object) -> None:
        insist(call, *args, patience=lambda: LAST_PATIENCE if self._member.stopping else PATIENCE)

    def _undo(self, error: KafkaError | None = None, sent: Sequence[tuple[Partition, Checkpoint]] = ()) -> None:
        """Abort the transaction, and take every partition back to where the last one ended.

        Args:
            error: what is wrong with it.
            sent: what it would have committed, if its end was asked for: the answer may be lost, and not the end.

        Raises:
            OrderkitError: another consumer has this one's transactional id, or the broker gives no new transaction.
        """
        parts = list(self._member.parts.values())
        for part in parts:
            self._letters.forget(part)
        self._start_over(error)
        if not self._member.offsets.find(sent):
            self._member.let_go(parts, doubtful=True)
            return
        for part in parts:
            again = self._member.rewind(part)
            if again.backlog:
                self._member.hold(again, time.monotonic() + (PROBE[0] if part.refused else 0.0))

    def _start_over(self, error: KafkaError | None) -> None:
        """Abort the transaction and begin the next one, with a new producer where this one cannot."""
        if self._letters.is_stranded():
            self._open_again("the producer has lost all its brokers")
            return
        try:
            if error is not None and error.fatal():
                raise KafkaException(error)
            self._insist(self._producer.abort_transaction)
            self._producer.begin_transaction()
            self._since = None
        except KafkaException as fatal:
            told = fatal.args[0]
            outlived = self._since is not None and time.monotonic() > self._since + TRANSACTION_TIMEOUT
            if told.code() in FENCED and not outlived:  # a transaction that outlived its time-out looks like that, too
                self._broken = True
                raise OrderkitError(
                    f"The transaction cannot go on: {told.str()}. Start again: the group goes on from its last commit."
                ) from None
            self._open_again(f"the transaction cannot be undone ({told.str()})")

    def _open_again(self, why: str) -> None:
        """Go on with a new producer of the same name: what the old one left is undone by that."""
        log.warning("%s; a new one is opened", why)
        self._letters.replace(cast(Producer, self._opened()))
        self._since = None
        self._begin()
