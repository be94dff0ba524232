"""What every consumer of the kit has: a handler, a policy, a ledger, and a loop that ends cleanly."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

from orderkit.account.state import GroupState
from orderkit.consuming.calm import calm_collector
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History
from orderkit.dead_letters import DeadLetterWriter
from orderkit.errors import OrderkitError
from orderkit.ledger import Ledger
from orderkit.members.commits import Committer, Key
from orderkit.orders.avro import Codec
from orderkit.orders.faults import draw
from orderkit.orders.order import Order
from orderkit.retry import Decision, Failure, Reason, RetryPolicy, decide
from orderkit.retry.budget import Budget, Limits

Handler = Callable[[Order, int], object]


def accept(_order: Order, _attempt: int) -> None:
    """Handle an order by letting it into the average, which the consumer keeps by itself."""


class Member(Protocol):
    """What a consumer shows of its membership to those who look on."""

    group: str
    parts: dict[Key, Partition]
    held: dict[Key, Partition]
    commits: Committer
    rebalances: int

    def lag(self) -> dict[Key, int]:
        """Give the records that each partition is behind, as far as the client has heard."""
        ...


class Loop(ABC):
    """Goes round until it is told to stop, or has done enough.

    Args:
        handler: called with the order and the attempt's number, from 1.
        policy: how often, how long, and what then.
        codec: reads orders from bytes.
        ledger: takes one event per attempt.
        seed: decides the draws of jittered back-off.
        classify: says what kind of failure an exception is.
        budget: how many dead letters are too many; without one, none are.
    """

    letters: DeadLetterWriter
    member: Member

    def __init__(
        self,
        handler: Handler,
        policy: RetryPolicy | None,
        codec: Codec | None,
        ledger: Ledger | None,
        seed: int,
        classify: Callable[[BaseException], Reason],
        budget: Limits | None = None,
    ) -> None:
        self.handler = handler
        self.policy = policy or RetryPolicy()
        self.codec = codec or Codec()
        self.ledger = ledger if ledger is not None else Ledger(keep=100_000)
        self.seed = seed
        self.broken: OrderkitError | None = None
        self.gave_back: dict[Key, Partition] = {}  # partitions that went, as they were then
        self.budget = Budget(budget) if budget else None
        self._classify = classify
        self._judged: dict[tuple[Reason, int], Decision] = {}  # where neither chance nor the clock has a say
        self._judged_by: RetryPolicy | None = None
        self.leaving = False  # the loop is over; what it has done is being committed
        self._stopping = False
        self._limit = float("inf")  # of records done with
        self._rebalances = 0
        self._busy = self.turned = time.monotonic()

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
            with calm_collector():
                while not self._enough(idle):
                    self.turned = time.monotonic()
                    self.turn()
                    if until is not None and until():
                        break
        finally:
            self.leaving = True
            self.close()
        if self.broken is not None:
            raise self.broken

    def _enough(self, idle: float | None) -> bool:
        if self._stopping or self.broken is not None or self.ledger.finished >= self._limit:
            return True
        if self._rebalances != self.member.rebalances:  # what was just assigned may bring work
            self._rebalances, self._busy = self.member.rebalances, time.monotonic()
        return idle is not None and self._quiet() and time.monotonic() - self._busy >= idle

    @property
    def ending(self) -> str:
        """What a loop that was asked to stop still waits for."""
        return "What is done is being committed" if self.leaving else "One order is being finished"

    @property
    def trouble(self) -> str | None:
        """Why nothing moves, if something is in the way."""
        return self.letters.trouble or (self.budget.trouble if self.budget else None)

    @abstractmethod
    def turn(self) -> None:
        """Go once round the loop."""

    @abstractmethod
    def close(self) -> None:
        """Keep what is done, and leave the group."""

    @property
    @abstractmethod
    def settled(self) -> bool:
        """Whether everything done so far is known to the broker."""

    @abstractmethod
    def state(self) -> GroupState:
        """Give the group's average and offsets."""

    @abstractmethod
    def _quiet(self) -> bool:
        """Say whether nothing waits that will go on by itself."""

    def stop(self) -> None:
        """Ask the loop to end after the record it is at; safe from a signal handler or another thread."""
        self._stopping = True

    def _judge(self, order: Order | Failure, error: Exception, history: History) -> tuple[Reason, Decision]:
        """Say what kind of failure this is, and what the policy decides about it."""
        policy, attempts = self.policy, history.attempts
        reason = self._classify(error) if order.__class__ is dict else cast(Failure, order).reason
        if self._judged_by is not policy:
            self._judged_by, self._judged = policy, {}
        elif decision := self._judged.get((reason, attempts)):
            return reason, decision
        backoff, u = policy.backoff, 0.0
        if backoff.is_drawn:
            name = order["orderId"] if isinstance(order, dict) else ""
            u = draw(self.seed, name, attempts, "back-off")
        decision = decide(reason, attempts, policy, elapsed=history.elapsed, last=history.wait, u=u)
        if not backoff.is_drawn and policy.max_elapsed == float("inf"):
            self._judged[reason, attempts] = decision  # it is the same every time
        return reason, decision

    def _stop_at(self, place: str, reason: Reason, error: Exception) -> None:
        """End the loop at an order: the handler is broken, or its attempts are spent and the policy is to stop."""
        told = f"{type(error).__name__}: {error}"
        if reason == "fatal":
            what = f"The handler broke at {place}: {told}. The offset is kept: mend the handler and start again."
        else:
            what = f"The order at {place} has no attempt left: {told}. The offset is kept: start again for one more."
        self.broken = OrderkitError(what)
        self.broken.__cause__ = error


def broken(part: object, error: Exception, place: str = "") -> OrderkitError:
    """Name the part of a consumer that broke: an engine, a delivery mode or a member may be the reader's own."""
    told = OrderkitError(
        f"{type(part).__name__} broke{place}: {type(error).__name__}: {error}. "
        "The offsets are kept: mend it and start again."
    )
    told.__cause__ = error
    return told


@contextmanager
def named(part: object) -> Iterator[None]:
    """Say which part it was when one breaks in this block.

    Raises:
        OrderkitError: it broke; any other error than this one becomes this one.
    """
    try:
        yield
    except OrderkitError:
        raise
    except Exception as error:
        raise broken(part, error) from error
