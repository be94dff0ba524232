"""One JSON line for each decision, and never a payload or a secret."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import AT_ONCE, Kit, Record, shared, soon, take_orders

from orderkit.account.tally import AVERAGED, DEAD
from orderkit.errors import UsageError
from orderkit.kafka import Connection
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import Permanent
from orderkit.show.logs import KAFKA, ROOT, DecisionLog, JsonLines, set_format, to_stderr
from orderkit.show.printable import CAP, capped

SECRET = "hunter2-do-not-print"


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    """Catch what the kit logs in JSON; the list fills when the test has ended its work and reads it."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    ROOT.handlers[:] = [handler]
    set_format("json")

    class Lines(list[dict[str, Any]]):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter([json.loads(line) for line in text.getvalue().splitlines()])

    return Lines()


def run_logged(kit: Kit, orders: int, averaged: bool = False, **settings: Any) -> Any:
    """Run a consumer whose decisions are told."""
    consumer = kit.consumer(**settings)
    decisions = DecisionLog(consumer, averaged)

    def tell() -> bool:
        decisions()
        return False

    consumer.run(orders=orders, until=tell)
    decisions.finish()
    return consumer


@pytest.mark.parametrize("averaged", [False, True])
def test_each_decision_has_its_line(lines: list[dict[str, Any]], averaged: bool) -> None:
    """As many lines of each kind as the ledger has events; good orders only when asked for."""
    kit = Kit(partitions=2)
    kit.send_orders(take_orders(150))
    kit.send([Record(b"no order")])
    faults = Faults(5, transient_rate=0.3, permanent_rate=0.05)
    consumer = run_logged(kit, 151, averaged, handler=faults.strike, policy=AT_ONCE)
    told = Counter(line["event"] for line in lines)
    assert told["retry"] == consumer.ledger.retries > 0
    assert told["dead-letter"] == consumer.ledger.counts[DEAD] > 0
    assert told["averaged"] == (consumer.ledger.counts[AVERAGED] if averaged else 0)
    assert told["rebalance"] >= 1


def test_a_line_says_which_record_which_attempt_and_why(lines: list[dict[str, Any]]) -> None:
    """Place, order, attempt, reason and error of a dead letter are fields of their own, for a machine to read."""
    kit = Kit(partitions=1)
    (order,) = take_orders(1)
    kit.send_orders([order])

    def refuse(_order: Order, _: int) -> None:
        raise Permanent("sold out")

    run_logged(kit, 1, handler=refuse)
    (line,) = [line for line in lines if line["event"] == "dead-letter"]
    expected = {
        "level": "warning", "topic": kit.topic, "partition": 0, "offset": 0, "order_id": order["orderId"],
        "attempt": 1, "reason": "permanent", "error": "Permanent", "message": "sold out",
    }  # fmt: skip
    assert {name: line[name] for name in expected} == expected
    assert line["at"].endswith("Z")


def test_nothing_of_a_payload_gets_out(lines: list[dict[str, Any]]) -> None:
    """Neither key, value nor headers of a record are in any line, whether it can be decoded or not."""
    kit = Kit(partitions=1)
    kit.send([Record(SECRET.encode(), SECRET.encode(), [("token", SECRET.encode())])])
    run_logged(kit, 1)
    assert [line["event"] for line in lines if line["event"] == "dead-letter"]
    assert SECRET not in json.dumps(list(lines))


def test_the_kafka_client_s_own_lines_are_among_them(lines: list[dict[str, Any]]) -> None:
    """What librdkafka logs and what it reports as an error arrive as events, at its level, with its words."""
    client = Connection("127.0.0.1:1").consumer("nobody")
    client.subscribe(["nothing"])
    try:
        met = soon(lambda: {line["level"] for line in lines} >= {"error", "warning"})
        while not met():
            client.poll(0.1)
    finally:
        client.close()
    assert {line["event"] for line in lines} == {"kafka-client"}
    logged, reported = (next(line["message"] for line in lines if line["level"] == level) for level in
                        ("error", "warning"))  # fmt: skip
    assert logged.startswith("FAIL ")
    assert "KafkaError" in reported
    assert all("127.0.0.1:1" in told for told in (logged, reported))


def test_only_named_fields_are_written() -> None:
    """What somebody adds to a log record is left out unless it is on the list: a secret cannot slip through."""
    record = logging.makeLogRecord({"msg": "hello", "password": SECRET, "topic": "orders", "levelname": "INFO"})
    line = json.loads(JsonLines().format(record))
    assert line["topic"] == "orders"
    assert SECRET not in json.dumps(line)


def test_long_texts_are_cut() -> None:
    """An error may quote what it choked on; a line stays a line."""
    assert capped("x" * 10_000) == "x" * (CAP - 1) + "…"
    record = logging.makeLogRecord({"msg": "a\nb" * 5000})
    assert JsonLines().format(record).count("\n") == 0


def test_a_broken_handler_is_the_last_word(lines: list[dict[str, Any]]) -> None:
    """The line says at which record the loop ended, after which attempt, and by which error."""
    kit = Kit(partitions=1)
    kit.send_orders(take_orders(3))

    def broken(order: Order, _: int) -> None:
        if order["orderId"] == "2":
            raise NameError("typo")

    consumer = kit.consumer(broken)
    decisions = DecisionLog(consumer)

    def tell() -> bool:
        decisions()
        return False

    with pytest.raises(Exception, match="The handler broke"):
        consumer.run(until=tell)
    last = list(lines)[-1]
    assert (last["event"], last["error"], last["offset"], last["order_id"]) == ("stop", "NameError", 1, "2")


def test_an_unknown_format_is_named() -> None:
    """The error lists those there are."""
    with pytest.raises(UsageError, match="text, json"):
        set_format("xml")


def test_text_is_back_after_a_command() -> None:
    """Every start of the command line sets the format anew."""
    to_stderr()
    set_format("json")
    to_stderr()
    assert not isinstance(ROOT.handlers[0].formatter, JsonLines)
    assert not KAFKA.propagate


def test_on_the_command_line_standard_error_is_nothing_but_json() -> None:
    """With --log-format json every line of standard error is an object, errors and the report included."""
    kit = Kit(partitions=1, broker=shared())
    kit.send_orders(take_orders(20))
    command = [sys.executable, "-m", "orderkit", "consume", "--log-format", "json", "--orders", "20"]
    command += ["--permanent-rate", "0.3", "--topic", kit.topic, "--dlq-topic", kit.dead_letters, "--group", kit.group]
    done = subprocess.run(
        [*command, "--bootstrap-server", kit.connection.bootstrap],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.stdout == ""
    (report,) = [line["report"] for line in events if line["event"] == "report"]
    assert report["lost"] == 0
    assert sum(line["event"] == "dead-letter" for line in events) == report["dead"] > 0
