"""What a failure means, and what to do about it.

`decide` is the whole policy of the kit in one pure function: no clock, no dice, no Kafka.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from orderkit.errors import UsageError, check_known
from orderkit.retry.backoff import Backoff

Reason = Literal["poison", "permanent", "transient", "fatal"]
WhenSpent = Literal["dead-letter", "skip", "stop"]
WHEN_SPENT: tuple[WhenSpent, ...] = get_args(WhenSpent)


class Failure(Exception):
    """A failure that knows its own kind; a handler raises one of the four below."""

    reason: Reason = "transient"


class Poison(Failure):
    """The bytes are no order. Trying again cannot help, and neither can the handler."""

    reason: Reason = "poison"


class Permanent(Failure):
    """The order was read but can never be accepted: bad data. Trying again cannot help."""

    reason: Reason = "permanent"


class Transient(Failure):
    """Something else is in trouble just now. The same order may well succeed later."""

    reason: Reason = "transient"


class Fatal(Failure):
    """The consumer itself is broken. It is not the order's fault: stop, and keep the offset."""

    reason: Reason = "fatal"


class Killed(Transient):
    """The consumer ended in the middle of this attempt, without a word."""


# A bug in the handler fails on every order; dead-lettering for it would drain the topic.
BUGS = (
    TypeError, AttributeError, NameError, ImportError, AssertionError, NotImplementedError, RecursionError, MemoryError,
)  # fmt: skip
# Bad data fails the same way each time.
BAD_DATA = (ValueError, LookupError, ArithmeticError)


def classify(error: BaseException) -> Reason:
    """Say what kind of failure an exception is.

    The four kinds speak for themselves. Of other exceptions, Python's signs of a bug are fatal, its signs of bad data
    permanent, and all else (time-outs, connections, whatever a library raises) is transient.
    """
    if isinstance(error, Failure):
        return error.reason
    if isinstance(error, BUGS):
        return "fatal"
    if isinstance(error, BAD_DATA):
        return "permanent"
    return "transient"


def root_cause(error: BaseException) -> BaseException:
    """Follow `raise ... from` and implicit chaining down to what went wrong first."""
    if error.__cause__ is None and error.__context__ is None:
        return error
    seen = {id(error)}
    while (before := _before(error)) is not None and id(before) not in seen:
        seen.add(id(before))
        error = before
    return error


def _before(error: BaseException) -> BaseException | None:
    return error.__context__ if error.__cause__ is None and not error.__suppress_context__ else error.__cause__


@dataclass(frozen=True)
class Retry:
    """Try again, `after` seconds from now."""

    after: float


@dataclass(frozen=True)
class DeadLetter:
    """Give up on the order, and keep it where it can be looked at."""

    reason: Reason


@dataclass(frozen=True)
class Skip:
    """Give up on the order and go on without it."""

    reason: Reason


@dataclass(frozen=True)
class Stop:
    """Stop the consumer; the order stays where it is."""

    reason: Reason


Decision = Retry | DeadLetter | Skip | Stop


@dataclass(frozen=True)
class RetryPolicy:
    """How often, how long, and what then.

    Args:
        max_attempts: delivery attempts in all; 3 means 3 deliveries, not 1 + 3.
        backoff: the wait between two attempts.
        max_elapsed: seconds since the first failure after which there is no further attempt.
        when_spent: what becomes of an order whose attempts are spent.

    Raises:
        UsageError: a number out of range, or an unknown word.
    """

    max_attempts: int = 3
    backoff: Backoff = field(default_factory=Backoff)
    max_elapsed: float = float("inf")
    when_spent: WhenSpent = "dead-letter"

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise UsageError(f"max attempts is {self.max_attempts}; every order needs at least 1.")
        if not self.max_elapsed > 0:
            raise UsageError(f"max elapsed is {self.max_elapsed} seconds; it must be more than 0.")
        check_known("choice", self.when_spent, WHEN_SPENT)


def decide(
    reason: Reason,
    attempt: int,
    policy: RetryPolicy,
    *,
    elapsed: float = 0.0,
    last: float = 0.0,
    u: float = 0.5,
) -> Decision:
    """Decide what happens after delivery attempt `attempt` failed.

    Args:
        reason: what `classify` said.
        attempt: the attempt that failed, from 1.
        policy: the limits.
        elapsed: seconds since the first failure of this order.
        last: seconds waited before this attempt.
        u: a draw from [0, 1) for jitter.
    """
    if reason == "fatal":
        return Stop(reason)
    if reason in ("poison", "permanent"):
        return DeadLetter(reason)
    after = policy.backoff.wait(attempt, last, u)
    if attempt < policy.max_attempts and elapsed + after <= policy.max_elapsed:
        return Retry(after)
    if policy.when_spent == "skip":
        return Skip(reason)
    return Stop(reason) if policy.when_spent == "stop" else DeadLetter(reason)
