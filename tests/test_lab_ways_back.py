"""Closed forms of the notebooks from dead letters on, each against a hundred seeds or the plan of a seed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason='notebooks need the extra: pip install "orderkit[lab]"')

from helpers import fate, shared

from orderkit import Faults, lab, random_orders
from orderkit.lab.lines import Line, blocked, failing, line, line_band, queue
from orderkit.lab.speed import WORK, commits_theory, idle_band, pauses
from orderkit.lab.ways_back import left_after, rounds_band

SEEDS = range(100)
# A client fetches one batch after the other, and each fills its queue: it has to pause, however fast it is read from.
# It looks at its queue a moment after a batch has come. Three thousand records may be read by then (one time in four,
# here), nine thousand never were; and the count alone ends a batch, not the time that a busy machine takes for it.
MANY = 36_000
BATCHES: dict[str, Any] = {"linger_ms": 10_000, "batch_num_messages": 9000}
SMALL_QUEUE: dict[str, Any] = {"queued_min_messages": 2000, "fetch_wait_max_ms": 20, "fetch_message_max_bytes": 1000}
WORKERS = 6  # small runs at one time; each waits most of its life


def test_the_dead_of_each_round_lie_in_the_band() -> None:
    """Of 100 seeds, about 95 lie in the band after the first try and after each of two replays; none is biased."""
    n, p, k = 400, 0.6, 2
    runs = [left_after(n, seed * 10, p, k, 2) for seed in SEEDS]
    for round_, share in enumerate(p ** (k * (r + 1)) for r in range(3)):
        low, high = rounds_band(n, share)
        assert sum(low <= run[round_] <= high for run in runs) >= 89
        assert sum(run[round_] for run in runs) / len(runs) == pytest.approx(n * share, rel=0.05)


def test_the_records_of_retry_topics_are_as_many_as_theory_says() -> None:
    """Of 100 seeds, about 95 have a number of failing orders within two deviations of n times the share."""
    n, share = 400, 0.05
    spread = 2 * (n * share * (1 - share)) ** 0.5
    many = [len(failing(list(islice(random_orders(seed), n)), share, seed)) for seed in SEEDS]
    assert sum(abs(bad - n * share) <= spread for bad in many) >= 89
    assert sum(many) / len(many) == pytest.approx(n * share, rel=0.1)


def test_lindley_is_what_a_clerk_would_write_down() -> None:
    """The formula gives what acting it out gives: each starts when it has come and the one before it is done."""
    for seed in SEEDS:
        orders = list(islice(random_orders(seed), 200))
        blocks = blocked(orders, failing(orders, 0.1, seed), 0.4)
        free, acted = 0.0, []
        for i, block in enumerate(blocks):
            start = max(free, i * 0.01)
            acted.append(start - i * 0.01)
            free = start + block
        assert queue(blocks, 0.01) == pytest.approx(acted)


def in_band(one: Line, seconds: float, pace: float) -> list[bool]:
    """Say of each healthy order whether its wait lies in the band that is drawn around Lindley's line."""
    low, high = line_band(queue(blocked(one.orders, one.bad, seconds), 1 / pace))
    return [low[i] <= wait <= high[i] for i, wait in one.waits()]


@pytest.mark.campaign
def test_lines_wait_as_lindley_says() -> None:
    """In 100 lines with 20 orders each, 9 of 10 healthy orders or more wait as long as the drawn band says.

    What else the machine does can only spoil a try, so there are three.
    """
    told: dict[str, Any] = {"orders": 20, "pace": 100, "failure_rate": 0.1, "max_attempts": 3, "backoff_base": 0.05}
    broker = shared()

    def share_inside() -> float:
        with ThreadPoolExecutor(WORKERS) as pool:
            lines = list(pool.map(lambda seed: line(broker, "pause", seed=seed, **told), SEEDS))
        assert sum(len(one.bad) for one in lines) > 150
        inside = [good for one in lines for good in in_band(one, 0.1, 100)]
        return sum(inside) / len(inside)

    assert any(share_inside() >= 0.9 for _ in range(3))


