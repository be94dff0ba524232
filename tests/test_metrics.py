"""What a consumer shows to those who watch it: metrics, and whether it is well."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from helpers import AT_ONCE, Background, Kit, Record, open_broker, shared, take_orders, wait_for
from prometheus_client.parser import text_string_to_metric_families

from orderkit.consumer import RetryingConsumer
from orderkit.errors import OrderkitError
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import Permanent, RetryPolicy, Transient
from orderkit.retry.backoff import Backoff
from orderkit.show.monitor import MetricsServer

Sample = tuple[str, str]  # name, and the value of its one label


def read(url: str) -> tuple[int, str]:
    """Get a page: its status, and its text."""
    try:
        with urlopen(url, timeout=10) as page:
            return page.status, page.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def scrape(server: MetricsServer) -> dict[Sample, float]:
    """Read the metrics as Prometheus does; labels of a partition are its number, others their value."""
    status, text = read(f"{server.url}/metrics")
    assert status == 200
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        (sample.name, sample.labels.get("partition") or "".join(sample.labels.values())): sample.value
        for sample in samples
    }


def health(server: MetricsServer) -> tuple[int, dict[str, Any]]:
    """Ask whether the consumer is well."""
    status, text = read(f"{server.url}/healthz")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return status, json.loads(text)


@contextmanager
def watched(consumer: RetryingConsumer, **settings: Any) -> Iterator[MetricsServer]:
    """Serve the pages of a consumer that runs meanwhile."""
    with MetricsServer(consumer, **settings) as server, Background(consumer):
        yield server


@pytest.mark.parametrize("name", ["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def test_the_numbers_are_those_of_the_consumer(name: str, request: pytest.FixtureRequest) -> None:
    """Counts, reasons, average, lag and commits on the page are what ledger, topics and commits say."""
    kit = Kit(partitions=2, broker=open_broker(name, request))
    kit.send_orders(take_orders(200))
    kit.send([Record(b"no order"), Record(None)])
    faults = Faults(3, transient_rate=0.4, permanent_rate=0.1)
    consumer = kit.consumer(faults.strike, policy=AT_ONCE)
    with watched(consumer) as server:
        wait_for(kit.settled)
        wait_for(lambda: consumer.member.settled)
        seen = scrape(server)
        commits, slowest = consumer.member.commits.count, max(consumer.member.commits.times)
    ledger, state = consumer.ledger, kit.state()
    assert seen["orderkit_orders_consumed_total", ""] == 202
    assert seen["orderkit_orders_averaged_total", ""] == state.average.count
    assert seen["orderkit_running_average_orders", ""] == state.average.count
    assert seen["orderkit_running_average_price", ""] == state.average.mean
    assert seen["orderkit_retries_total", ""] == ledger.retries > 0
    reasons = [letter.story["reason"] for letter in kit.letters()]
    for reason in ("poison", "permanent", "transient"):
        assert seen["orderkit_orders_dead_total", reason] == reasons.count(reason) > 0
    assert seen["orderkit_orders_in_flight", ""] == seen["orderkit_orders_undone_total", ""] == 0
    assert [seen["orderkit_partition_lag_orders", number] for number in "01"] == [0, 0]
    assert seen["orderkit_partitions_assigned", ""] == 2
    assert seen["orderkit_consumer_info", kit.group] == seen["orderkit_rebalances_total", ""] == 1
    assert seen["orderkit_commits_total", ""] == commits > 0
    quantiles = [seen["orderkit_commit_latency_seconds", quantile] for quantile in ("0.5", "0.9", "1")]
    assert 0 < quantiles[0] <= quantiles[1] <= quantiles[2] == slowest


def test_every_metric_has_the_prefix_and_a_help_line_that_explains_it() -> None:
    """A reader who knows nothing finds out from the page what each number means."""
    with MetricsServer(Kit().consumer()) as server:
        families = list(text_string_to_metric_families(read(f"{server.url}/metrics")[1]))
    ours = [family for family in families if not family.name.startswith("process_")]
    assert len(ours) > 15
    for family in ours:
        assert family.name.startswith("orderkit_")
        assert len(family.documentation.split()) >= 6, family.name
        assert family.documentation.endswith(".")
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_reasons_are_there_before_anything_died() -> None:
    """A series that only appears with the first death cannot be alerted on."""
    with MetricsServer(Kit().consumer()) as server:
        seen = scrape(server)
    assert [seen["orderkit_orders_dead_total", reason] for reason in ("poison", "permanent", "transient")] == [0, 0, 0]


def test_a_partition_that_waits_is_held_and_behind() -> None:
    """While an order waits for its next attempt its partition is held, with what lies behind it; others are not."""
    kit = Kit(partitions=2)
    kit.send_orders(take_orders(20))

    def handler(order: Order, _: int) -> None:
        if order["orderId"] == "1":
            raise Transient("not now")

    policy = RetryPolicy(backoff=Backoff("fixed", base=60.0))
    with watched(kit.consumer(handler, policy=policy)) as server:
        wait_for(lambda: scrape(server)["orderkit_orders_averaged_total", ""] == 10)
        wait_for(lambda: scrape(server)["orderkit_partition_lag_orders", "0"] > 0)  # it looks now and then
        seen = scrape(server)
    assert [seen["orderkit_partition_held", number] for number in "01"] == [1, 0]
    assert [seen["orderkit_partition_lag_orders", number] for number in "01"] == [10, 0]
    assert seen["orderkit_orders_in_flight", ""] == 10
    assert seen["orderkit_retries_total", ""] == 1


def test_a_refused_dead_letter_is_outstanding_and_no_reason_to_restart() -> None:
    """It is counted while the topic refuses it, /healthz says why and stays good, and it is gone when it is taken."""
    kit = Kit()
    kit.send_orders(take_orders(3))

    def refuse(_order: Order, _: int) -> None:
        raise Permanent("never")

    shared().refuse(kit.dead_letters)
    try:
        with watched(kit.consumer(refuse)) as server:
            wait_for(lambda: scrape(server)["orderkit_dead_letters_outstanding", "refused"] > 0)
            status, told = health(server)
            assert (status, told["status"]) == (200, "ok")
            assert kit.dead_letters in told["trouble"]
            wait_for(lambda: scrape(server)["orderkit_partition_held", "0"] == 1)
            shared().accept(kit.dead_letters)
            wait_for(lambda: "trouble" not in health(server)[1])
            assert sum(scrape(server)["orderkit_dead_letters_outstanding", state] for state in STATES) == 0
    finally:
        shared().accept(kit.dead_letters)


STATES = ("under_way", "refused")


def test_a_counter_never_falls() -> None:
    """What a rebalance takes back is not counted twice, and to Prometheus no counter starts again."""
    kit = Kit()
    kit.send_orders(take_orders(10))
    consumer = kit.consumer()
    with MetricsServer(consumer) as server:
        with Background(consumer):
            wait_for(lambda: consumer.ledger.finished == 10)
        before = scrape(server)
        consumer.ledger.forget_from(kit.topic, 0, 4)
        after = scrape(server)
        orders = take_orders(8)
        consumer.ledger.note(1.0, kit.topic, 0, range(4, 12), orders)
        later = scrape(server)
    name = ("orderkit_orders_averaged_total", "")
    assert (before[name], after[name], later[name]) == (10, 10, 12)
    assert after["orderkit_orders_undone_total", ""] == 6


def test_every_scrape_adds_up_while_the_consumer_works() -> None:
    """At any moment consumed = averaged + dead + skipped, no counter falls, and no page fails."""
    kit = Kit(partitions=4)
    kit.send_orders(take_orders(6000))
    faults = Faults(3, transient_rate=0.4, permanent_rate=0.1)
    consumer = kit.consumer(faults.strike, policy=RetryPolicy(backoff=Backoff("fixed", base=0.001)))
    pages: list[dict[Sample, float]] = []
    with watched(consumer) as server:
        while consumer.ledger.finished < 6000:
            pages.append(scrape(server))
    assert len(pages) > 5
    for page in pages:
        dead = sum(value for (name, _), value in page.items() if name == "orderkit_orders_dead_total")
        rest = page["orderkit_orders_averaged_total", ""] + page["orderkit_orders_skipped_total", ""]
        assert page["orderkit_orders_consumed_total", ""] == rest + dead
    for earlier, later in pairwise(pages):
        assert all(later[sample] >= value for sample, value in earlier.items() if sample[0].endswith("_total"))


def test_health_turns_bad_while_the_loop_stalls_and_good_again_after_it() -> None:
    """A handler that hangs turns /healthz to 503 with the seconds; a loop that turns is 200."""
    kit = Kit()
    kit.send_orders(take_orders(2))
    hang, release = threading.Event(), threading.Event()

    def handler(_order: Order, _attempt: int) -> None:
        hang.set()
        release.wait(20)

    with watched(kit.consumer(handler), stall_after=1.0) as server:
        assert hang.wait(20)
        wait_for(lambda: health(server)[0] == 503)
        status, told = health(server)
        release.set()
        assert (status, told["status"]) == (503, "stalled")
        assert f"not turned for {told['turn_age_seconds']:.1f} s" in told["why"]
        assert "1 s are allowed" in told["why"]
        assert told["turn_age_seconds"] > 1
        wait_for(lambda: health(server)[0] == 200)
        assert health(server)[1]["turn_age_seconds"] < 1


def test_an_unknown_page_names_those_there_are() -> None:
    """Whoever mistypes the address is shown the way."""
    with MetricsServer(Kit().consumer()) as server:
        status, text = read(f"{server.url}/")
    assert status == 404
    assert json.loads(text)["pages"] == ["/metrics", "/healthz"]


def test_a_port_in_use_is_one_clear_line(free_port: int) -> None:
    """The second server on a port is refused by name; closing the first gives the port back."""
    consumer = Kit().consumer()
    with (
        MetricsServer(consumer, free_port),
        pytest.raises(OrderkitError, match=rf"127\.0\.0\.1:{free_port}: .*Name another port"),
    ):
        MetricsServer(consumer, free_port)
    MetricsServer(consumer, free_port).close()


def test_a_server_leaves_nothing_behind() -> None:
    """Closing ends its threads."""
    consumer = Kit().consumer()
    before = set(threading.enumerate())
    for _ in range(3):
        with MetricsServer(consumer) as server:
            scrape(server)
    wait_for(lambda: set(threading.enumerate()) <= before)


def consume(*arguments: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """Run `orderkit consume` on topics of the shared broker, after a line of Python."""
    kit = Kit()
    words = ["consume", "--bootstrap-server", shared().bootstrap, "--topic", kit.topic, "--dlq-topic", kit.dead_letters]
    program = f"{prelude}\nfrom orderkit.cli import main\nmain({[*words, '--idle', '0.2', *arguments]!r})"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("port", ["metrics", "70000", "-1", "here:there"])
def test_a_port_that_is_none_is_wrong_usage(port: str) -> None:
    """It is said in one line, with an example."""
    done = consume("--metrics-port", port)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "HOST:PORT" in done.stderr


def test_a_missing_library_is_named_with_its_extra() -> None:
    """The base install has no Prometheus library; the option says how to get it."""
    done = consume("--metrics-port", "0", prelude="import sys; sys.modules['prometheus_client'] = None")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert 'pip install "orderkit[metrics]"' in done.stderr


def test_without_the_option_the_library_is_not_loaded() -> None:
    """The base install runs without it, and nothing listens."""
    done = consume(prelude="import sys; sys.modules['prometheus_client'] = sys.modules['pyarrow'] = None")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_command_says_where_its_pages_are() -> None:
    """Port 0 is a free one, and the line on standard error names it."""
    done = consume("--metrics-port", "127.0.0.1:0")
    assert done.returncode == 0
    assert "/healthz" in done.stderr
    assert "http://127.0.0.1:0/" not in done.stderr
