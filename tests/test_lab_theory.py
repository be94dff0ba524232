"""Every closed-form line of notebooks 01 to 07 agrees with what is measured, within its stated band, over 100 seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer
from helpers import fate, shared

from orderkit.brokers import EmbeddedBroker
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order, random_orders
from orderkit.retry import Failure, Permanent, RetryPolicy, Transient
from orderkit.retry.backoff import Backoff, exponential
from orderkit.run import Run

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

from orderkit import lab
from orderkit.lab.arrival import quick
from orderkit.lab.crashes import Handle, doubled, skipped
from orderkit.lab.fates import planned_retries, progress, wait_band
from orderkit.lab.waiting import BIN, arrival_band, kept, measured_waits, spread_out

SEEDS = range(100)
WORKERS = 6  # small runs at one time; each waits most of its life
ENOUGH = 88  # of 100: a band for 95 holds fewer in one of a thousand such tests


@pytest.fixture(scope="module")
def swift() -> Iterator[EmbeddedBroker]:
    """Open a broker whose producers do not wait half a second for an id."""
    with EmbeddedBroker({}) as broker:
        broker.connection = quick(broker)
        yield broker


def orders(seed: int, many: int) -> list[Order]:
    """Give the first random orders of a seed."""
    return list(islice(random_orders(seed), many))


def in_band(measured: list[int], share: float, many: int) -> int:
    """Count those within two deviations of `many * share`."""
    spread = 2 * (many * share * (1 - share)) ** 0.5
    return sum(abs(one - many * share) <= spread for one in measured)


# 01


def dead_by_a_flip(seed: int, many: int) -> tuple[float, int]:
    """Flip a bit of each order: the share that theory says will be found out, and the number that was."""
    codec, flips, share, dead = Codec(), lab.BitFlips(seed), 0.0, 0
    for order in orders(seed, many):
        value = codec.encode(order)
        share += 1 - lab.silent_flips(order) / (8 * len(value))
        try:
            codec.decode(flips.spoil(order["orderId"], value))
        except Failure:
            dead += 1
    return share / many, dead


def test_damage_that_is_found_out() -> None:
    """Of 8b bits, 7c + 31 go unseen; the others make a dead letter."""
    pairs = [dead_by_a_flip(seed, 100) for seed in SEEDS]
    assert sum(in_band([dead], share, 100) for share, dead in pairs) >= ENOUGH
    assert sum(dead for _, dead in pairs) == pytest.approx(sum(100 * share for share, _ in pairs), rel=0.02)


# 02


def test_the_funnel_holds_the_average() -> None:
    """The mean of n random orders lies within two standard errors of the true mean."""
    many, mean, spread = 500, lab.true_mean(), lab.true_spread()
    means = np.array([np.mean([order["price"] for order in orders(seed, many)]) for seed in SEEDS])
    assert (abs(means - mean) <= 2 * spread / many**0.5).sum() >= ENOUGH
    assert means.mean() == pytest.approx(mean, abs=3 * spread / (many * len(SEEDS)) ** 0.5)
    assert means.std() == pytest.approx(spread / many**0.5, rel=0.25)


# 03


@pytest.mark.parametrize(("pace", "seconds"), [(100, 0.5), (200, 0.3), (400, 0.6), (50, 0.8)])
def test_what_waits_is_pace_times_outage(pace: int, seconds: float) -> None:
    """Nothing here depends on a seed: the most that wait lie between pace times outage and half a second more."""
    with EmbeddedBroker({}) as broker:
        burst = lab.Burst(broker, orders=int(pace * (seconds + 1) * 1.5), pace=pace, seconds_down=seconds)
    low, high = burst.band
    assert low <= burst.most_waiting
    assert high == pytest.approx(low + 4 + 0.5 * pace)
    assert burst.inside or burst.most_waiting < low + pace * 2.0, "not even on a machine that is busy"
    assert (burst.produced.acknowledged, burst.produced.failed) == (burst.orders, 0)


# 04


def before(size: int) -> Callable[[Consumer, Handle], None]:
    """Make a loop that commits a batch before it handles it."""

    def loop(client: Consumer, handle: Handle) -> None:
        for some in lab.batches(client, size):
            client.commit(message=some[-1], asynchronous=False)
            for message in some:
                handle(message)

    return loop


def after(size: int) -> Callable[[Consumer, Handle], None]:
    """Make a loop that commits a batch after it has handled it."""

    def loop(client: Consumer, handle: Handle) -> None:
        for some in lab.batches(client, size):
            for message in some:
                handle(message)
            client.commit(message=some[-1], asynchronous=False)

    return loop


def test_crashes_cost_what_theory_says() -> None:
    """Real clients die at 100 drawn places: lost and doubled orders are exactly those of the closed form."""
    shop = lab.Bench(shared(), orders=24)

    def one(seed: int) -> tuple[list[int], list[int]]:
        chance = Random(seed)
        size = chance.choice((1, 2, 3, 4, 6, 8, 12, 24))
        at = chance.randint(1, 24)
        lost, twice = lab.crash(shop, before(size), at), lab.crash(shop, after(size), at)
        assert {*lost} <= {0, 1}
        assert {*twice} <= {1, 2}
        return [lost.count(0), twice.count(2)], [skipped(at, size), doubled(at, size)]

    with ThreadPoolExecutor(8) as pool:  # a client waits most of its life
        for measured, theory in pool.map(one, SEEDS):
            assert measured == theory


# 05 and 07


def attempts_until(faults: Faults, order: Order, most: int) -> tuple[int, str]:
    """Play an order's attempts: how many it had, and what it died of, if it did."""
    if faults.spoil(order["orderId"], b"bytes") != b"bytes":
        return 1, "poison"
    for attempt in range(1, most + 1):
        try:
            faults.strike(order, attempt)
        except Permanent:
            return attempt, "permanent"
        except Transient:
            continue
        return attempt, ""
    return most, "transient"


