"""A whole run: conserved whatever happens, and the same totals every time."""

from __future__ import annotations

import gc
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import AT_ONCE, BROKERS, SOON, Kit, average_of, fate, open_broker, shared, take_orders, wait_for

from orderkit.account.report import Report
from orderkit.brokers import EmbeddedBroker
from orderkit.errors import OrderkitError
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import Permanent, RetryPolicy
from orderkit.retry.backoff import Backoff
from orderkit.run import Run

FAULTS: dict[str, Any] = {"transient_rate": 0.3, "permanent_rate": 0.03, "poison_rate": 0.03}
QUICK = RetryPolicy(backoff=Backoff("full-jitter", base=0.01))


def totals(report: Report) -> tuple[object, ...]:
    """Give what must not depend on time, threads or partitions."""
    return report.produced, report.averaged, report.dead, report.skipped, report.retries, report.average


@pytest.mark.parametrize("name", BROKERS)
def test_every_order_is_accounted_for(name: str, request: pytest.FixtureRequest) -> None:
    """Produced = averaged + dead; the average is that of the orders that the faults let pass."""
    faults = Faults(3, **FAULTS)
    run = Run(open_broker(name, request), orders=300, seed=3, faults=faults, policy=QUICK).start().wait(60)
    report = run.report()
    good = [
        order
        for order in take_orders(300, seed=3)
        if fate(order, faults) and faults.spoil(order["orderId"], b"123456") == b"123456"
    ]
    assert report.conserved, str(report)
    assert (report.produced, report.averaged, report.dead, report.in_flight) == (300, len(good), 300 - len(good), 0)
    assert report.average == average_of(good).rounded()
    assert run.finished
    assert not run.alive
    assert run.trouble is None


def test_totals_do_not_depend_on_partitions_or_chance() -> None:
    """Two runs of one seed, and runs with 1, 4 or 7 partitions, print the same totals."""
    reports = [
        Run(shared(), orders=250, seed=9, faults=Faults(9, **FAULTS), policy=AT_ONCE, partitions=partitions)
        .start()
        .wait(30)
        .report()
        for partitions in (4, 4, 1, 7)
    ]
    assert all(report.conserved for report in reports)
    assert len({totals(report) for report in reports}) == 1
    assert reports[0].retries > 50
    assert reports[0].dead > 5


@pytest.mark.parametrize("seed", [1, 2])
def test_a_stopped_run_is_conserved(seed: int) -> None:
    """A run stopped in the middle has orders in flight, and the sum is still right."""
    run = Run(shared(), orders=20_000, seed=seed, rate=2000, faults=Faults(seed, **FAULTS), policy=SOON, partitions=4)
    run.start()
    wait_for(lambda: run.ledger.finished > 100 * seed)
    run.stop()
    run.wait(20)
    report = run.report()
    assert report.conserved, str(report)
    assert 0 < report.produced < 20_000
    assert report.averaged + report.dead < report.produced
    assert report.in_flight > 0


def test_a_stopped_run_goes_on_under_its_name() -> None:
    """What a stopped run left in flight is finished by another consumer of its group, each order once."""
    kit, faults = Kit(4), Faults(6, transient_rate=0.3)
    run = Run(shared(), orders=400, seed=6, faults=faults, policy=RetryPolicy(backoff=Backoff("fixed", 0.5)))
    run.start()
    wait_for(lambda: run.produced.acknowledged == 400 and run.ledger.finished)
    run.stop()
    run.wait(20)
    assert run.report().conserved
    assert run.report().in_flight > 0
    kit.topic, kit.dead_letters, kit.group = run.topic, run.dead_letters, run.group
    kit.consumer(faults.strike, policy=AT_ONCE).run(orders=run.report().in_flight)
    kit.assert_all_accounted(faults)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(0.5, id="short"),
        pytest.param(2.5, id="longer than the session"),
        pytest.param(32.0, id="long", marks=pytest.mark.campaign),
    ],
)
def test_an_outage_in_the_middle_costs_no_order(seconds: float) -> None:
    """The consumer goes on by itself when the broker is back, even after it was thrown out of its group.

    Everything is produced before, and enough attempts spare dead letters: unlike a real broker, the embedded one writes
    a record twice when its answer is lost and the client sends it again.
    """

    def handler(_order: Order, _attempt: int) -> None:
        time.sleep(0.003)  # the handler's own work

    policy = RetryPolicy(max_attempts=12, backoff=SOON.backoff)
    with EmbeddedBroker(topics={}) as broker:
        faults = Faults(4, transient_rate=0.2)
        run = Run(broker, orders=300, seed=4, faults=faults, policy=policy, handler=handler, batch=20).start()
        wait_for(lambda: run.produced.acknowledged == 300 and run.ledger.finished > 20)
        broker.down()
        time.sleep(seconds)  # the length of the outage, not a wait for something
        broker.up()
        report = run.wait(60).report()
    assert report.conserved, str(report)
    assert (report.produced, report.dead) == (300, 0)


