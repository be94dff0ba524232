"""Share groups (KIP-932): the broker hands out records one by one, counts their deliveries, and keeps no order.

Another loop, for the same handler and the same policy. A record is settled with one of three words: ACCEPT, RELEASE
(deliver it again, now, to anybody) or REJECT (never again; with KIP-1191 the broker moves it to its own dead-letter
topic). There is no back-off, and no offset that could carry an average: this consumer knows its own orders only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby

from confluent_kafka import AcknowledgeType, KafkaError, KafkaException, Message

from orderkit.account.average import RunningAverage
from orderkit.account.block import Attempt
from orderkit.account.state import GroupState
from orderkit.account.tally import AVERAGED, DEAD, RETRY, SKIPPED
from orderkit.brokers.dlq import NEEDED, prepare
from orderkit.consuming.backlog import Backlog
from orderkit.consuming.loop import Handler, Loop, accept
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History
from orderkit.dead_letters import DeadLetterWriter
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import DEAD_LETTERS, ORDERS, Connection
from orderkit.kafka.names import check_dead_letter_topic, check_group, check_topic
from orderkit.ledger import Ledger
from orderkit.members.commits import Committer, Key
from orderkit.members.refused import Refusals, complain
from orderkit.orders.avro import Codec
from orderkit.retry import DeadLetter, Failure, Killed, Reason, Retry, RetryPolicy, Skip, Stop, classify

PATIENCE = 0.1  # seconds in one poll, at most
DLQ_PATIENCE = 10.0  # seconds for dead letters to be acknowledged; the broker's lock on a record lasts 30


class ShareMember:
    """What there is to see of a share group's member: it has no partitions of its own, and nothing waits."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.parts: dict[Key, Partition] = {}  # what this member did of each partition
        self.held: dict[Key, Partition] = {}
        self.commits = Committer(self.parts)
        self.rebalances = 0  # 1 when records have come: a share group tells its members nothing else

    def lag(self) -> dict[Key, int]:
        """Give nothing: there is no offset to be behind."""
        return {}


