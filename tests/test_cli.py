"""The command line, as a user meets it: a process with arguments, output and an exit status."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from helpers import PATIENCE, Background, Late, rarely, take_orders, wait_for, within

from orderkit import ApacheBroker, EmbeddedBroker, random_orders
from orderkit.account.state import group_state
from orderkit.account.tally import AVERAGED
from orderkit.cli import main
from orderkit.consumer import RetryingConsumer
from orderkit.orders.avro import Codec

Run = Callable[..., subprocess.CompletedProcess[str]]

REPORT_KEYS = {"produced", "averaged", "dead", "skipped", "expired", "in_flight", "lost", "duplicated", "retries"}
REPORT_KEYS |= {"average", "seed", "broker"}


def orderkit(*arguments: str, bootstrap: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `orderkit` to its end, in a process of its own."""
    try:
        return subprocess.run(
            [sys.executable, "-m", "orderkit", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout * PATIENCE,
            env=environment(bootstrap),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Late(str(error)) from error


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `orderkit` in this process, where a process of its own would show nothing more."""

    def run(*arguments: str, bootstrap: str | None = None) -> subprocess.CompletedProcess[str]:
        monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
        if bootstrap is not None:
            monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap)
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
            main([*arguments])
        return subprocess.CompletedProcess(arguments, int(end.value.code or 0), out.getvalue(), err.getvalue())

    return run


def environment(bootstrap: str | None) -> dict[str, str]:
    """Give this process's environment, pointing at `bootstrap` or at no broker."""
    kept = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    return kept if bootstrap is None else {**kept, "KAFKA_BOOTSTRAP_SERVERS": bootstrap}


@pytest.fixture
def broker() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker() as running:
        yield running


def fill(broker: EmbeddedBroker, values: list[bytes | None], partition: int = 0) -> None:
    """Put records on `orders`."""
    producer = broker.connection.producer()
    for value in values:
        producer.produce("orders", value, partition=partition)
    assert producer.flush(10) == 0


def test_demo_prints_one_object_and_the_same_totals_each_time() -> None:
    """`demo --json --seed 7` is one JSON object with the report's keys, conserved, and repeatable."""
    first, second = (orderkit("demo", "--json", "--seed", "7", "--rate", "0") for _ in range(2))
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert set(report) == REPORT_KEYS
    assert (report["lost"], report["duplicated"], report["in_flight"]) == (0, 0, 0)
    assert report["produced"] == 500 == report["averaged"] + report["dead"] + report["skipped"]
    assert report == json.loads(second.stdout)


@pytest.mark.kafka
def test_demo_has_the_same_totals_on_real_kafka(apache: ApacheBroker) -> None:
    """The broker changes nothing but its name in the report."""
    embedded = json.loads(orderkit("demo", "--json", "--orders", "200").stdout)
    real = orderkit("demo", "--json", "--orders", "200", bootstrap=apache.bootstrap)
    assert real.returncode == 0, real.stderr
    assert {**json.loads(real.stdout), "broker": ""} == {**embedded, "broker": ""}


def test_demo_says_in_words_that_all_is_accounted_for() -> None:
    """In a pipe, demo prints its one line of account and no progress; with its defaults it ends within 5 s."""
    with within(5):
        done = orderkit("demo")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith("500 produced")
    assert "every order is accounted for" in done.stdout


def test_demo_saves_a_picture_that_is_not_blank(tmp_path: Path) -> None:
    """`--chart FILE` saves a picture with the kit's colours in it."""
    from matplotlib.image import imread

    done = orderkit("demo", "--orders", "100", "--rate", "0", "--chart", str(tmp_path / "run.png"))
    assert done.returncode == 0, done.stderr
    pixels = imread(tmp_path / "run.png")[:, :, :3].reshape(-1, 3)
    assert len({tuple(pixel) for pixel in pixels.round(1)}) > 10


def test_produce_consume_average_and_dlq_fit_together(broker: EmbeddedBroker) -> None:
    """What produce says it wrote is what consume accounts for, average reads, and dlq lists."""
    there = broker.bootstrap
    made = orderkit("produce", "--orders", "100", "--rate", "0", "--seed", "3", "--poison-rate", "0.1", bootstrap=there)
    assert made.returncode == 0
    assert "100 produced, 100 acknowledged, 0 failed" in made.stdout
    eaten = orderkit("consume", "--orders", "100", "--failure-rate", "0.3", "--json", bootstrap=there)
    assert eaten.returncode == 0, eaten.stderr
    report = json.loads(eaten.stdout)
    assert set(report) == REPORT_KEYS
    assert report["averaged"] + report["dead"] == 100
    read = json.loads(orderkit("average", "--json", bootstrap=there).stdout)
    assert (read["average"], read["count"], read["lag"]) == (report["average"], report["averaged"], 0)
    assert read["average"] in orderkit("average", bootstrap=there).stdout
    listed = json.loads(orderkit("dlq", "list", "--json", bootstrap=there).stdout)
    assert len(listed["dead_letters"]) == report["dead"]
    stats = json.loads(orderkit("dlq", "stats", "--json", bootstrap=there).stdout)
    assert stats["total"] == report["dead"] == sum(stats["reason"].values())
    first = listed["dead_letters"][0]
    shown = orderkit("dlq", "show", f"{first['partition']}:{first['offset']}", bootstrap=there)
    assert first["dlq.exception"] in shown.stdout
    assert "000000" in shown.stdout


def test_verbose_tells_each_order(broker: EmbeddedBroker) -> None:
    """With -v, producer and consumer print a line for each order, so that logs tell the story."""
    made = orderkit("produce", "-v", "--orders", "5", "--rate", "0", "--seed", "1", bootstrap=broker.bootstrap)
    assert [line.split(":")[0] for line in made.stdout.splitlines()[:5]] == [f"order {n}" for n in range(1, 6)]
    eaten = orderkit("consume", "-v", "--orders", "5", bootstrap=broker.bootstrap)
    assert eaten.stdout.count("attempt 1, averaged") == 5


def test_topics_are_created_listed_and_cleared(broker: EmbeddedBroker) -> None:
    """`topics create` twice is no error, and `topics list` shows what is there."""
    again = orderkit("topics", "create", bootstrap=broker.bootstrap)
    assert again.returncode == 0
    assert "orders: is there already, 4 partitions" in again.stdout
    assert "orders-dlq: 4 partitions, 0 records" in orderkit("topics", "list", bootstrap=broker.bootstrap).stdout


@pytest.mark.kafka
def test_topics_of_runs_are_deleted_and_no_others(apache: ApacheBroker) -> None:
    """`topics delete-runs` takes what demos left behind, and nothing else."""
    there, run = apache.bootstrap, re.compile(r"orders\.[0-9a-f]{8}(\.dlq)?")
    apache.create_topics({"orders.kept": 1})
    assert orderkit("demo", "--orders", "10", bootstrap=there).returncode == 0
    before = set(apache.connection.metadata().topics)
    assert sum(run.fullmatch(name) is not None for name in before) >= 2
    assert " topics deleted" in orderkit("topics", "delete-runs", bootstrap=there).stdout
    left = set(apache.connection.metadata().topics)
    assert "orders.kept" in left
    assert not any(run.fullmatch(name) for name in left), left


def test_doctor_finds_this_installation_healthy() -> None:
    """On a working installation doctor ends with 0 and names each thing it looked at."""
    done = orderkit("doctor", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["healthy"]) == (0, True)
    names = {finding["name"] for finding in told["findings"]}
    assert {"python", "packages", "schema", "embedded broker", "extra kafka"} <= names


def test_doctor_names_a_stranger_on_the_port() -> None:
    """Something that listens and is no Kafka broker is a problem, with its way out."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        there = f"127.0.0.1:{stranger.getsockname()[1]}"
        done = orderkit("doctor", "--bootstrap-server", there)
    assert done.returncode == 1
    assert f"broker at {there}: something listens there" in done.stdout


WRONG = [
    (["produce", "--rate", "-1"], 2, "'--rate': -1.0 is not in the range"),
    (["produce", "--every", "nan"], 2, "'--every': nan is no number"),
    (["produce", "--rate", "1", "--every", "1"], 2, "Give one of them"),
    (["produce", "--product", "Unicorn"], 2, "'--product': 'Unicorn' is not one of"),
    (["produce", "--wire", "xml"], 2, "'--wire': 'xml' is not one of"),
    (["produce", "--key", "prodct"], 2, "Did you mean 'product'?"),
    (["produce", "--schema", "/nowhere.avsc"], 2, "/nowhere.avsc"),
    (["produce", "--orders", "many"], 2, "many"),
    (["demo", "--failure-rate", "1.5"], 2, "'--failure-rate': 1.5 is not in the range 0<=x<=1"),
    (["demo", "--max-attempts", "0"], 2, "'--max-attempts': 0 is not in the range x>=1"),
    (["demo", "--backoff", "fixd"], 2, "Did you mean 'fixed'?"),
    (["demo", "--engine", "diesel"], 2, "'--engine': 'diesel' is not one of"),
    (["demo", "--outage", "soon"], 2, "'--outage': 'soon': write the first"),
    (["demo", "--outage", "9-3"], 2, "runs backwards. Write 3-9."),
    (["demo", "--orders", "0"], 2, "'--orders': 0 is not in the range x>=1"),
    (["demo", "--chart", "run.doc"], 2, "must end in"),
    (["demo", "--orders", "9000000"], 1, "embedded broker keeps"),
    (["consume", "--orders", "0"], 2, "'--orders': 0 is not in the range x>=1"),
    (["produce", "--first", "-1"], 2, "'--first': -1 is not in the range x>=0"),
    (["consume", "--command-config", "/nowhere.properties"], 2, "/nowhere.properties"),
    (["consume", "--bootstrap-server", "here"], 2, "Write HOST:PORT"),
    (["broker", "--folder", "data"], 2, "--apache"),
    (["bake"], 2, "bake"),
    (["demo", "--nonsense"], 2, "--nonsense"),
]


@pytest.mark.parametrize(("arguments", "status", "told"), WRONG, ids=lambda value: str(value)[:40])
def test_a_mistake_is_one_line_and_no_traceback(
    arguments: list[str], status: int, told: str, tmp_path: Path, here: Run
) -> None:
    """Wrong usage ends with its status and one line that says what is wrong."""
    with EmbeddedBroker() as broker:
        needs_none = arguments[0] in ("demo", "bake", "broker") or "--bootstrap-server" in arguments
        done = here(*arguments, bootstrap=None if needs_none else broker.bootstrap)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be used"),
        ('{"type": "record", "name": "Order", "fields": []}', "field 'orderId'"),
        (
            '{"type": "record", "name": "Order", "fields": [{"name": "orderId", "type": "string"},'
            '{"name": "product", "type": "string"}, {"name": "price", "type": "int"}]}',
            "field 'price' must be of type 'float'",
        ),
    ],
)
def test_a_bad_schema_file_is_named(text: str, told: str, tmp_path: Path, broker: EmbeddedBroker, here: Run) -> None:
    """A broken or incompatible schema file is refused before anything is produced."""
    file = tmp_path / "order.avsc"
    file.write_text(text)
    done = here("produce", "--orders", "1", "--schema", str(file), bootstrap=broker.bootstrap)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert str(file) in done.stderr
    assert told in done.stderr
    assert sum(high for _, high in broker.connection.watermarks("orders").values()) == 0


def test_an_unknown_property_is_named(tmp_path: Path, broker: EmbeddedBroker, here: Run) -> None:
    """A properties file with a property that the client does not know is refused by its name."""
    file = tmp_path / "client.properties"
    file.write_text("no.such.thing=1\n")
    done = here("average", "--command-config", str(file), bootstrap=broker.bootstrap)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no.such.thing" in done.stderr


@pytest.mark.parametrize("command", ["produce", "consume", "average"])
def test_an_unreachable_broker_is_said_within_ten_seconds(command: str, here: Run) -> None:
    """The line names the address and the three ways to get a broker."""
    with within(10):
        done = here(command, "--bootstrap-server", "127.0.0.1:1")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    for way in ("127.0.0.1:1", "orderkit broker", "docker compose up", "--bootstrap-server"):
        assert way in done.stderr


@pytest.mark.parametrize(
    "arguments", [["consume", "--topic", "gone"], ["produce", "--topic", "gone"], ["consume", "--dlq-topic", "gone"]]
)
def test_a_missing_topic_is_named_with_the_way_to_make_it(
    arguments: list[str], broker: EmbeddedBroker, here: Run
) -> None:
    """A missing topic is one line at once, not an endless silence."""
    with within(15):
        done = here(*arguments, bootstrap=broker.bootstrap)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "'gone' does not exist" in done.stderr
    assert "orderkit topics create" in done.stderr


def test_a_group_without_commits_averages_nothing(broker: EmbeddedBroker, here: Run) -> None:
    """An average that nobody has begun is 0 over 0 orders, not an error."""
    done = here("average", "--group", "nobody", bootstrap=broker.bootstrap)
    assert done.returncode == 0
    assert "over 0 orders" in done.stdout


def test_dlq_show_says_what_is_not_there(broker: EmbeddedBroker, here: Run) -> None:
    """A dead letter that does not exist, and an address that is none, are one line each."""
    missing = here("dlq", "show", "0:99", bootstrap=broker.bootstrap)
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    wrong = here("dlq", "show", "first", bootstrap=broker.bootstrap)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


@contextmanager
def running(*arguments: str, bootstrap: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run `orderkit` beside the test, which decides when it ends; a test that fails leaves nothing behind."""
    env = {**environment(bootstrap), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "orderkit", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process
        finally:
            process.kill()


def rest_of(process: subprocess.Popen[str], seconds: float = 15) -> str:
    """Wait for the end of a process that was told to stop, which is no failure; give what it still said."""
    try:
        rest, _ = process.communicate(timeout=seconds * PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise Late(str(error)) from error
    assert process.returncode == 0, rest
    return rest


def wait_for_output(process: subprocess.Popen[str], wanted: str) -> str:
    """Read a process's output up to a line with `wanted`."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if wanted in line:
            return seen
    raise AssertionError(f"{wanted!r} never came: {seen}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_consume_stops_cleanly_on_a_signal(number: signal.Signals, broker: EmbeddedBroker) -> None:
    """Ctrl-C and SIGTERM commit what is done, print the account, and end with 0; nothing is lost."""
    codec = Codec()
    orders = [order for order, _ in zip(random_orders(1), range(300), strict=False)]
    fill(broker, [codec.encode(order) for order in orders])
    slow = "--slow-rate", "1", "--slow-for", "0.02"
    with running("consume", "-v", *slow, bootstrap=broker.bootstrap) as process:
        wait_for_output(process, "averaged")
        process.send_signal(number)
        rest = rest_of(process)
    assert "every order is accounted for" in rest
    state = group_state(broker.connection, "orderkit", "orders")
    assert 0 < state.average.count < 300
    assert state.average.count == state.offsets[0]
    done = orderkit("consume", "--orders", str(300 - state.offsets[0]), bootstrap=broker.bootstrap)
    assert done.returncode == 0
    total = group_state(broker.connection, "orderkit", "orders").average
    assert total.count == 300
    assert total.mean == pytest.approx(sum(order["price"] for order in orders) / 300)


def test_ctrl_c_while_another_member_joins(broker: EmbeddedBroker) -> None:
    """In the middle of a rebalance, too, Ctrl-C ends `consume` within five seconds, with what is done committed."""
    for partition in range(4):
        fill(broker, [*map(Codec().encode, take_orders(400)[partition::4])], partition)
    slow = "--slow-rate", "1", "--slow-for", "0.01"
    with running("consume", "-v", *slow, bootstrap=broker.bootstrap) as first:
        wait_for_output(first, "averaged")
        with Background(RetryingConsumer(broker.connection)) as other:
            time.sleep(random.random())  # anywhere in the rebalance
            first.send_signal(signal.SIGINT)
            with within(5):
                rest = rest_of(first)
            wait_for(rarely(lambda: group_state(broker.connection, "orderkit", "orders").average.count >= 400))
    assert "every order is accounted for" in rest
    mine = int(rest.split(" taken = ")[1].split(" averaged")[0])
    assert mine + other.consumer.ledger.counts[AVERAGED] == 400


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_a_consumer_whose_broker_is_silent(times: int, broker: EmbeddedBroker) -> None:
    """A broker that answers nothing any more holds Ctrl-C for seconds, not minutes; each trouble is one line."""
    fill(broker, [*map(Codec().encode, take_orders(300))])
    slow = "--slow-rate", "1", "--slow-for", "0.02"
    with running("consume", "-v", *slow, bootstrap=broker.bootstrap) as process:
        wait_for_output(process, "averaged")
        broker.slow(60_000)
        process.send_signal(signal.SIGINT)
        if times == 2:
            time.sleep(0.5)  # in the middle of its last turn
            process.send_signal(signal.SIGINT)
        with within(30 / times):
            _, told = process.communicate(timeout=100)
    assert process.returncode == (1 if times == 1 else 130)
    *before, last = filter(None, told.splitlines())
    silent = "orderkit: The group's offsets cannot be read", "orderkit: No Kafka broker answers"
    assert last.startswith(silent if times == 1 else "orderkit: interrupted;")
    leaving = (
        "orderkit: One order is being finished",
        "orderkit: What is done is being committed",
        "orderkit: the commit is not answered",
        "orderkit: the group's offsets cannot be read just now",
        "orderkit: the broker does not let the client go",
        "orderkit: interrupted while leaving the group",
    )
    assert all(line.startswith(leaving) for line in before), before


def test_produce_stops_cleanly_on_a_signal(broker: EmbeddedBroker) -> None:
    """Ctrl-C makes the producer say how many were produced, acknowledged and failed."""
    with running("produce", "-v", "--every", "0.01", bootstrap=broker.bootstrap) as process:
        wait_for_output(process, "order 3")
        process.send_signal(signal.SIGINT)
        rest = rest_of(process)
    assert " acknowledged, 0 failed" in rest


def test_broker_serves_other_processes_until_told_to_stop() -> None:
    """`orderkit broker` prints the line that other terminals need, and Ctrl-C ends it with 0."""
    with running("broker") as process:
        told = wait_for_output(process, "Ctrl-C")
        there = told.split("KAFKA_BOOTSTRAP_SERVERS=")[1].split()[0]
        assert "orders: 4 partitions" in orderkit("topics", "list", bootstrap=there).stdout
        process.send_signal(signal.SIGINT)
        rest_of(process)


@pytest.mark.kafka
def test_a_port_in_use_is_said_at_once(apache: ApacheBroker) -> None:
    """`broker --apache --port` on a port that somebody has is one line, not a wait for Java."""
    port = apache.bootstrap.rpartition(":")[2]
    done = orderkit("broker", "--apache", "--port", port)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"Port {port} cannot be used" in done.stderr


@pytest.mark.kafka
def test_the_real_broker_takes_the_port_it_is_given(apache: ApacheBroker, free_port: int) -> None:
    """`broker --apache --port` serves on that port until told to stop."""
    assert apache.kind == "apache"  # it can be had here
    with running("broker", "--apache", "--port", str(free_port)) as process:
        assert f"127.0.0.1:{free_port}" in wait_for_output(process, "Ctrl-C")
        assert "orders-dlq" in orderkit("topics", "list", bootstrap=f"127.0.0.1:{free_port}").stdout
        process.send_signal(signal.SIGINT)
        rest_of(process, 40)


def test_a_closed_pipe_ends_quietly(broker: EmbeddedBroker) -> None:
    """A reader that has seen enough, as `head` has, leaves no traceback."""
    arguments = "produce -v --orders 5000 --rate 0 --seed 1"
    done = subprocess.run(
        f"{sys.executable} -m orderkit {arguments} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env=environment(broker.bootstrap),
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("order 1:")
    assert "Traceback" not in done.stderr


def test_every_command_has_help() -> None:
    """`--help` says in a sentence what each command does."""
    from orderkit.cli import cli

    assert set(cli.commands) >= {"demo", "produce", "consume", "average", "topics", "dlq", "broker", "doctor"}
    for command in cli.commands.values():
        assert command.help
        assert command.help.strip().endswith(".")


SLOW_HANDLER = """
import sys, time
from orderkit.cli import main
from orderkit.orders.faults import Faults
Faults.strike = lambda *_: print("begun", flush=True) or time.sleep(60)
main(sys.argv[1:])
"""


@pytest.mark.parametrize("command", ["consume", "demo"])
def test_ctrl_c_while_a_handler_is_slow_says_so_and_the_second_one_abandons_the_order(
    command: str, broker: EmbeddedBroker
) -> None:
    """The first Ctrl-C waits for the order at hand, and says so; the second one ends with 130, and the order stays."""
    fill(broker, [Codec().encode(order) for order in take_orders(3)])
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_HANDLER, command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(broker.bootstrap if command == "consume" else None),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        told = process.stderr.readline()
        assert told == "orderkit: One order is being finished; Ctrl-C once more ends it at once.\n"
        process.send_signal(signal.SIGINT)
        with within(10):
            rest = process.stderr.read().strip()
        assert process.wait(10) == 130
    assert rest.startswith("orderkit: interrupted")
    assert rest.count("\n") == 0
    if command == "consume":
        assert group_state(broker.connection, "orderkit", "orders").average.count == 0
        assert orderkit("consume", "--orders", "3", bootstrap=broker.bootstrap).stdout.startswith(
            "3 taken = 3 averaged"
        )
