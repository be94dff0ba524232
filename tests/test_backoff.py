"""The back-off formulas: their bounds, their shapes, and their numbers by hand."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orderkit.errors import UsageError
from orderkit.retry.backoff import FORMULAS, Backoff

STEADY = settings(derandomize=True, deadline=None)
SECONDS = st.floats(min_value=0, max_value=1e6)
DRAWS = st.floats(min_value=0, max_value=1, exclude_max=True)
ATTEMPTS = st.integers(1, 10**6)
KINDS = st.sampled_from(sorted(FORMULAS))


@settings(STEADY, max_examples=200)
@given(KINDS, SECONDS, SECONDS, ATTEMPTS, SECONDS, DRAWS)
@example("exponential", 1e6, 1e6, 10**6, 0.0, 0.0)
@example("decorrelated", 5.0, 1.0, 1, 1e6, 0.9)
def test_no_wait_is_negative_or_above_the_cap(
    kind: str, base: float, cap: float, attempt: int, last: float, u: float
) -> None:
    """Every formula, asked anything, gives a time from 0 to the cap, and the same one again."""
    backoff = Backoff(kind, base, cap)
    wait = backoff.wait(attempt, last, u)
    assert 0 <= wait <= cap
    assert backoff.wait(attempt, last, u) == wait


@STEADY
@given(SECONDS, SECONDS, ATTEMPTS, SECONDS, DRAWS)
def test_jitter_stays_within_its_part_of_the_exponential(
    base: float, cap: float, attempt: int, last: float, u: float
) -> None:
    """Full jitter lies between 0 and the exponential wait, equal jitter in its upper half."""
    whole = Backoff("exponential", base, cap).wait(attempt)
    assert 0 <= Backoff("full-jitter", base, cap).wait(attempt, last, u) <= whole
    assert whole / 2 <= Backoff("equal-jitter", base, cap).wait(attempt, last, u) <= whole


@STEADY
@given(SECONDS, SECONDS, ATTEMPTS, SECONDS, DRAWS)
def test_decorrelated_lies_between_base_and_three_times_the_last(
    base: float, cap: float, attempt: int, last: float, u: float
) -> None:
    """The decorrelated wait is at least the base and at most three times the wait before, both below the cap."""
    wait = Backoff("decorrelated", base, cap).wait(attempt, last, u)
    highest = min(cap, 3 * max(last, base))
    assert min(cap, base) <= wait
    assert wait <= highest or math.isclose(wait, highest)


def test_a_chain_of_decorrelated_waits_keeps_its_bounds() -> None:
    """Fed with its own last wait, decorrelated back-off wanders between base and cap, and reaches far up."""
    backoff, chance, last = Backoff("decorrelated", 0.1, 30.0), random.Random(5), 0.0
    waits = []
    for attempt in range(1, 2000):
        last = backoff.wait(attempt, last, chance.random())
        waits.append(last)
    assert min(waits) >= 0.1
    assert max(waits) == 30.0
    assert waits[0] <= 0.3


@STEADY
@given(SECONDS, SECONDS, ATTEMPTS)
def test_exponential_never_falls(base: float, cap: float, attempt: int) -> None:
    """A later attempt never waits less, and doubles as long as the cap is far."""
    backoff = Backoff("exponential", base, cap)
    now, then = backoff.wait(attempt), backoff.wait(attempt + 1)
    assert now <= then
    assert then == min(cap, 2 * now) or now == cap


@STEADY
@given(st.sampled_from(["fixed", "exponential"]), SECONDS, SECONDS, ATTEMPTS, SECONDS, DRAWS)
def test_without_jitter_no_draw_matters(
    kind: str, base: float, cap: float, attempt: int, last: float, u: float
) -> None:
    """Fixed and exponential back-off look at neither the draw nor the wait before."""
    backoff = Backoff(kind, base, cap)
    assert backoff.wait(attempt, last, u) == backoff.wait(attempt)


@pytest.mark.parametrize(("kind", "mean"), [("full-jitter", 0.4), ("equal-jitter", 0.6), ("decorrelated", 0.2)])
def test_jitter_is_spread_evenly(kind: str, mean: float) -> None:
    """Over many draws the mean is the middle of the range, and every tenth of it gets its share."""
    backoff, chance = Backoff(kind, 0.1, 30.0), random.Random(1)
    last = 0.1
    waits = [backoff.wait(4, last, chance.random()) for _ in range(20_000)]
    low, high = backoff.wait(4, last, 0.0), backoff.wait(4, last, 1.0)
    assert fmean(waits) == pytest.approx(mean, rel=0.01)
    shares = [0] * 10
    for wait in waits:
        shares[int(10 * (wait - low) / (high - low))] += 1
    assert all(1800 < share < 2200 for share in shares)


@pytest.mark.parametrize(
    ("backoff", "waits"),
    [
        (Backoff("fixed", 0.5), [0.5, 0.5, 0.5, 0.5, 0.5]),
        (Backoff("fixed", 5.0, cap=2.0), [2.0, 2.0]),
        (Backoff("exponential", 0.5), [0.5, 1.0, 2.0, 4.0, 8.0]),
        (Backoff("exponential", 1.0, cap=5.0), [1.0, 2.0, 4.0, 5.0, 5.0]),
        (Backoff("full-jitter", 1.0), [0.25, 0.5, 1.0, 2.0]),
        (Backoff("equal-jitter", 1.0), [0.625, 1.25, 2.5, 5.0]),
        (Backoff("decorrelated", 1.0), [1.5, 1.5, 1.5]),  # 1 + a quarter of 3 - 1
        (Backoff("exponential", 0.0), [0.0, 0.0, 0.0]),
        (Backoff("exponential", 1.0, cap=0.0), [0.0, 0.0]),
    ],
)
def test_waits_by_hand(backoff: Backoff, waits: list[float]) -> None:
    """The first waits are those of the written formulas, for a draw of a quarter."""
    assert [backoff.wait(attempt, u=0.25) for attempt in range(1, len(waits) + 1)] == waits


def test_decorrelated_by_hand() -> None:
    """With a wait of 4 s before and a base of 1 s, a draw of a half gives 1 + (12 - 1) / 2 seconds."""
    assert Backoff("decorrelated", 1.0).wait(3, last=4.0, u=0.5) == 6.5


def test_a_huge_attempt_is_no_overflow() -> None:
    """The millionth attempt waits for the cap."""
    assert Backoff("exponential", 1e300, 60.0).wait(10**6) == 60.0


@pytest.mark.parametrize(
    ("kind", "base", "cap"),
    [
        ("linear", 1.0, 1.0),
        ("fixed", -0.1, 1.0),
        ("fixed", 1.0, -1.0),
        ("fixed", math.nan, 1.0),
        ("fixed", 1.0, math.nan),
        ("fixed", math.inf, 1.0),
        ("fixed", 1.0, math.inf),
    ],
)
def test_bad_numbers_are_refused(kind: str, base: float, cap: float) -> None:
    """An unknown kind and times that are negative, infinite or no number are refused in one line."""
    with pytest.raises(UsageError) as caught:
        Backoff(kind, base, cap)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_kind_is_answered_with_the_choice() -> None:
    """The refusal of an unknown kind lists all that there are."""
    with pytest.raises(UsageError, match=", ".join(FORMULAS)):
        Backoff("linear")