class ShareGroupConsumer(Loop):
    """Gives each delivery of an order one attempt, and tells the broker what became of it.

    Args:
        connection: the cluster; it must be Kafka 4.4 or newer.
        handler: called with the order and the delivery's number, from 1.
        group: the share group.
        topic: where the orders are.
        dead_letters: where the exhausted go, unless the group has a dead-letter topic of the broker's own.
        policy: how often, and what then. Its back-off is not kept: share groups have none.
        codec: reads orders from bytes.
        ledger: takes one event per attempt; by default one that remembers the latest 100,000.
        seed: not used, there is no jitter to draw.
        classify: says what kind of failure an exception is.

    Raises:
        UsageError: the broker is the embedded one, or the policy has more attempts than Kafka can count.
        OrderkitError: the broker does not answer, or has no share groups.
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
        codec: Codec | None = None,
        ledger: Ledger | None = None,
        seed: int = 0,
        classify: Callable[[BaseException], Reason] = classify,
    ) -> None:
        check_group(group)
        check_topic(topic)
        check_dead_letter_topic(dead_letters)
        super().__init__(handler, policy, codec, ledger, seed, classify)
        if connection.is_embedded:
            raise UsageError(f"Share groups need a real broker, {NEEDED}: the embedded one has none.")
        connection.partitions(topic)
        self.broker_dlq = prepare(connection, group, self.policy.max_attempts)
        self.member, self._refusals = ShareMember(group), Refusals(connection, group, shares=True)
        self.letters = DeadLetterWriter(connection, dead_letters, group)
        if not self.broker_dlq:
            connection.partitions(dead_letters, "--dlq-topic")
        self._client = connection.share_consumer(group, share_acknowledgement_mode="explicit")
        self._client.subscribe([topic])

    def turn(self) -> None:
        """Go once round the loop: one poll, one attempt for each record, one commit."""
        try:
            messages = list(self._client.poll(timeout=PATIENCE))
        except KafkaException as refused:
            _complain(refused.args[0], self._refusals.complain)
            return
        for error in filter(None, map(Message.error, messages)):
            _complain(error, self._refusals.complain)
        messages = [message for message in messages if not message.error()]
        if not messages:
            return
        self._busy, self.member.rebalances = time.monotonic(), 1
        for (topic, number), some in groupby(sorted(messages, key=_place), _part_of):
            part = self.member.parts.setdefault((topic, number), Partition(topic, number))
            self._handle(part, list(some))
        since = time.monotonic()
        self._client.commit_sync(timeout=DLQ_PATIENCE)
        self.member.commits.note(since)

    def close(self) -> None:
        """Leave the group; what is locked here is delivered to others."""
        self._client.close()
        self.letters.close()

    @property
    def settled(self) -> bool:
        """Whether everything done so far is settled with the broker: it is after each turn."""
        return True

    def state(self) -> GroupState:
        """Give what this consumer knows of its group; other members' orders are not in it, and no offsets are."""
        counts, average = self.ledger.counts, RunningAverage()
        for part in self.member.parts.values():
            average = average.merge(part.average)
        return GroupState({}, average, counts[DEAD], counts[SKIPPED])

    def _quiet(self) -> bool:
        return bool(self.member.rebalances)

    def _handle(self, part: Partition, messages: list[Message]) -> None:
        """Attempt records that were delivered, book them, and settle each with the broker."""
        batch = Backlog()
        offsets = [message.offset() or 0 for message in messages]
        batch.add(messages, self.codec.decode_batch([message.value() for message in messages]), offsets)
        attempts: list[Attempt] = []
        for i in range(len(batch)):
            attempts.append(self._attempt(part, batch, i))
            if self.broken is not None:
                break
        untouched = range(len(attempts), len(batch))
        if self._letters_arrive(part):
            self._book(part, batch, attempts)
        else:
            self.broken = OrderkitError(f"{self.letters.trouble}. The share group delivers again what was not written.")
            attempts = [attempt._replace(fate=RETRY) if attempt.fate == DEAD else attempt for attempt in attempts]
            self._book(part, batch, attempts)
        for attempt in attempts:
            self._client.acknowledge(messages[attempt.record], self._word(attempt.fate))
        for i in untouched:
            self._client.acknowledge(messages[i], AcknowledgeType.RELEASE)

    def _word(self, fate: int) -> AcknowledgeType:
        if fate == RETRY:
            return AcknowledgeType.RELEASE
        return AcknowledgeType.REJECT if fate == DEAD and self.broker_dlq else AcknowledgeType.ACCEPT

    def _attempt(self, part: Partition, batch: Backlog, i: int) -> Attempt:
        """Make the one attempt that this delivery is, and say what became of it."""
        order, number = batch.orders[i], batch.messages[i].delivery_count() or 1
        history = part.failed.setdefault(batch.offsets[i], History())
        history.attempts = number - 1
        try:
            if isinstance(order, Failure):
                raise order
            if number > self.policy.max_attempts:
                raise Killed("whoever had it before ended without a word")
            self.handler(order, number)
        except Exception as error:  # whatever the handler raises, `decide` has an answer
            return self._failed(part, batch, i, error, history)
        del part.failed[batch.offsets[i]]
        return Attempt(i, time.time(), number, AVERAGED)

    def _failed(self, part: Partition, batch: Backlog, i: int, error: Exception, history: History) -> Attempt:
        now, order = time.time(), batch.orders[i]
        history.failed(now)
        reason, decision = self._judge(order, error, history)
        told = f"{type(error).__name__}: {error}"
        fate = {Retry: RETRY, Stop: RETRY, DeadLetter: DEAD, Skip: SKIPPED}[type(decision)]
        if isinstance(decision, Stop):
            self._stop_at(f"{part}@{batch.offsets[i]}", reason, error)
        elif isinstance(decision, DeadLetter) and not self.broker_dlq:
            self.letters.send(batch.messages[i], part, reason, error, history)
        if fate != RETRY:
            del part.failed[batch.offsets[i]]
        return Attempt(i, now, history.attempts, fate, 0.0, reason, told)

    def _letters_arrive(self, part: Partition) -> bool:
        """Wait until the dead letters of a partition are acknowledged; drop those that were refused."""
        self.letters.drain(time.monotonic() + DLQ_PATIENCE)
        arrived = not self.letters.under_way and not self.letters.refused
        if not arrived:
            self.letters.forget(part)
        return arrived

    def _book(self, part: Partition, batch: Backlog, attempts: list[Attempt]) -> None:
        """Let what was done into the average and the ledger."""
        many = len(attempts)
        aside = {attempt.record for attempt in attempts if attempt.fate == RETRY}
        news = [attempt for attempt in attempts if attempt.fate != AVERAGED or attempt.number > 1]
        self.ledger.took(part.topic, part.partition, batch.offsets)
        self.ledger.note(
            time.time(), part.topic, part.partition, batch.offsets[:many], batch.orders[:many], news, many, aside
        )
        for attempt in attempts:
            order = batch.orders[attempt.record]
            if attempt.fate == AVERAGED and isinstance(order, dict):
                part.average.add(order["price"])


def _place(message: Message) -> tuple[str, int, int]:
    return message.topic() or "", message.partition() or 0, message.offset() or 0


def _part_of(message: Message) -> tuple[str, int]:
    return _place(message)[:2]


def _complain(error: KafkaError, otherwise: Callable[[KafkaError], None] = complain) -> None:
    if error.code() in (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE):
        raise OrderkitError(f"This broker has no share groups: {error.str()}. {NEEDED} has them.")
    otherwise(error)
