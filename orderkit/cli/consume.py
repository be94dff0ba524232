"""`orderkit consume` and `orderkit average`: the retrying consumer, and what its group has come to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import click

from orderkit.audit import account, group_state
from orderkit.avro import Codec
from orderkit.cli.options import (
    at_least,
    connection_options,
    fault_options,
    json_option,
    make_connection,
    make_faults,
    make_policy,
    print_json,
    retry_options,
    schema_option,
    stop_on_signal,
    topic_options,
)
from orderkit.consumer import RetryingConsumer
from orderkit.ledger import FATES, Ledger
from orderkit.view import consuming

group_option = click.option(
    "--group", default="orderkit", envvar="ORDERKIT_GROUP", show_default=True, help="The consumer group."
)


@click.command()
@group_option
@click.option("--orders", type=int, help="Stop after so many are done with.")
@click.option("--idle", type=float, help="Stop after so many seconds without anything to do.")
@click.option("--seed", default=0, show_default=True, help="Decides the injected faults.")
@fault_options()
@retry_options(base=0.1)
@schema_option
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each attempt.")
@topic_options
@connection_options
@json_option
def consume(**options: Any) -> int:
    """Consume orders with retries, keep the average, dead-letter the exhausted. Ctrl-C ends it cleanly."""
    at_least("orders", options["orders"], 0)
    at_least("idle", options["idle"], 0)
    connection = make_connection(options)
    ledger = Ledger(keep=100_000)
    consumer = RetryingConsumer(
        connection,
        make_faults(options).strike,
        group=options["group"],
        topic=options["topic"],
        dead_letters=options["dlq_topic"],
        policy=make_policy(options),
        engine=options["engine"],
        codec=Codec(schema=options["schema"]),
        ledger=ledger,
        seed=options["seed"],
    )
    tell = _teller(ledger) if options["verbose"] and not options["as_json"] else None
    with (
        stop_on_signal(consumer.stop),
        consuming(consumer, options["orders"], quiet=options["verbose"] or options["as_json"]),
    ):
        consumer.run(options["orders"], options["idle"], until=tell)
    state = group_state(connection, options["group"], options["topic"])
    report = account(ledger, state, options["topic"], seed=options["seed"], broker="kafka")
    if options["as_json"]:
        print_json(report.as_dict())
    else:
        click.echo(report)
    if consumer.letters.trouble:
        click.echo(f"orderkit: {consumer.letters.trouble}", err=True)
    return 1 if consumer.letters.trouble or not report.conserved else 0


def _teller(ledger: Ledger) -> Callable[[], bool]:
    """Give a function that prints what is new in the ledger, and never asks to stop."""
    seen = 0

    def tell() -> bool:
        nonlocal seen
        for i in range(max(0, seen - ledger.dropped), len(ledger)):
            name = ledger.order_id[i] or f"{ledger.topic[i]}[{ledger.partition[i]}]@{ledger.offset[i]}"
            price = "" if math.isnan(ledger.price[i]) else f" at {ledger.price[i]:.2f}"
            why = f" ({ledger.error[i]})" if ledger.error[i] else ""
            click.echo(f"order {name}{price}: attempt {ledger.attempt[i]}, {FATES[ledger.fate[i]]}{why}")
        seen = ledger.dropped + len(ledger)
        return False

    return tell


@click.command()
@group_option
@topic_options
@connection_options
@json_option
def average(**options: Any) -> None:
    """Print the group's running average, read from its commits."""
    connection, topic = make_connection(options), options["topic"]
    state = group_state(connection, options["group"], topic)
    ends = connection.watermarks(topic)
    lag = sum(high - max(low, state.offsets.get(number, low)) for number, (low, high) in ends.items())
    answer = {
        "group": options["group"],
        "topic": topic,
        "average": state.average.rounded(),
        "count": state.average.count,
        "total": state.average.sum,
        "dead": state.dead,
        "skipped": state.skipped,
        "lag": lag,
    }
    if options["as_json"]:
        click.echo(json.dumps(answer, indent=2))
    else:
        click.echo(
            f"average {answer['average']} over {answer['count']} orders; "
            f"{state.dead} dead, {state.skipped} skipped, {lag} to go"
        )