def test_attempts_are_a_geometric_series() -> None:
    """Of n orders, n p^(i - 1) come to attempt i, within the band at each place."""
    many, p, k = 200, 0.5, 4
    made = np.zeros((len(SEEDS), k))
    for seed in SEEDS:
        faults = Faults(seed, p)
        for order in orders(seed, many):
            made[seed, : attempts_until(faults, order, k)[0]] += 1
    assert (made[:, 0] == many).all()
    for i in range(1, k):
        assert in_band([int(n) for n in made[:, i]], p**i, many) >= ENOUGH
    assert made.sum(axis=1).mean() == pytest.approx(many * (1 - p**k) / (1 - p), rel=0.02)


def test_each_reason_has_its_share() -> None:
    """Poison r, permanent (1 - r) q, transient (1 - r)(1 - q) p^k, each within its band."""
    many, r, q, p, k = 200, 0.1, 0.1, 0.5, 3
    shares = {"poison": r, "permanent": (1 - r) * q, "transient": (1 - r) * (1 - q) * p**k}
    dead: dict[str, list[int]] = {reason: [] for reason in shares}
    for seed in SEEDS:
        faults = Faults(seed, p, q, r)
        ends = [attempts_until(faults, order, k)[1] for order in orders(seed, many)]
        for reason, some in dead.items():
            some.append(ends.count(reason))
    for reason, share in shares.items():
        assert in_band(dead[reason], share, many) >= ENOUGH
        assert sum(dead[reason]) / len(SEEDS) == pytest.approx(many * share, rel=0.06)


def blind(_error: BaseException) -> Any:
    """Take every failure for a transient one."""
    return "transient"


@pytest.mark.parametrize("seed", range(4))
def test_a_run_keeps_to_its_plan(seed: int) -> None:
    """A real run has the attempts, the retries and the reasons that the fault plan says, whoever classifies."""
    many, k = 200, 4
    rates: dict[str, Any] = {"failure_rate": 0.3, "permanent_rate": 0.1, "poison_rate": 0.1}
    plan, made = Faults(seed, 0.3, 0.1, 0.1), orders(seed, many)
    seeing = lab.experiment(shared(), orders=many, max_attempts=k, seed=seed, **rates).start()
    sightless = lab.experiment(shared(), orders=many, max_attempts=k, seed=seed, classify=blind, **rates).start()
    ends = [attempts_until(plan, order, k) for order in made]
    assert lab.attempts_made(seeing.wait(30)) == [sum(n >= i for n, _ in ends) for i in range(1, k + 1)]
    assert seeing.ledger.reasons == Counter(end for _, end in ends if end)
    assert seeing.ledger.retries == lab.planned_retries(made, plan, k)
    assert sightless.wait(30).ledger.retries == lab.planned_retries(made, plan, k, blind=True)


def test_a_wrong_call_costs_m_times_k_less_one_waits() -> None:
    """Over 100 seeds the blind classifier makes m (k - 1) retries where the other makes none."""
    many, k = 100, 5
    for seed in SEEDS:
        plan, made = Faults(seed, permanent_rate=0.1), orders(seed, many)
        refused = sum(not fate(order, plan) for order in made)
        assert lab.planned_retries(made, plan, k) == 0
        assert lab.planned_retries(made, plan, k, blind=True) == refused * (k - 1)