def test_a_slow_broker_costs_no_order() -> None:
    """Answers that take long change no total."""
    with EmbeddedBroker(topics={}) as broker:
        run = Run(broker, orders=100, seed=8, rate=300, faults=Faults(8, **FAULTS), policy=SOON, batch=10)
        broker.slow(30)
        report = run.start().wait(60).report()
    assert report.conserved, str(report)
    assert report.in_flight == 0


def test_an_error_in_the_handler_is_raised_by_wait() -> None:
    """A bug in the reader's handler ends the run and is told to whoever waits for it."""

    def handler(order: Order, _attempt: int) -> None:
        if order["orderId"] == "20":
            raise TypeError("a bug")

    run = Run(shared(), orders=50, handler=handler).start()
    with pytest.raises(OrderkitError, match="a bug"):
        run.wait(20)
    wait_for(lambda: not run.alive)
    report = run.report()
    assert report.conserved, str(report)
    assert report.in_flight > 0
    assert report.dead == 0


def test_the_handler_comes_after_the_faults() -> None:
    """The reader's handler sees only attempts that the faults let pass."""
    seen: list[tuple[str, int]] = []
    faults = Faults(2, transient_rate=0.4)

    def handler(order: Order, attempt: int) -> None:
        seen.append((order["orderId"], attempt))
        faults.strike(order, attempt)  # would raise again if the fate had been to fail

    Run(shared(), orders=80, seed=2, faults=faults, policy=AT_ONCE, handler=handler).start().wait(20)
    good = [order["orderId"] for order in take_orders(80, seed=2) if fate(order, faults)]
    assert sorted(name for name, _ in seen) == sorted(good)
    assert {attempt for _, attempt in seen} == {1, 2, 3}


def test_faults_may_change_while_orders_flow() -> None:
    """A rate that is turned up in the middle is felt, and the sum stays right."""
    faults = Faults(1)
    run = Run(shared(), orders=400, rate=400, faults=faults, policy=AT_ONCE).start()
    wait_for(lambda: run.ledger.finished > 50)
    faults.permanent_rate = 0.5
    report = run.wait(30).report()
    assert report.conserved, str(report)
    assert report.dead > 50


def test_a_run_that_takes_too_long_says_why() -> None:
    """`wait` with a limit stops the run and names the trouble."""

    def refuse(_order: Order, _attempt: int) -> None:
        raise Permanent("no")

    run = Run(shared(), orders=10, handler=refuse)
    shared().refuse(run.dead_letters)
    with pytest.raises(OrderkitError, match=r"not over after 1 s, .* of 10 orders are done with: .* refuses") as told:
        run.start().wait(1)
    assert "KafkaError{" not in str(told.value)
    wait_for(lambda: not run.alive)
    shared().accept(run.dead_letters)
    report = run.report()
    assert (report.produced, report.in_flight, report.lost, report.duplicated) == (10, 10, 0, 0)
    assert report.conserved, str(report)


