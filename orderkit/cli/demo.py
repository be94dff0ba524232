"""`orderkit demo`: the whole system in one process."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import click

from orderkit.cli.options import (
    connection_options,
    fault_options,
    json_option,
    make_budget,
    make_faults,
    make_policy,
    open_broker,
    print_json,
    retry_options,
    wire_option,
)
from orderkit.cli.signals import stop_on_signal
from orderkit.cli.types import SECONDS, SHARE, SOME, examples
from orderkit.run import Run
from orderkit.show.view import follow


@click.command(
    epilog=examples("orderkit demo", "orderkit demo --orders 2000 --rate 0 --failure-rate 0.5 --chart run.png")
)
@click.option("--orders", type=SOME, default=500, show_default=True, help="How many orders to produce.")
@click.option(
    "--rate", type=SECONDS, default=500.0, show_default=True, help="Orders a second; 0 for as fast as it goes."
)
@click.option("--seed", default=7, show_default=True, help="Decides the orders and their fates.")
@click.option("--partitions", type=SOME, default=4, show_default=True, help="Partitions of the run's topics.")
@click.option(
    "--poison-rate", type=SHARE, default=0.01, show_default=True, help="Share of orders whose bytes are damaged."
)
@fault_options(transient=0.2, permanent=0.01)
@retry_options(base=0.02)
@wire_option
@click.option("--apache", is_flag=True, help='Run on real Apache Kafka; needs pip install "orderkit[kafka]".')
@connection_options
@click.option("--chart", metavar="FILE", help="Save a picture of the run (.png, .svg, .pdf).")
@json_option
def demo(**options: Any) -> int:
    """Produce, consume, retry, average and dead-letter, and account for every order."""
    faults, policy = make_faults(options), make_policy(options)
    if options["chart"]:
        from orderkit.show.chart import can_save  # noqa: PLC0415  matplotlib only for those who want a picture

        can_save(options["chart"])
    with ExitStack() as stack:
        run = Run(
            open_broker(stack, options),
            orders=options["orders"],
            seed=options["seed"],
            rate=options["rate"],
            faults=faults,
            policy=policy,
            engine=options["engine"],
            budget=make_budget(options),
            wire=options["wire"],
            partitions=options["partitions"],
        )
        with stop_on_signal(run.stop):
            run.start()
            follow(run, live=sys.stdout.isatty() and not options["as_json"])
            run.wait()
        report = run.report()
        if options["chart"]:
            from orderkit.show.chart import save  # noqa: PLC0415

            save(run.ledger, options["chart"])
    if options["as_json"]:
        print_json(report.as_dict())
    else:
        click.echo(report)
    return 0 if report.conserved else 1
