"""The policy: what a failure means, and what `decide` makes of it."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderkit.errors import UsageError
from orderkit.retry import (
    DeadLetter,
    Decision,
    Failure,
    Fatal,
    Permanent,
    Poison,
    Reason,
    Retry,
    RetryPolicy,
    Skip,
    Stop,
    Transient,
    WhenSpent,
    classify,
    decide,
    root_cause,
)
from orderkit.retry.backoff import FORMULAS, Backoff

STEADY = settings(derandomize=True, deadline=None, max_examples=150)
REASONS: list[Reason] = ["poison", "permanent", "transient", "fatal"]
ENDS: dict[WhenSpent, Decision] = {
    "dead-letter": DeadLetter("transient"),
    "skip": Skip("transient"),
    "stop": Stop("transient"),
}

TIMES = st.floats(min_value=0, max_value=1e6)
DRAWS = st.floats(min_value=0, max_value=1, exclude_max=True)
BACKOFFS = st.builds(Backoff, st.sampled_from(sorted(FORMULAS)), TIMES, TIMES)
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 12),
    backoff=BACKOFFS,
    max_elapsed=st.one_of(st.just(math.inf), st.floats(min_value=1e-3, max_value=1e6)),
    when_spent=st.sampled_from(list(ENDS)),
)


# --- decide


@STEADY
@given(st.sampled_from(REASONS), st.integers(1, 50), POLICIES, TIMES, TIMES, DRAWS)
def test_decide_has_one_answer_to_everything(
    reason: Reason, attempt: int, policy: RetryPolicy, elapsed: float, last: float, u: float
) -> None:
    """`decide` answers every question, the same way each time, with a decision that carries the reason."""
    decision = decide(reason, attempt, policy, elapsed=elapsed, last=last, u=u)
    assert decide(reason, attempt, policy, elapsed=elapsed, last=last, u=u) == decision
    if isinstance(decision, Retry):
        assert decision.after == policy.backoff.wait(attempt, last, u)
    else:
        assert isinstance(decision, DeadLetter | Skip | Stop)
        assert decision.reason == reason


@STEADY
@given(st.integers(1, 50), POLICIES, TIMES, TIMES, DRAWS)
def test_a_retry_keeps_within_its_limits(
    attempt: int, policy: RetryPolicy, elapsed: float, last: float, u: float
) -> None:
    """A transient failure is retried exactly while attempts are left and the next one is not too late."""
    decision = decide("transient", attempt, policy, elapsed=elapsed, last=last, u=u)
    in_time = elapsed + policy.backoff.wait(attempt, last, u) <= policy.max_elapsed
    if attempt < policy.max_attempts and in_time:
        assert isinstance(decision, Retry)
    else:
        assert decision == ENDS[policy.when_spent]


@STEADY
@given(st.sampled_from(REASONS), st.integers(0, 50), POLICIES, TIMES)
def test_no_retry_when_all_attempts_are_spent(reason: Reason, over: int, policy: RetryPolicy, elapsed: float) -> None:
    """At the last attempt, and beyond, nothing is retried."""
    assert not isinstance(decide(reason, policy.max_attempts + over, policy, elapsed=elapsed), Retry)


@STEADY
@given(st.integers(1, 50), POLICIES, TIMES, TIMES, DRAWS)
def test_some_failures_ask_no_policy(attempt: int, policy: RetryPolicy, elapsed: float, last: float, u: float) -> None:
    """Poison and permanent failures are dead letters at once and fatal ones stop, under any policy."""
    asked = {"elapsed": elapsed, "last": last, "u": u}
    assert decide("poison", attempt, policy, **asked) == DeadLetter("poison")
    assert decide("permanent", attempt, policy, **asked) == DeadLetter("permanent")
    assert decide("fatal", attempt, policy, **asked) == Stop("fatal")


def deliveries(policy: RetryPolicy) -> tuple[list[float], Decision]:
    """Deliver an order that always fails; give the time of each delivery, and how it ended."""
    times, wait = [0.0], 0.0
    while True:
        decision = decide("transient", len(times), policy, elapsed=times[-1], last=wait)
        if not isinstance(decision, Retry):
            return times, decision
        wait = decision.after
        times.append(times[-1] + wait)


@STEADY
@given(st.integers(1, 40), BACKOFFS, st.sampled_from(list(ENDS)))
def test_three_attempts_are_three_deliveries(most: int, backoff: Backoff, end: WhenSpent) -> None:
    """An order that always fails is delivered exactly `max_attempts` times, and ends as `when_spent` says."""
    times, decision = deliveries(RetryPolicy(most, backoff, when_spent=end))
    assert len(times) == most
    assert decision == ENDS[end]


@STEADY
@given(POLICIES)
def test_no_delivery_comes_too_late(policy: RetryPolicy) -> None:
    """No delivery is later than `max_elapsed` after the first failure, and none beyond `max_attempts`."""
    times, decision = deliveries(policy)
    assert times[-1] <= policy.max_elapsed
    assert len(times) <= policy.max_attempts
    assert decision == ENDS[policy.when_spent]


def test_decisions_by_hand() -> None:
    """The usual policy: three deliveries, 0.1 s and 0.2 s apart, then a dead letter."""
    policy = RetryPolicy()
    decisions = [decide("transient", attempt, policy) for attempt in (1, 2, 3)]
    assert decisions == [Retry(0.1), Retry(0.2), DeadLetter("transient")]


def test_the_limit_of_time_includes_its_last_moment() -> None:
    """A retry that falls exactly on `max_elapsed` is made; one a moment later is not."""
    policy = RetryPolicy(9, Backoff("fixed", 1.0), max_elapsed=3.0)
    assert decide("transient", 1, policy, elapsed=2.0) == Retry(1.0)
    assert decide("transient", 1, policy, elapsed=2.001) == DeadLetter("transient")


def test_a_policy_does_not_change() -> None:
    """A policy is one value: nobody can alter it while orders flow."""
    policy = RetryPolicy()
    with pytest.raises(FrozenInstanceError):
        policy.max_attempts = 9  # type: ignore[misc]


@pytest.mark.parametrize(("attempts", "elapsed"), [(0, 1.0), (-1, 1.0), (3, 0.0), (3, -1.0), (3, math.nan)])
def test_bad_limits_are_refused(attempts: int, elapsed: float) -> None:
    """A policy without any attempt, or without any time, is refused in one line."""
    with pytest.raises(UsageError) as caught:
        RetryPolicy(attempts, max_elapsed=elapsed)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_end_is_refused_with_the_choice() -> None:
    """What becomes of a spent order is one of three words."""
    with pytest.raises(UsageError, match="dead-letter, skip, stop"):
        RetryPolicy(when_spent="forget")  # type: ignore[arg-type]


# --- classify


class Rejected(Permanent):
    """A reader's own kind of permanent failure."""


