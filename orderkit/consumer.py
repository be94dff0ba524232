"""The retrying consumer: fetch, attempt, decide, settle."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import cast

from confluent_kafka import Message

from orderkit.account.block import Noted
from orderkit.account.state import GroupState, group_state
from orderkit.account.tally import DEAD, SKIPPED
from orderkit.consuming.attempts import Attempts
from orderkit.consuming.backlog import Backlog
from orderkit.consuming.books import Books
from orderkit.consuming.loop import Handler, accept, named
from orderkit.consuming.partition import Partition
from orderkit.dead_letters import DeadLetterWriter
from orderkit.delivery import Mode, find_mode
from orderkit.engines import Engine, find_engine
from orderkit.engines.topics import create_alike
from orderkit.kafka import DEAD_LETTERS, ORDERS, Connection
from orderkit.kafka.names import check_member
from orderkit.ledger import Ledger
from orderkit.members.group import GroupMember
from orderkit.members.notices import Notices
from orderkit.members.patience import HASTE, LEAVING
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.retry import Reason, RetryPolicy, classify
from orderkit.retry.budget import Limits

PATIENCE = 0.1  # seconds in one poll, at most: a stop or a due retry is never later than this
LAST_WORD = 10.0  # seconds that a stopping consumer waits for outstanding acknowledgements
HANDOVER = 0.5  # seconds that it waits when a partition goes to another member: the whole group waits with it


class RetryingConsumer(Attempts):
    """Gives each order its delivery attempts, averages what succeeds, and dead-letters what does not.

    Args:
        connection: the cluster.
        handler: called with the order and the attempt's number, from 1. It succeeds by returning and fails by raising.
        group: the consumer group.
        topic: where the orders are.
        dead_letters: where the exhausted go.
        policy: how often, how long, and what then.
        engine: how a retry waits: one of `ENGINES`, or a class of your own.
        delivery: when offsets are committed: one of `MODES`, or a class of your own.
        membership: reads the topics as a member of the group.
        instance: names this member in its transactions (`exactly-once`), so that its next start ends what a crash left
            open; by default a name never used before.
        codec: reads orders from bytes.
        ledger: takes one event per attempt; by default one that remembers the latest 100,000.
        seed: decides the draws of jittered back-off.
        classify: says what kind of failure an exception is.
        budget: how many dead letters are too many; without one, none are.
        batch: records to fetch at once, at most.
        slice: seconds of handling after which the consumer polls again, whatever is left of the batch.

    Raises:
        UsageError: a name or a number that Kafka does not take.
        OrderkitError: the broker does not answer, or a topic does not exist.
    """

    def __init__(
        self,
        connection: Connection,
        handler: Handler = accept,
        *,
        group: str = "orderkit",
        topic: str = ORDERS,
        dead_letters: str = DEAD_LETTERS,
        policy: RetryPolicy | None = None,
        engine: str | type[Engine] = "pause",
        delivery: str | type[Mode] = "at-least-once",
        membership: type[GroupMember] = GroupMember,
        instance: str | None = None,
        codec: Codec | None = None,
        ledger: Ledger | None = None,
        seed: int = 0,
        classify: Callable[[BaseException], Reason] = classify,
        budget: Limits | None = None,
        batch: int = 2000,
        slice: float = 0.5,
    ) -> None:
        check_member(group, topic, dead_letters, instance, batch, slice)
        super().__init__(handler, policy, codec, ledger, seed, classify, budget)
        self._connection, self._topic = connection, topic
        self._slice = slice
        connection.partitions(dead_letters, "--dlq-topic")
        mode, kind = find_mode(delivery), find_engine(engine)
        retry_topics = kind.topics(topic, group, self.policy)
        create_alike(connection, topic, retry_topics)
        opened = partial(mode.producer, connection, group, uuid.uuid4().hex if instance is None else instance)
        self.letters = DeadLetterWriter(connection, dead_letters, group, opened())
        self._books = books = Books(self.ledger)
        notices = Notices(self._revoked, self._lost, self._undone, books.expired, books.begun)
        self.member = membership(connection, group, [topic, *retry_topics], notices, batch=batch, keep=mode.keeps)
        self.engine = kind(self.member, self.letters, topic, self.policy)
        self.delivery = mode(self.member, self.letters, opened)

    def turn(self) -> None:
        """Go once round the loop."""
        now = time.monotonic()
        self._until = 0.0 if self._stopping else now + self._slice
        with named(self.engine):
            due = self.engine.due(now)
        for part in due:
            if not part.gone:  # a transaction that was undone meanwhile has put another in its place
                self._work(part)
        with named(self.member):
            fetched = self.member.fetch(self._patience())
        for part, messages in fetched:
            if current := self.member.parts.get(part.key):  # likewise: what was fetched goes to its successor
                self._take(current, messages)
        with named(self.delivery):
            self.delivery.settle()

    def stop(self) -> None:
        """Ask the loop to end after the record it is at; safe from a signal handler or another thread."""
        self._stopping = self.member.stopping = True
        self._until = 0.0

    def close(self) -> None:
        """Commit what is done and leave the group; what is not done stays for the next run."""
        deadline = time.monotonic() + LAST_WORD
        patience = HASTE
        try:
            self.member.commits.finish(deadline)
            self.delivery.finish(list(self.member.parts.values()), deadline)
            patience = LEAVING
        finally:
            try:
                self.member.close(patience)
            finally:
                self.letters.close()

    @property
    def settled(self) -> bool:
        """Whether everything done so far is committed, and nothing is in doubt."""
        return self.member.settled

    def state(self) -> GroupState:
        """Read the group's average and offsets from its commits."""
        return group_state(self._connection, self.member.group, self._topic)

    def _quiet(self) -> bool:
        """Say whether nothing waits that will go on by itself; a partition not yet assigned may still bring work."""
        return self.engine.next_due() == float("inf") and bool(self.member.rebalances)

    def _patience(self) -> float:
        due = min(self.engine.next_due(), self.member.commits.next_due)
        return max(0.0, min(PATIENCE, due - time.monotonic()))

    def _take(self, part: Partition, messages: list[Message]) -> None:
        """Decode what was fetched, once, and work on it unless the partition is waiting."""
        if not messages:  # it has only moved on, behind what is no order
            part.mark()
            self.member.steer(part)
            return
        offsets = part.take(messages, self.codec.decode_batch(list(map(Message.value, messages))))
        if not offsets:
            return
        self.engine.received(part, len(offsets))
        self._books.took(part, len(offsets))
        with named(self.delivery):
            ours = self.delivery.taken(part)
        if ours and part.key not in self.member.held:
            self._work(part)
        elif not part.gone:
            self.member.steer(part)

    def _work(self, part: Partition) -> None:
        """Give the records of a partition their attempts: first those that were parked, then the others in order."""
        now = self._busy = time.monotonic()
        announced = part.suspected(self.policy.max_attempts)
        for parked in part.park.due(now):
            if not self._handle(part, parked):
                break
        if not part.gone and (part.key not in self.member.held or part.due <= now):
            part.backlog.drop(self._handle(part, part.backlog))
            if part.gone:
                return  # undone: its successor has it all
            if not part.backlog:
                self.member.release(part)
            elif part.due <= now:
                self.member.hold(part, now)  # the slice is over: poll, then go on
        part.mark()
        self.member.steer(part)
        if announced:
            self.delivery.conclude(part)

    def _handle(self, part: Partition, batch: Backlog) -> int:
        """Attempt and book records, in order, until one has to wait; return how many are out of the way."""
        attempts: list[Noted] = []
        aside: set[int] = set()
        done = self._attempt_all(part, batch, attempts, aside)
        self._book(part, batch, done, attempts, aside)
        if aside:
            self.engine.went_aside(part)
        return done

    def _book(self, part: Partition, batch: Backlog, done: int, attempts: list[Noted], aside: set[int]) -> None:
        """Let what was done into the average and the ledger, in bulk."""
        if not done and not attempts:
            return
        self._books.note(part, batch, done, attempts, aside)
        if not done:
            return
        good = batch.orders[:done]
        gone = aside.union(record for record, _, _, fate, _, _, _ in attempts if fate in (DEAD, SKIPPED))
        for i in sorted(gone, reverse=True):
            del good[i]
        part.average.add_all([order["price"] for order in cast(list[Order], good)])
        self._count_good(done)
        if batch is not part.backlog and not aside:
            part.park.done(batch)
        part.went_past(batch.offsets[:done])

    def _revoked(self, parts: list[Partition]) -> None:
        """Commit what is done before partitions go to another member."""
        self.delivery.finish(parts, time.monotonic() + HANDOVER)

    def _lost(self, parts: list[Partition]) -> None:
        """Forget the records on their way from partitions that have gone: the new owner writes them."""
        for part in parts:
            self.letters.forget(part)
            if part.key not in self.member.parts:  # else its log is gone, and another has taken its place
                self.gave_back[part.key] = part
                self._books.gave_back(part)
        self.delivery.lost(parts)

    def _undone(self, part: Partition) -> None:
        self._books.undone(part, at_hand=part.key in self.member.parts)
