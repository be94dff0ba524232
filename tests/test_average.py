"""The running average: exact, whatever the prices, their order, or how they are split."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orderkit.account.average import BITS, RunningAverage
from orderkit.consuming.saved import METADATA_LIMIT, Saved

STEADY = settings(derandomize=True, deadline=None)
TINY = 2.0**-149  # the smallest float32 above 0
HUGE = (2 - 2.0**-23) * 2.0**127  # the largest

PRICE = st.one_of(
    st.floats(min_value=0, width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, TINY, 2.0**-126 - TINY, 1.0, 2.0**24, 2.0**28, HUGE]),
    st.integers(0, 50_000).map(lambda cents: cents / 128),
)
PRICES = st.lists(PRICE, max_size=30)
# Long runs of one price beside another, around the point where a float64 sum stops being exact.
RUNS = st.builds(lambda price, times, other: [price] * times + other, PRICE, st.integers(1, 600), PRICES)


def one_by_one(prices: Sequence[float]) -> RunningAverage:
    """Add prices singly."""
    average = RunningAverage()
    for price in prices:
        average.add(price)
    return average


def at_once(prices: Sequence[float]) -> RunningAverage:
    """Add prices together."""
    average = RunningAverage()
    average.add_all(prices)
    return average


def exact(prices: Sequence[float]) -> RunningAverage:
    """Say what is right, by fractions."""
    units = sum((Fraction(price) for price in prices), Fraction(0)) * 2**BITS
    assert units.denominator == 1
    return RunningAverage(len(prices), int(units))


@STEADY
@given(PRICES)
def test_adding_equals_fractions(prices: list[float]) -> None:
    """Adding one by one loses nothing."""
    assert one_by_one(prices) == exact(prices)


@settings(STEADY, max_examples=150)
@given(st.one_of(PRICES, RUNS))
@example([1e8] * 200 + [TINY])
@example([2.0**53, 1.0, 1.0])
@example([1.0] * 3 + [2.0**-24] * 3)
@example([0.0, 2.0**24, TINY])
@example([HUGE, TINY])
@example([HUGE] * 3)
def test_adding_all_equals_adding_one_by_one(prices: list[float]) -> None:
    """The quick way gives the same integers as the slow one, for every mixture."""
    assert at_once(prices) == exact(prices)


def test_the_examples_do_break_a_float_sum() -> None:
    """Where a float64 sum goes wrong, the average does not."""
    prices = [2.0**53, *[1.0] * 1000]
    assert Fraction(sum(prices)) != sum(map(Fraction, prices))
    assert at_once(prices) == exact(prices)


@STEADY
@given(PRICES, st.data())
def test_no_order_of_arrival_changes_it(prices: list[float], data: st.DataObject) -> None:
    """Every permutation has the same sum."""
    assert at_once(data.draw(st.permutations(prices))) == at_once(prices)


@STEADY
@given(PRICES, st.lists(st.integers(0, 30), max_size=4), st.randoms(use_true_random=False))
def test_no_split_and_merge_changes_it(prices: list[float], places: list[int], chance: Random) -> None:
    """However prices are split over partitions, and in whatever order those are merged, the sum is the same."""
    cuts = [0, *sorted(places), len(prices)]
    parts = [at_once(prices[start:stop]) for start, stop in pairwise(cuts)]
    chance.shuffle(parts)
    merged = RunningAverage()
    for part in parts:
        merged = merged.merge(part)
    assert merged == exact(prices)


@STEADY
@given(PRICES, PRICES)
def test_merging_changes_neither(left: list[float], right: list[float]) -> None:
    """A merge gives a new average and leaves its two sources alone."""
    one, other = at_once(left), at_once(right)
    assert one.merge(other) == other.merge(one) == exact(left + right)
    assert (one, other) == (exact(left), exact(right))


def test_adding_nothing_adds_nothing() -> None:
    """An empty batch leaves an average as it is."""
    average = at_once([1.5])
    average.add_all([])
    assert average == RunningAverage(1, 3 << (BITS - 1))


# --- its text


@STEADY
@given(st.one_of(PRICES, RUNS))
def test_the_sum_s_text_loses_nothing(prices: list[float]) -> None:
    """The sum as text is exact and plain, and gives the same average back."""
    average = at_once(prices)
    assert re.fullmatch(r"\d+(\.\d*[1-9])?", average.sum)
    assert Fraction(average.sum) * 2**BITS == average.total
    assert RunningAverage.from_sum(average.count, average.sum) == average


@pytest.mark.parametrize(
    "text",
    [
        "",
        "price",
        "1,5",
        "0.1",
        "1e-150",
        "NaN",
        "sNaN",
        "Infinity",
        "-Infinity",
        "-1",
        "1e600",
        "1e9999999",
        f"1{'0' * 600}.5",
    ],
)
def test_a_text_that_is_no_sum_is_refused(text: str) -> None:
    """What no prices add up to raises ValueError, and nothing else."""
    with pytest.raises(ValueError, match=r"."):
        RunningAverage.from_sum(3, text)


# --- rounding


@STEADY
@given(PRICES, st.integers(0, 8))
def test_rounding_is_half_to_even_of_the_exact_average(prices: list[float], places: int) -> None:
    """The shown average is the exact one, rounded once, half to even, in plain digits."""
    average = at_once(prices)
    mean = Fraction(average.total, len(prices) << BITS) if prices else Fraction(0)
    shown = average.rounded(places)
    assert re.fullmatch(rf"\d+\.\d{{{places}}}" if places else r"\d+", shown)
    assert Fraction(shown) == Fraction(round(mean * 10**places), 10**places)
    assert json.loads(json.dumps({"average": shown}))["average"] == shown


@pytest.mark.parametrize(
    ("prices", "places", "shown"),
    [
        ([], 4, "0.0000"),
        ([0.5], 0, "0"),
        ([1.5], 0, "2"),
        ([2.5], 0, "2"),
        ([0.125], 2, "0.12"),
        ([0.375], 2, "0.38"),
        ([1.0, 2.0, 2.0], 4, "1.6667"),
        ([100.0], 2, "100.00"),
        ([TINY], 4, "0.0000"),
        ([1.0, 1.0, 0.00001], 2, "0.67"),
    ],
)
def test_rounding_by_hand(prices: list[float], places: int, shown: str) -> None:
    """Halves go to the even neighbour; zeros at the end stay."""
    assert at_once(prices).rounded(places) == shown


def test_the_usual_number_of_places_is_four() -> None:
    """Money is shown with at least two places; the kit shows four."""
    assert at_once([1.0, 2.0]).rounded() == "1.5000"


@STEADY
@given(PRICES)
def test_the_mean_is_the_nearest_float(prices: list[float]) -> None:
    """The float for charts is the exact average, rounded once; 0.0 before the first price."""
    average = at_once(prices)
    wanted = float(Fraction(average.total, len(prices) << BITS)) if prices else 0.0
    assert average.mean == wanted


# --- its place in a commit


def test_the_worst_average_fits_into_a_commit() -> None:
    """The longest text an average can have stays far below the limit of a commit's metadata."""
    most = 2**63 - 1
    worst = RunningAverage(most, most * int(HUGE * 2.0**BITS) - 1)
    saved = Saved(worst, dead=most, skipped=most, attempts=most, since=1.7976931348623157e308)
    assert len(saved.to_text(most).encode()) < METADATA_LIMIT // 4
    assert Saved.from_text(saved.to_text(most), most) == saved
    assert Decimal(worst.rounded()) > 0
