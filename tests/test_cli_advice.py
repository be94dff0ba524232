"""No silent success, and no advice that leads astray: what a command says to a setting that does nothing."""

from __future__ import annotations

import shlex
import signal

import pytest
from helpers import take_orders
from test_cli import Run, broker, fill, here, rest_of, running, wait_for_output  # noqa: F401  fixtures

from orderkit import ApacheBroker, EmbeddedBroker
from orderkit.orders.avro import Codec


@pytest.mark.parametrize("command", [["produce", "--orders", "2", "--rate", "0"], ["consume", "--idle", "0"]])
def test_the_advice_creates_the_very_topic(command: list[str], broker: EmbeddedBroker, here: Run) -> None:  # noqa: F811
    """A command that misses a topic says what creates it, and after that it works."""
    command = [*command, "--topic", "shop"]
    missing = here(*command, bootstrap=broker.bootstrap)
    assert (missing.returncode, missing.stdout) == (1, "")
    _, program, *advice = missing.stderr.partition("Create it with `")[2].partition("`")[0].partition("orderkit ")
    assert program == "orderkit "
    assert here(*shlex.split(advice[0]), bootstrap=broker.bootstrap).returncode == 0
    assert here(*command, bootstrap=broker.bootstrap).returncode == 0


def test_the_advice_for_dead_letters_names_their_option(broker: EmbeddedBroker, here: Run) -> None:  # noqa: F811
    """A missing dead-letter topic is created as one: its option is in the advice."""
    for command in (["consume"], ["dlq", "list"], ["dlq", "replay"]):
        told = here(*command, "--dlq-topic", "graves", bootstrap=broker.bootstrap).stderr
        assert "`orderkit topics create --dlq-topic graves`" in told


@pytest.mark.parametrize("command", [["topics", "create", "--topic", "wide"], ["demo", "--orders", "10"]])
def test_a_partition_count_that_cannot_be_had_is_refused(command: list[str], broker: EmbeddedBroker, here: Run) -> None:  # noqa: F811
    """The embedded broker gives 4 partitions to a topic that others create; another number is one line, not 4."""
    done = here(*command, "--partitions", "7", bootstrap=broker.bootstrap)
    assert done.returncode == 1
    assert "A topic with 7 partitions: the embedded broker gives 4" in done.stderr.splitlines()[-1]
    assert here(*command, "--partitions", "4", bootstrap=broker.bootstrap).returncode == 0


def test_an_outage_that_no_order_meets_is_told(broker: EmbeddedBroker, here: Run) -> None:  # noqa: F811
    """`demo` knows its orders, and refuses; `consume` says at its end that none of them came."""
    refused = here("demo", "--orders", "100", "--outage", "101-200")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "their numbers are 1 to 100" in refused.stderr
    assert here("demo", "--orders", "100", "--rate", "0", "--outage", "100-200").returncode == 0
    fill(broker, [Codec().encode(order) for order in take_orders(20)])
    for outage, met in (("1-5", True), ("21-30", False)):
        told = here("consume", "--idle", "0.1", "--outage", outage, "--group", outage, bootstrap=broker.bootstrap)
        assert told.stdout.startswith("20 taken = 20 averaged")
        assert ("no order of these numbers came" in told.stderr) != met


def test_an_unknown_group_is_told(broker: EmbeddedBroker, here: Run) -> None:  # noqa: F811
    """A group that has committed nothing averages nothing, and that is said: its name may be misspelt."""
    told = here("average", "--group", "ordrekit", bootstrap=broker.bootstrap)
    assert "over 0 orders" in told.stdout
    assert "Group 'ordrekit' has committed nothing of 'orders' yet" in told.stderr


def test_describe_shows_where_the_records_are(broker: EmbeddedBroker, here: Run) -> None:  # noqa: F811
    """A line for each partition: its offsets, records and leader. A topic that is not there is named."""
    fill(broker, [b"x"] * 3, partition=2)
    told = here("topics", "describe", "orders", bootstrap=broker.bootstrap).stdout.splitlines()
    assert told[0] == "orders: 4 partitions, 3 records"
    assert [line.split()[:5] for line in told[2:]] == [[n, "0", m, m, "1"] for n, m in zip("0123", "0030", strict=True)]
    assert "orders-dlq: 4 partitions" in here("topics", "describe", bootstrap=broker.bootstrap).stdout
    assert "'gone' does not exist" in here("topics", "describe", "gone", bootstrap=broker.bootstrap).stderr


@pytest.mark.kafka
def test_describe_says_how_long_records_stay(apache: ApacheBroker, here: Run) -> None:  # noqa: F811
    """On real Kafka orders go after a week, and dead letters never, whoever created their topic."""
    told = here("topics", "describe", "orders", "orders-dlq", bootstrap=apache.bootstrap).stdout
    orders, letters = told.split("orders-dlq:")
    assert "keeps records for 7 days; cleanup by delete" in orders
    assert "keeps records for ever; cleanup by delete; 16,777,216 bytes" in letters


def test_the_embedded_broker_is_where_it_was_asked_to_be(here: Run, free_port: int) -> None:  # noqa: F811
    """`orderkit broker --port` can be reached there from other terminals; a port that is taken is one line."""
    with running("broker", "--port", str(free_port)) as process:
        assert wait_for_output(process, "Ctrl-C ends it").startswith("embedded broker is up")
        address = f"localhost:{free_port}"
        done = here("produce", "--orders", "20", "--rate", "0", bootstrap=address)
        assert done.stdout.startswith("20 produced, 20 acknowledged")
        assert here("consume", "--orders", "20", bootstrap=address).stdout.startswith("20 taken = 20 averaged")
        taken = here("broker", "--port", str(free_port))
        assert (taken.returncode, taken.stderr.count("\n")) == (1, 1)
        assert f"Port {free_port} cannot be used: Address already in use. Take another" in taken.stderr
        process.send_signal(signal.SIGINT)
        rest_of(process)