def test_a_line_waits_only_with_the_engine_pause() -> None:
    """Healthy orders wait what the formula says behind a failing one, up to the slack; with key parking they do not."""
    told = {"orders": 80, "pace": 100, "failure_rate": 0.04, "max_attempts": 3, "backoff_base": 0.2, "seed": 7}
    paused, parked = (line(shared(), engine, **told) for engine in ("pause", "key-parking"))  # type: ignore[arg-type]
    expected = queue(blocked(paused.orders, paused.bad, 0.4), 1 / 100)
    inside = in_band(paused, 0.4, 100)
    assert sum(inside) >= 0.9 * len(inside)
    assert max(expected) > 0.3
    others = sorted(wait for _, wait in parked.waits())
    assert others[len(others) // 2] < max(expected) / 2
    assert (paused.overtaken(), parked.overtaken(), paused.records, parked.records) == (0, 0, 80, 80)


def test_retry_topics_let_younger_orders_pass_and_write_a_record_for_each_retry() -> None:
    """What fails is overtaken within its key, and each of its retries is one record more."""
    told = {"orders": 60, "pace": 200, "failure_rate": 0.05, "max_attempts": 3, "backoff_base": 0.1, "seed": 7}
    moved = line(shared(), "topics", **told)  # type: ignore[arg-type]
    assert moved.bad
    assert moved.overtaken() > 0
    assert moved.records == 60 + 2 * len(moved.bad)


def tried(good: Callable[[], bool], times: int = 3) -> bool:
    """Measure once more, if need be: what disturbs the machine for a moment is not what theory speaks of."""
    return any(good() for _ in range(times))


def test_reading_with_the_default_back_off_is_waiting() -> None:
    """The same records take a second for each pause, and next to nothing without; the records are all there."""
    shop = lab.Bench(shared(), orders=MANY, **BATCHES)

    def good() -> bool:
        slow, fast = (lab.reading(shop, fetch_queue_backoff_ms=wait, **SMALL_QUEUE) for wait in (1000, 10))
        assert slow[-1][1] == fast[-1][1] == MANY
        many = pauses(slow, 1.0)
        assert 1 <= many <= slow[-1][0]
        return slow[-1][0] <= many + WORK and fast[-1][0] < slow[-1][0] / 2

    assert tried(good)


def test_the_pauses_of_one_run_predict_those_of_others() -> None:
    """No seed enters: at each back-off that the notebook reads with, the seconds lie in the band that is drawn."""
    shop = lab.Bench(shared(), orders=MANY, **BATCHES)

    def good() -> bool:
        runs = {
            wait: lab.reading(shop, fetch_queue_backoff_ms=round(1000 * wait), **SMALL_QUEUE)
            for wait in (1.0, 0.5, 0.25, 0.1, 0.01)
        }
        bands = {wait: idle_band(pauses(runs[1.0], 1.0), wait) for wait in runs}
        return all(bands[wait][0] <= stairs[-1][0] <= bands[wait][1] for wait, stairs in runs.items())

    assert tried(good)


def test_the_ends_predict_what_a_commit_costs_in_between() -> None:
    """No seed enters: between a commit for each order and one for all, the seconds lie in the band that is drawn."""
    shop = lab.Bench(shared(), orders=1000)

    def good() -> bool:
        runs = {size: lab.committing(shop, size) for size in (1, 4, 20, 100, 1000)}
        drawn = zip(runs.values(), commits_theory(runs, 1000), strict=True)
        return all(low <= seconds <= high for (_, seconds), (_, low, high) in drawn)

    assert tried(good)


def test_the_doomed_are_about_n_q() -> None:
    """Of 100 seeds, about 95 have as many refused orders as the band around n q says; none is biased."""
    n, q = 300, 0.2
    low, high = rounds_band(n, q)
    doomed = [
        sum(not fate(order, Faults(seed, permanent_rate=q)) for order in islice(random_orders(seed), n))
        for seed in SEEDS
    ]
    assert sum(low <= one <= high for one in doomed) >= 89
    assert sum(doomed) / len(doomed) == pytest.approx(n * q, rel=0.03)


def test_commits_are_counted_by_the_batch() -> None:
    """A commit for each batch, the short last one included."""
    shop = lab.Bench(shared(), orders=105)
    assert lab.committing(shop, 10)[0] == 11
    assert lab.committing(shop, 1)[0] == 105


def test_a_plain_consumer_is_held_to_what_it_handled_wrote_and_committed() -> None:
    """Not handled and behind the commit is lost, before it is in flight; what is there twice is doubled."""
    shop = lab.Bench(shared(), orders=10)
    client = shop.plain(session_timeout_ms=30_000, max_poll_interval_ms=30_000)  # it does not poll any more
    producer = shop.connection.producer()
    some = client.consume(10, 10)
    assert (shop.verdict([]).in_flight, shop.verdict(some[:4]).in_flight) == (10, 6)
    client.commit(message=some[5], asynchronous=False)
    told = shop.verdict(some[:4])
    assert (told.averaged, told.in_flight, told.lost, told.conserved) == (4, 4, 2, False)
    for message in some[4:6]:
        producer.produce(shop.dead_letters, message.value())
    assert producer.flush(10) == 0
    told = shop.verdict(some[:4])
    assert (told.averaged, told.dead, told.in_flight, told.conserved) == (4, 2, 4, True)
    assert shop.verdict([*some[:4], some[0]]).duplicated == 1
    assert shop.verdict(some[:5]).duplicated == 1  # it has a letter, too
    producer.produce(shop.dead_letters, some[4].value())
    assert producer.flush(10) == 0
    client.close()
    told = shop.verdict(some[:4])
    assert (told.dead, told.lost, told.duplicated) == (2, 0, 1)


def test_the_kit_buries_orders_without_keys_in_fewer_partitions() -> None:
    """No key, and a dead-letter topic with half of the partitions: every letter arrives all the same."""
    shop = lab.Bench(shared(), orders=20, partitions=4, letters=2, key="none", faults=Faults(poison_rate=1))
    shop.consumer().run(orders=20)
    told = shop.report()
    assert (told.dead, told.conserved) == (20, True)
    assert len(shop.connection.partitions(shop.dead_letters)) == 2
    assert lab.unspoilt(shop).rows == [("20", "20", "20", "20")]
