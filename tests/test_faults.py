"""Failures on purpose: the seed, the order and the attempt decide, and nothing else."""

from __future__ import annotations

import math
import time
from statistics import correlation, fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderkit.errors import UsageError
from orderkit.orders.avro import WIRES, Codec
from orderkit.orders.faults import Faults, draw
from orderkit.orders.order import Order
from orderkit.retry import Permanent, Poison, Transient

STEADY = settings(derandomize=True, deadline=None)
MANY = 20_000
IDS = [str(number) for number in range(1, MANY + 1)]
RATES = [0.01, 0.1, 0.5, 0.93]


def order(name: str) -> Order:
    """Make an order with this id."""
    return {"orderId": name, "product": "Lamp", "price": 20.0}


def fate(faults: Faults, name: str, attempt: int = 1) -> str:
    """Strike once; say what happened."""
    try:
        faults.strike(order(name), attempt)
    except (Permanent, Transient) as failure:
        return f"{failure.reason}: {failure}"
    return "fine"


def hits(faults: Faults, reason: str, attempt: int = 1) -> int:
    """Count the ids whose attempt fails for this reason."""
    return sum(fate(faults, name, attempt).startswith(reason) for name in IDS)


def in_band(count: int, rate: float) -> bool:
    """Whether a count of hits is within four standard deviations of a binomial's mean."""
    return abs(count - MANY * rate) <= 4 * math.sqrt(MANY * rate * (1 - rate))


# --- draw


@STEADY
@given(st.integers(), st.text(max_size=20), st.integers(0, 1000), st.sampled_from(["slow", "transient"]))
def test_a_draw_is_from_0_up_to_but_not_1(seed: int, name: str, attempt: int, purpose: str) -> None:
    """Every draw lies in [0, 1) and is the same each time."""
    drawn = draw(seed, name, attempt, purpose)
    assert 0 <= drawn < 1
    assert draw(seed, name, attempt, purpose) == drawn


def test_a_draw_takes_any_text() -> None:
    """Even an id with a lone surrogate has a fate."""
    assert 0 <= draw(1, "\ud800", 1, "transient") < 1


def test_draws_by_heart() -> None:
    """Fates written down once hold on every machine and in every version."""
    assert draw(7, "1", 1, "transient") == 0.6126249720398032
    assert draw(7, "№7", 3, "back-off") == 0.9245667419774758


def test_draws_are_spread_evenly() -> None:
    """Each tenth of [0, 1) gets its share of draws."""
    shares = [0] * 10
    for name in IDS:
        shares[int(10 * draw(3, name, 1, "transient"))] += 1
    assert all(in_band(share, 0.1) for share in shares)
    assert fmean(draw(3, name, 1, "transient") for name in IDS) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("other", [(0, 2, "transient"), (0, 1, "permanent"), (1, 1, "transient"), (0, 11, "transient")])
def test_draws_know_nothing_of_each_other(other: tuple[int, int, str]) -> None:
    """Draws for another attempt, purpose or seed are uncorrelated."""
    seed, attempt, purpose = other
    one = [draw(0, name, 1, "transient") for name in IDS]
    two = [draw(seed, name, attempt, purpose) for name in IDS]
    assert abs(correlation(one, two)) < 4 / math.sqrt(MANY)


# --- fates

MIXED = Faults(5, transient_rate=0.3, permanent_rate=0.1, poison_rate=0.2, outage=(10, 20))


@STEADY
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 4)), max_size=40))
def test_a_fate_depends_on_no_other_question(asked: list[tuple[int, int]]) -> None:
    """In any order, any number of times, and by whichever instance: each (id, attempt) has one fate."""
    fresh = Faults(5, transient_rate=0.3, permanent_rate=0.1, poison_rate=0.2, outage=(10, 20))
    there = {pair: fate(MIXED, str(pair[0]), pair[1]) for pair in asked}
    back = {pair: fate(fresh, str(pair[0]), pair[1]) for pair in reversed(asked)}
    assert there == back
    assert all(fate(fresh, str(name), attempt) == there[name, attempt] for name, attempt in asked)


def test_another_seed_means_other_fates() -> None:
    """Two seeds hit different orders."""
    fates = [[fate(Faults(seed, transient_rate=0.5), name) for name in IDS[:100]] for seed in (1, 2)]
    assert fates[0] != fates[1]


@pytest.mark.parametrize("rate", RATES)
def test_transient_failures_come_at_their_rate(rate: float) -> None:
    """The share of first attempts that fail is the rate, and of second attempts too."""
    faults = Faults(1, transient_rate=rate)
    assert in_band(hits(faults, "transient"), rate)
    assert in_band(hits(faults, "transient", attempt=2), rate)


def test_each_attempt_has_a_chance_of_its_own() -> None:
    """Of the orders whose first attempt fails, the second fails at the same rate: a retry can help."""
    faults = Faults(1, transient_rate=0.3)
    both = sum(fate(faults, name, 1) != "fine" and fate(faults, name, 2) != "fine" for name in IDS)
    assert in_band(both, 0.3 * 0.3)


