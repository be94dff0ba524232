"""`orderkit demo`: the whole system in one process."""

from __future__ import annotations

import os
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
from orderkit.errors import UsageError
from orderkit.kafka import Connection
from orderkit.run import Run
from orderkit.show.closing import close
from orderkit.show.view import run_view, shown

WORTH_WATCHING = 8.0  # seconds that a run lasts on a terminal, unless --rate says otherwise
QUICK = 500.0  # orders a second where nobody watches


@click.command(
    epilog=examples("orderkit demo", "orderkit demo --orders 2000 --rate 0 --failure-rate 0.5 --chart run.png")
)
@click.option("--orders", type=SOME, default=500, show_default=True, help="How many orders to produce.")
@click.option(
    "--rate",
    type=SECONDS,
    help=f"Orders a second; 0 for as fast as it goes.  [default: {WORTH_WATCHING:g} s for all of them on a terminal; "
    f"{QUICK:g} in a pipe]",
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
    _check_outage(options)
    faults, policy = make_faults(options), make_policy(options)
    if options["chart"]:
        from orderkit.show.chart import can_save  # noqa: PLC0415  matplotlib only for those who want a picture

        can_save(options["chart"])
    with ExitStack() as stack:
        broker = open_broker(stack, options)
        run = Run(
            broker,
            orders=options["orders"],
            seed=options["seed"],
            rate=pace(options),
            faults=faults,
            policy=policy,
            engine=options["engine"],
            budget=make_budget(options),
            wire=options["wire"],
            partitions=options["partitions"],
        )
        view = run_view(run, quiet=options["as_json"])
        with shown(view), stop_on_signal(run.stop, lambda: run.consumer.ending):
            run.start()
            while run.alive:
                run.join(0.1)
            run.wait()
            report = run.report()
            if view:
                view.report = report
        if options["chart"]:
            from orderkit.show.chart import save  # noqa: PLC0415

            save(run.ledger, options["chart"])
    if options["as_json"]:
        print_json(report.as_dict())
    else:
        close(report, _next(run, broker, options))
    return 0 if report.conserved else 1


def pace(options: dict[str, Any]) -> float:
    """Give the orders a second: on a terminal there is time to look."""
    watched = sys.stdout.isatty() and not options["as_json"] and not os.environ.get("CI")
    usual = options["orders"] / WORTH_WATCHING if watched else QUICK
    return usual if options["rate"] is None else float(options["rate"])


def _check_outage(options: dict[str, Any]) -> None:
    """Refuse an outage that no order of this run meets.

    Raises:
        UsageError: it begins behind the last order.
    """
    first, last = options["outage"] or (1, 1)
    if first > options["orders"] or last < 1:
        told = f"--outage {first}-{last}: no order meets it; their numbers are 1 to {options['orders']}."
        raise UsageError(f"{told} Choose some of them, or more --orders.")


def _next(run: Run, broker: object, options: dict[str, Any]) -> str:
    """Say what to do next: with a broker that stays the dead letters are there to be looked at."""
    if isinstance(broker, Connection):
        named = [f"--{name.replace('_', '-')} {options[name]}" for name in ("bootstrap_server", "command_config")
                 if options[name]]  # fmt: skip
        return f"Next: {' '.join(['orderkit dlq list --dlq-topic', run.dead_letters, *named])}"
    own = "orderkit broker --apache" if options["apache"] else "orderkit broker"
    return f"Next: `{own}` keeps a broker up for `orderkit dlq list`; `orderkit notebook` has sliders."
