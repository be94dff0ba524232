"""`orderkit compare-engines`: every way to wait, on the same work."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import click

from orderkit.cli.options import connection_options, json_option, open_broker, print_json
from orderkit.cli.types import SECONDS, SHARE, SOME, Number, OneOf, examples
from orderkit.comparison import CONTESTANTS, Plan, as_table, compare
from orderkit.kafka import Connection


@click.command(
    "compare-engines",
    epilog=examples("orderkit compare-engines", "orderkit compare-engines --engine pause --engine topics --rate 1000"),
)
@click.option("--engine", "engines", type=OneOf(tuple(CONTESTANTS)), multiple=True, help="Only these.")
@click.option("--orders", type=SOME, default=2000, show_default=True, help="Orders in each phase.")
@click.option("--keys", type=SOME, default=100, show_default=True, help="Keys that the orders are spread over.")
@click.option("--failing", type=SHARE, default=0.01, show_default=True, help="Share of the keys whose orders fail.")
@click.option("--rate", type=Number(0, min_open=True), default=400.0, show_default=True, help="Orders a second.")
@click.option("--max-attempts", type=SOME, default=3, show_default=True, help="Delivery attempts in all.")
@click.option("--backoff-base", type=SECONDS, default=0.2, show_default=True, help="Seconds between two attempts.")
@click.option("--seed", default=7, show_default=True, help="Decides the orders, and who fails.")
@click.option("--apache", is_flag=True, help='Run on real Apache Kafka; needs pip install "orderkit[kafka]".')
@connection_options
@click.option("--chart", metavar="FILE", help="Save a picture of the comparison (.png, .svg, .pdf).")
@json_option
def compare_engines(**options: Any) -> None:
    """Let each engine do the same work on the same broker: throughput, waits, order, records, memory."""
    plan = Plan(
        options["orders"], options["keys"], options["failing"], options["rate"],
        options["max_attempts"], options["backoff_base"], options["seed"],
    )  # fmt: skip
    if options["chart"]:
        from orderkit.show.chart import can_save  # noqa: PLC0415  matplotlib only for those who want a picture

        can_save(options["chart"])
    with ExitStack() as stack:
        broker = open_broker(stack, options)
        connection = broker if isinstance(broker, Connection) else broker.connection
        results = compare(connection, options["engines"] or None, plan, told=_tell)
    if options["chart"]:
        from orderkit.show.chart import save_comparison  # noqa: PLC0415

        save_comparison(results, options["chart"])
    if options["as_json"]:
        print_json({"plan": asdict(plan), "engines": [asdict(result) for result in results]})
    else:
        click.echo(as_table(results))


def _tell(engine: str) -> None:
    click.echo(f"{engine} ...", err=True)