@pytest.mark.parametrize("rate", RATES)
def test_permanent_failures_come_at_their_rate(rate: float) -> None:
    """The share of orders that are refused is the rate."""
    assert in_band(hits(Faults(2, permanent_rate=rate), "permanent"), rate)


@pytest.mark.parametrize("rate", RATES)
def test_poison_comes_at_its_rate(rate: float) -> None:
    """The share of values that are damaged is the rate."""
    faults = Faults(3, poison_rate=rate)
    assert in_band(sum(faults.spoil(name, b"value") != b"value" for name in IDS), rate)


def test_a_rate_of_1_hits_all_and_0_none() -> None:
    """At the ends there is no chance left."""
    assert hits(Faults(1, transient_rate=1.0), "transient") == MANY
    assert hits(Faults(1), "transient") == 0
    assert all(Faults(1, poison_rate=1.0).spoil(name, b"value") == b"val" for name in IDS[:1000])
    assert all(Faults(1).spoil(name, b"value") == b"value" for name in IDS[:1000])


def test_a_higher_rate_hits_the_same_orders_and_more() -> None:
    """Moving a rate up never saves an order that was hit before."""
    few, more = Faults(4, transient_rate=0.1), Faults(4, transient_rate=0.2)
    assert {name for name in IDS if fate(few, name) != "fine"} < {name for name in IDS if fate(more, name) != "fine"}


def test_a_permanent_failure_is_permanent() -> None:
    """An order that is refused is refused at every attempt, and the others at none."""
    faults = Faults(6, permanent_rate=0.2)
    for name in IDS[:500]:
        assert len({fate(faults, name, attempt) for attempt in range(1, 6)}) == 1


def test_rates_may_change_while_orders_flow() -> None:
    """A rate that is set later holds from then on."""
    faults = Faults(1)
    assert fate(faults, "1") == "fine"
    faults.transient_rate = 1.0
    assert fate(faults, "1") == "transient: the service timed out"


# --- outage, poison, slowness


def test_an_outage_has_a_first_and_a_last_order() -> None:
    """In the spell every order fails, before and after it none."""
    faults = Faults(outage=(10, 12))
    down = [name for name in IDS[:100] if fate(faults, name) == "transient: the service is down"]
    assert down == ["10", "11", "12"]


def test_an_outage_ends_after_its_attempts() -> None:
    """The spell lasts for so many attempts of each order, and the next one succeeds."""
    faults = Faults(outage=(1, 5), outage_attempts=3)
    fates = [fate(faults, "4", attempt) for attempt in range(1, 6)]
    assert fates == ["transient: the service is down"] * 3 + ["fine"] * 2


@pytest.mark.parametrize("name", ["", "x", "-3", "3.0", "٣", "²", " 3", "9" * 5000])
def test_an_id_that_is_no_number_is_in_no_outage(name: str) -> None:
    """An outage counts orders; an id that is no plain number within it is spared."""
    assert fate(Faults(outage=(1, 5)), name) == "fine"


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", ["1", "123456", "№7", "a" * 70])
def test_spoilt_bytes_are_poison_in_every_wire_format(wire: str, name: str) -> None:
    """What was spoilt decodes as no order, alone or beside a neighbour."""
    codec = Codec(wire)
    good = codec.encode(order(name))
    spoilt = Faults(poison_rate=1.0).spoil(name, good)
    with pytest.raises(Poison):
        codec.decode(spoilt)
    assert [type(each) for each in codec.decode_batch([good, spoilt, good])] == [dict, Poison, dict]


def test_only_slow_attempts_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """`slow_for` is slept at the rate, once for each hit, by the same attempts each time; and nothing else sleeps."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    faults = Faults(8, transient_rate=0.5, permanent_rate=0.1, outage=(1, 50), slow_for=0.25)
    assert hits(faults, "permanent") > 0
    assert slept == []
    faults.slow_rate = 0.1
    hits(faults, "permanent")
    first, slept[:] = list(slept), []
    hits(faults, "permanent")
    assert slept == first
    assert set(slept) == {0.25}
    assert in_band(len(slept), 0.1)


def test_slowness_changes_no_fate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow attempt fails or succeeds as a quick one does."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    quick, slow = Faults(9, transient_rate=0.4), Faults(9, transient_rate=0.4, slow_rate=0.7)
    assert [fate(quick, name) for name in IDS[:500]] == [fate(slow, name) for name in IDS[:500]]


@pytest.mark.parametrize("rate", ["transient_rate", "permanent_rate", "poison_rate", "slow_rate"])
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_a_rate_outside_0_to_1_is_refused(rate: str, value: float) -> None:
    """A rate is a share; the refusal names it."""
    with pytest.raises(UsageError, match=rate):
        Faults(**{rate: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    """`slow_for` is a finite number of seconds, 0 or more."""
    with pytest.raises(UsageError, match="slow_for"):
        Faults(slow_for=seconds)