def test_a_report_that_cannot_be_made_is_an_error_in_one_line() -> None:
    """A dead-letter topic that may not be read is said in the kit's own words."""
    run = Run(shared(), orders=5).start().wait(20)
    shared().refuse(run.dead_letters)
    try:
        with pytest.raises(OrderkitError) as told:
            run.report()
    finally:
        shared().accept(run.dead_letters)
    assert "\n" not in str(told.value)


def test_more_orders_than_the_embedded_broker_keeps_are_refused() -> None:
    """A run whose orders would not fit in memory is refused before it starts."""
    with pytest.raises(OrderkitError, match="keeps about"):
        Run(shared(), orders=2_000_000)


def test_a_run_of_nothing_is_over_at_once() -> None:
    """No orders: nothing produced, nothing lost."""
    report = Run(shared(), orders=0).start().wait(20).report()
    assert report.conserved
    assert (report.produced, report.average) == (0, "0.0000")


SELF = Path("/proc/self")
needs_proc = pytest.mark.skipif(
    not SELF.joinpath("task").exists(), reason="only Linux shows a process's threads and files"
)


def in_use() -> tuple[int, int, int]:
    """Count what this process holds: threads, those of its clients too, open files, and the sockets among them."""
    gc.collect()
    files = [str(file.readlink()) for file in SELF.joinpath("fd").iterdir() if file.is_symlink()]
    threads = len(list(SELF.joinpath("task").iterdir()))
    return threads, len(files), sum(file.startswith("socket:") for file in files)


@pytest.mark.timeout(600)
@needs_proc
def test_starts_and_stops_leave_nothing_behind() -> None:
    """After many runs there are no more threads, files or sockets than after the first. `ORDERKIT_LONG=1`: 200 runs."""

    def once(seed: int) -> None:
        run = Run(shared(), orders=20, seed=seed, faults=Faults(seed, **FAULTS), policy=AT_ONCE)
        run.start()
        if seed % 2:
            run.stop()  # in the middle
        assert run.wait(30).report().conserved

    once(0)
    held = in_use()
    for seed in range(200 if os.environ.get("ORDERKIT_LONG") == "1" else 20):
        once(seed)
    wait_for(lambda: all(now <= before for now, before in zip(in_use(), held, strict=True)))


def clients() -> set[str]:
    """Find this process's clients, by the number of each one's main thread."""
    found = set()
    for thread in SELF.joinpath("task").iterdir():
        with suppress(OSError):  # it has ended
            if thread.joinpath("comm").read_text() == "rdk:main\n":
                found.add(thread.name)
    return found


@needs_proc
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("embedded", {"delivery": "at-least-once"}),
        ("embedded", {"engine": "topics"}),
        pytest.param("apache", {"delivery": "exactly-once"}, marks=pytest.mark.kafka),
        pytest.param("apache", {"engine": "share"}, marks=pytest.mark.kafka),
    ],
)
def test_what_has_ended_has_no_client(name: str, how: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """A run closes all its clients, that of its dead letters too: they do not stay until Python collects garbage."""
    broker = open_broker(name, request)
    gc.collect()
    gc.disable()
    try:
        before = clients()
        run = Run(broker, orders=20, faults=Faults(1, **FAULTS), policy=AT_ONCE, **how)
        assert len(clients() - before) >= 3  # of its producer, its consumer and its dead letters
        assert run.start().wait(60).report().conserved
        wait_for(lambda: clients() <= before)
    finally:
        gc.enable()


def test_an_interrupt_while_a_run_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is stopped and commits; the interrupt stays one for Python, and is one line for a reader."""
    run = Run(shared(), orders=20_000, rate=200, policy=AT_ONCE).start()
    wait_for(lambda: run.ledger.finished > 20)
    join = run.join

    def interrupted(_timeout: float) -> None:
        monkeypatch.setattr(run, "join", join)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "join", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match=r"^\d+ of \d+ orders are done with, and committed\. A new run "
    ) as caught:
        run.wait()
    assert isinstance(caught.value, OrderkitError)
    assert not run.alive
    assert run.report().conserved