class SlowDatabase(OSError):
    """A failure of somebody else's library."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Poison(), "poison"),
        (Permanent(), "permanent"),
        (Transient(), "transient"),
        (Fatal(), "fatal"),
        (Rejected(), "permanent"),
        (TypeError(), "fatal"),
        (AttributeError(), "fatal"),
        (NameError(), "fatal"),
        (UnboundLocalError(), "fatal"),
        (ModuleNotFoundError(), "fatal"),
        (AssertionError(), "fatal"),
        (NotImplementedError(), "fatal"),
        (MemoryError(), "fatal"),
        (RecursionError(), "fatal"),
        (ValueError(), "permanent"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "permanent"),
        (KeyError(), "permanent"),
        (IndexError(), "permanent"),
        (ZeroDivisionError(), "permanent"),
        (OverflowError(), "permanent"),
        (TimeoutError(), "transient"),
        (ConnectionResetError(), "transient"),
        (OSError(), "transient"),
        (SlowDatabase(), "transient"),
        (RuntimeError(), "transient"),
        (Exception(), "transient"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_an_exception_means(error: Exception, reason: Reason) -> None:
    """The four kinds speak for themselves; bugs are fatal, bad data permanent, all else transient."""
    assert classify(error) == reason


def test_a_failure_of_no_kind_has_an_answer_too() -> None:
    """A handler that raises the bare `Failure`, or a kind without a reason, does not break the loop."""
    assert classify(Failure("?")) in REASONS


# --- root_cause


def raised(
    error: Exception,
    *,
    by: BaseException | None = None,
    during: BaseException | None = None,
    hidden: bool = False,
) -> BaseException:
    """Raise `error` from `by` (None when `hidden`), while `during` is handled; give it as Python has chained it."""
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        try:
            if during is not None:
                raise during
        finally:
            if by is not None or hidden:
                raise error from by
            raise error
    return caught.value


def test_the_root_of_a_lone_exception_is_itself() -> None:
    """An exception without a cause is its own root."""
    error = ValueError("alone")
    assert root_cause(raised(error)) is error


def test_the_root_is_found_through_explicit_causes() -> None:
    """`raise ... from` is followed to its end."""
    first = OSError("first")
    second = raised(ValueError("second"), by=first)
    assert root_cause(raised(Transient("third"), by=second)) is first


def test_the_root_is_found_through_implicit_context() -> None:
    """An exception raised while another was handled leads back to it."""
    first = OSError("first")
    second = raised(ValueError("second"), during=first)
    assert second.__cause__ is None
    assert root_cause(raised(KeyError("third"), during=second)) is first


def test_an_explicit_cause_goes_before_the_context() -> None:
    """Where an exception has both, the cause its author named is followed."""
    named, handled = KeyError("named"), OSError("handled")
    error = raised(ValueError("second"), by=named, during=handled)
    assert error.__context__ is handled
    assert root_cause(error) is named


def test_a_suppressed_context_is_not_followed() -> None:
    """`raise ... from None` hides what came before."""
    shown = raised(ValueError("shown"), during=OSError("hidden"), hidden=True)
    assert shown.__context__ is not None
    assert root_cause(shown) is shown


@pytest.mark.timeout(10)
def test_a_circle_of_causes_ends() -> None:
    """Exceptions that name each other as the cause, or themselves, are no endless loop."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert root_cause(one) in (one, other)
    alone = ValueError("alone")
    alone.__context__ = alone
    assert root_cause(alone) is alone


def test_a_cause_that_is_false_is_a_cause() -> None:
    """An exception whose truth value is false, such as an empty collection of errors, is followed like any other."""

    class Errors(Exception):
        def __len__(self) -> int:
            return 0

    first = Errors()
    assert root_cause(raised(ValueError("second"), by=first)) is first
