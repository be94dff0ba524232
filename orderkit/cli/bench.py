"""`orderkit bench`: the whole job, orderkit and its peers side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from orderkit.brokers import ApacheBroker
from orderkit.cli.options import connection_options, json_option, make_connection, print_json
from orderkit.cli.types import SOME, Whole, examples
from orderkit.kafka import Connection, named_broker
from orderkit.show.printable import say

QUICK_ORDERS, QUICK_ROUNDS = 200_000, 3


@click.command(
    epilog=examples("orderkit bench --quick", "orderkit bench --only kafka-python --rounds 3 --chart bench.png")
)
@click.option(
    "--orders",
    type=Whole(100),
    default=1_000_000,
    show_default=True,
    help="Orders in one run; slow contenders get a share.",
)
@click.option("--rounds", type=SOME, default=5, show_default=True, help="Rounds; in each, all contenders run once.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this contender, and orderkit; may be repeated.")
@click.option("--quick", is_flag=True, help="A minute: fewer orders, three rounds, nobody who needs an installation.")
@click.option("--produce", is_flag=True, help="Measure producing, with every delivery accounted for.")
@connection_options
@click.option("--chart", metavar="FILE", help="Save a picture (.png, .svg, .pdf).")
@json_option
def bench(**options: Any) -> int:
    """Measure the whole job on real Kafka: orderkit and its peers, results checked before a rate counts.

    Without a broker of yours, one is started: needs pip install "orderkit[kafka]". What peers need is installed
    once, into a cache folder.
    """
    from orderkit.bench import (  # noqa: PLC0415  only who measures
        CONTENDERS,
        PRODUCERS,
        Stage,
        choose,
        contest,
        report,
    )

    chosen = choose(options["only"], PRODUCERS if options["produce"] else CONTENDERS)
    orders, rounds = options["orders"], options["rounds"]
    if options["quick"]:
        orders, rounds = min(orders, QUICK_ORDERS), min(rounds, QUICK_ROUNDS)
        chosen = [one for one in chosen if not one.needs or one.name in options["only"]]
    if options["chart"]:
        from orderkit.show.chart import can_save  # noqa: PLC0415  matplotlib only for those who want a picture

        can_save(options["chart"])
    with _connection(options) as connection:
        entries = [entry for one in chosen for entry in one.entries()]
        rows = contest(Stage(connection), entries, orders, rounds, _tell, produce=options["produce"])
    about = report.machine()
    if options["chart"]:
        report.save_chart(rows, options["chart"])
    if options["as_json"]:
        print_json(report.as_dict(rows, about))
    else:
        report.show(rows, about)
    return 1 if any(row.wrong for row in rows) else 0


@contextmanager
def _connection(options: Mapping[str, Any]) -> Iterator[Connection]:
    """Give the connection to the broker that was named, else to one that is there meanwhile."""
    if options["bootstrap_server"] or options["command_config"] or named_broker():
        yield make_connection(options)
    else:
        with ApacheBroker({}) as broker:
            yield broker.connection


def _tell(line: str) -> None:
    say(line, err=True)