@pytest.mark.campaign
def test_a_partition_waits_for_its_retries_one_after_the_other(swift: EmbeddedBroker) -> None:
    """On one partition the last fate comes in the drawn band after all planned waits, in 95 of 100 runs or more."""
    calm: dict[str, Any] = {"failure_rate": 0, "permanent_rate": 0.2, "backoff": "fixed", "backoff_base": 0.05}

    def one(seed: int) -> tuple[float, float]:
        run = lab.experiment(swift, orders=20, seed=seed, classify=blind, partitions=1, **calm).start().wait(60)
        times, finished = progress(run)
        assert finished[-1] == 20
        retries = planned_retries(orders(seed, 20), Faults(seed, permanent_rate=0.2), 3, blind=True)
        return 0.05 * retries, times[-1] + 1e-3

    with ThreadPoolExecutor(WORKERS) as pool:
        pairs = list(pool.map(one, SEEDS))
    bands = [(wait_band(planned), took) for planned, took in pairs]
    assert all(low <= took for (low, _), took in bands)
    assert sum(took <= high for (_, high), took in bands) >= 95
    assert sum(planned for planned, _ in pairs) > 30


# 06


@pytest.mark.parametrize(("clients", "attempts", "base", "cap"), [(200, 5, 1.0, 8.0), (100, 4, 0.5, 1.0)])
def test_the_herd_lies_in_its_band(clients: int, attempts: int, base: float, cap: float) -> None:
    """Under full jitter 95 of 100 columns hold what the band allows, and the mean is theory's in every one."""
    edges = np.arange(0, 20, BIN)
    expected = spread_out(edges, clients, attempts, base, cap)
    low, high = arrival_band(expected)
    counts = np.array([
        np.histogram(lab.herd(Backoff("full-jitter", base, cap), clients, attempts, seed)[:, 1:] + 1e-9, edges)[0]
        for seed in SEEDS
    ])  # fmt: skip
    some = expected > 0.01
    assert ((counts >= low) & (counts <= high))[:, some].mean() >= 0.95
    assert expected.sum() == pytest.approx(clients * (attempts - 1))
    deviations = (counts.mean(axis=0) - expected)[some] / np.sqrt(expected[some] / len(SEEDS))
    assert abs(deviations).max() < 4.5


def test_jitter_halves_the_waiting() -> None:
    """The waits add up to base (2^(k - 1) - 1); with full jitter to half of it."""
    for k in range(2, 7):
        whole = sum(exponential(0.5, 1e9, i, 0.0, 0.0) for i in range(1, k))
        assert whole == 0.5 * (2 ** (k - 1) - 1)
        drawn = [lab.herd(Backoff("full-jitter", 0.5, 1e9), 20, k, seed)[:, -1].mean() for seed in SEEDS]
        assert np.mean(drawn) == pytest.approx(whole / 2, rel=0.05)


def test_without_jitter_the_peak_is_everybody() -> None:
    """Fixed and exponential waits bring all clients back in one column; full jitter never does."""
    for seed in SEEDS:
        some = {
            kind: lab.herd(Backoff(kind, 1.0, 8.0), 50, 4, seed) for kind in ("fixed", "exponential", "full-jitter")
        }
        assert lab.peak(some["fixed"]) == lab.peak(some["exponential"]) == 50
        assert lab.peak(some["full-jitter"]) < 25


@pytest.mark.parametrize("seeds", [SEEDS[:5], pytest.param(SEEDS, marks=pytest.mark.campaign)], ids=len)
def test_waits_are_kept(swift: EmbeddedBroker, seeds: range) -> None:
    """No attempt comes before the wait that was promised; over 100 runs, 95 of 100 come in the drawn band."""
    policy = RetryPolicy(4, Backoff("full-jitter", 0.05, 2.0))

    def one(seed: int) -> list[tuple[float, float]]:
        run = Run(swift, orders=20, seed=seed, faults=Faults(seed, 0.4), policy=policy).start().wait(60)
        pairs = measured_waits(run)
        assert len(pairs) == run.ledger.retries == lab.planned_retries(orders(seed, 20), Faults(seed, 0.4), 4)
        return pairs

    with ThreadPoolExecutor(WORKERS) as pool:
        pairs = [pair for some in pool.map(one, seeds) for pair in some]
    assert len(pairs) > 10 * len(seeds)
    assert all(real >= promised - 1e-3 for promised, real in pairs)
    assert seeds != SEEDS or kept(pairs) >= 0.95 * len(pairs)
