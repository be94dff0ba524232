"""The retrying consumer: fetch, attempt, decide, settle."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import cast

from confluent_kafka import Message

from orderkit.avro import Codec
from orderkit.dead_letters import DeadLetterWriter
from orderkit.delivery import AtLeastOnce
from orderkit.engines import Answer, make_engine
from orderkit.errors import OrderkitError
from orderkit.faults import draw
from orderkit.group import GroupMember
from orderkit.kafka import DEAD_LETTERS, ORDERS, Connection
from orderkit.ledger import DEAD, RETRY, SKIPPED, Ledger
from orderkit.order import Order
from orderkit.patience import LEAVING
from orderkit.progress import Progress
from orderkit.retry import DeadLetter, Decision, Failure, Reason, Retry, RetryPolicy, Skip, Stop, classify, decide

log = logging.getLogger("orderkit")

Handler = Callable[[Order, int], object]

PATIENCE = 0.1  # seconds in one poll, at most: a stop or a due retry is never later than this
LAST_WORD = 10.0  # seconds that a stopping consumer waits for outstanding acknowledgements
HASTE = 2.0  # seconds that it takes to leave when the broker is silent, or the user impatient
HANDOVER = 0.5  # seconds that it waits for them when a partition goes to another member: the whole group waits with it


def accept(_order: Order, _attempt: int) -> None:
    """Handle an order by letting it into the average, which the consumer keeps by itself."""


class RetryingConsumer:
    """Gives each order its delivery attempts, averages what succeeds, and dead-letters what does not.

    Args:
        connection: the cluster.
        handler: called with the order and the attempt's number, from 1. It succeeds by returning and fails by raising.
        group: the consumer group.
        topic: where the orders are.
        dead_letters: where the exhausted go.
        policy: how often, how long, and what then.
        engine: how a retry waits.
        codec: reads orders from bytes.
        ledger: takes one event per attempt; by default one that remembers the latest 100,000.
        seed: decides the draws of jittered back-off.
        classify: says what kind of failure an exception is.
        batch: records to fetch at once, at most.
        slice: seconds of handling after which the consumer polls again, whatever is left of the batch.

    Raises:
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
        engine: str = "pause",
        codec: Codec | None = None,
        ledger: Ledger | None = None,
        seed: int = 0,
        classify: Callable[[BaseException], Reason] = classify,
        batch: int = 1000,
        slice: float = 0.5,
    ) -> None:
        self.handler = handler
        self.policy = policy or RetryPolicy()
        self.codec = codec or Codec()
        self.ledger = ledger if ledger is not None else Ledger(keep=100_000)
        self.seed = seed
        self.broken: OrderkitError | None = None
        self._classify = classify
        self._slice = slice
        self._until = 0.0  # the end of this slice on the monotonic clock; 0 stops handling at the next record
        self._stopping = False
        self._limit: float = float("inf")
        self._busy = time.monotonic()
        connection.partitions(dead_letters)
        self.letters = DeadLetterWriter(connection, dead_letters, group)
        self.member = GroupMember(connection, group, [topic], batch=batch, revoked=self._revoked, lost=self._lost)
        self.engine = make_engine(engine, self.member)
        self.delivery = AtLeastOnce(self.member, self.letters)

    def run(
        self,
        orders: int | None = None,
        idle: float | None = None,
        until: Callable[[], bool] | None = None,
    ) -> None:
        """Handle orders until stopped.

        Args:
            orders: stop after so many records are done with.
            idle: stop after so many seconds in which nothing came, and nothing waits for its next attempt.
            until: stop when this says so; it is asked after each turn of the loop.

        Raises:
            OrderkitError: the handler is broken, or a topic is gone; offsets are kept.
        """
        self._limit = float("inf") if orders is None else self.ledger.finished + orders
        self._busy = time.monotonic()
        try:
            while not self._enough(idle):
                self.turn()
                if until is not None and until():
                    break
        finally:
            self.close()
        if self.broken is not None:
            raise self.broken

    def turn(self) -> None:
        """Go once round the loop."""
        self._until = 0.0 if self._stopping else time.monotonic() + self._slice
        for part in self.engine.due(time.monotonic()):
            self._work(part)
        for part, messages in self.member.fetch(self._patience()):
            self._take(part, messages)
        self.delivery.settle()

    def stop(self) -> None:
        """Ask the loop to end after the record it is at; safe from a signal handler or another thread."""
        self._stopping = True
        self._until = 0.0

    def close(self) -> None:
        """Commit what is done and leave the group; what is not done stays for the next run."""
        deadline = time.monotonic() + LAST_WORD
        patience = HASTE
        try:
            self.member.await_commit(deadline)
            parts = list(self.member.parts.values())
            self.delivery.finish(parts, deadline)
            self.member.settle_doubts()
            self._lost([part for part in parts if part.committed < part.next])
            patience = LEAVING
        finally:
            self.member.close(patience)

    def _enough(self, idle: float | None) -> bool:
        if self._stopping or self.broken is not None or self.ledger.finished >= self._limit:
            return True
        return idle is not None and self._quiet() and time.monotonic() - self._busy >= idle

    def _quiet(self) -> bool:
        """Whether nothing waits that will go on by itself; a partition not yet assigned may still bring work."""
        return self.engine.next_due() == float("inf") and bool(self.member.rebalances)

    def _patience(self) -> float:
        return max(0.0, min(PATIENCE, self.engine.next_due() - time.monotonic()))

    def _take(self, part: Progress, messages: list[Message]) -> None:
        """Decode what was fetched, once, and work on it unless the partition is waiting."""
        offsets = part.take(messages, self.codec.decode_batch([message.value() for message in messages]))
        self.ledger.took(part.topic, part.partition, offsets)
        if part.key not in self.member.held:
            self._work(part)
        self.member.steer(part)

    def _work(self, part: Progress) -> None:
        """Give the records of a partition their attempts, in order, until one has to wait."""
        self._busy = time.monotonic()
        part.backlog.drop(self._attempt_all(part))
        part.mark()
        if not part.backlog:
            self.member.release(part)
        elif part.due <= self._busy:
            self.member.hold(part, self._busy)  # the slice is over: poll, then go on
        self.member.steer(part)

    def _attempt_all(self, part: Progress) -> int:
        """Attempt the backlog's records; return how many are done with."""
        handler, clock = self.handler, time.monotonic
        room = self._limit - self.ledger.finished
        attempt = part.history.attempts + 1
        done = i = 0
        for i, order in enumerate(part.backlog.orders):
            if clock() >= self._until or i >= room:
                break
            try:
                if order.__class__ is not dict:
                    raise cast(Failure, order)  # it could not be decoded, and is never tried again
                handler(cast(Order, order), attempt)
            except Exception as error:  # whatever the handler raises, `decide` has an answer
                self._averaged(part, done, i)
                if not self._failed(part, i, error):
                    return i
                done = i + 1
            attempt = 1
        else:
            i = len(part.backlog)
        self._averaged(part, done, i)
        return i

    def _averaged(self, part: Progress, start: int, stop: int) -> None:
        """Let a run of handled orders into the average and the ledger."""
        if start == stop:
            return
        orders = cast(list[Order], part.backlog.orders[start:stop])
        offsets = part.backlog.offsets[start:stop]
        part.average.add_all([order["price"] for order in orders])
        part.next = offsets[-1] + 1
        now = time.time()
        first = part.history.attempts + 1
        if first > 1:  # only the head of the run can have failed before
            self.ledger.averaged(now, part.topic, part.partition, offsets[:1], orders[:1], attempt=first)
            part.fresh_history()
            del orders[:1], offsets[:1]
        if orders:
            self.ledger.averaged(now, part.topic, part.partition, offsets, orders)

    def _failed(self, part: Progress, i: int, error: Exception) -> bool:
        """Carry out what `decide` says of a failed attempt; whether the record is out of the way."""
        history = part.history
        while True:
            history.failed(time.time())
            decision = self._decide(part, i, error)
            self._note(part, i, error, decision)
            match decision:
                case Stop():
                    return self._break_off(part, i, error)
                case DeadLetter(reason):
                    self.letters.send(part.backlog.messages[i], part, reason, error, history)
                    part.dead += 1
                case Skip():
                    part.skipped += 1
                case Retry(after):
                    history.wait = after
                    answer = self.engine.wait(part, after) if after > 0 else Answer.AGAIN
                    if answer is Answer.HOLD:
                        return False
                    if answer is Answer.AGAIN:
                        if (again := self._attempt_again(part, i)) is not None:
                            error = again
                            continue
                        self._averaged(part, i, i + 1)
            part.next = part.backlog.offsets[i] + 1
            part.fresh_history()
            return True

    def _decide(self, part: Progress, i: int, error: Exception) -> Decision:
        history, order = part.history, part.backlog.orders[i]
        name = order["orderId"] if isinstance(order, dict) else ""
        return decide(
            self._classify(error),
            history.attempts,
            self.policy,
            elapsed=time.time() - history.since,
            last=history.wait,
            u=draw(self.seed, name, history.attempts, "back-off"),
        )

    def _attempt_again(self, part: Progress, i: int) -> Exception | None:
        try:
            self.handler(cast(Order, part.backlog.orders[i]), part.history.attempts + 1)
        except Exception as error:
            return error
        return None

    def _note(self, part: Progress, i: int, error: Exception, decision: Decision) -> None:
        """Write a failed attempt into the ledger; a stop is no fate, its order is still to come."""
        fates = {Retry: RETRY, DeadLetter: DEAD, Skip: SKIPPED}
        if isinstance(decision, Stop):
            return
        order = part.backlog.orders[i]
        self.ledger.failed(
            time.time(),
            part.topic,
            part.partition,
            part.backlog.offsets[i],
            fate=fates[type(decision)],
            order=order if isinstance(order, dict) else None,
            attempt=part.history.attempts,
            reason=self._classify(error),
            error=f"{type(error).__name__}: {error}",
            wait=decision.after if isinstance(decision, Retry) else 0.0,
        )

    def _break_off(self, part: Progress, i: int, error: Exception) -> bool:
        part.history.attempts -= 1  # the attempt does not count against the order
        self.broken = OrderkitError(
            f"The handler broke at {part}@{part.backlog.offsets[i]}: {type(error).__name__}: {error}. "
            "The offset is kept: mend the handler and start again."
        )
        self.broken.__cause__ = error
        return False

    def _revoked(self, parts: list[Progress]) -> None:
        """Commit what is done before partitions go to another member."""
        self.delivery.finish(parts, time.monotonic() + HANDOVER)

    def _lost(self, parts: list[Progress]) -> None:
        """Take back what was not committed: it will be delivered, and decided, again."""
        for part in parts:
            self.ledger.forget_from(part.topic, part.partition, max(part.committed, 0))
