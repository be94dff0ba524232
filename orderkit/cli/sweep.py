"""`orderkit sweep`: a grid of parameters over runs or over a notebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from orderkit import sweep as library
from orderkit.cli.signals import Interrupted
from orderkit.cli.types import SOME, Number, examples
from orderkit.errors import UsageError
from orderkit.show.printable import say
from orderkit.sweep.figures import check_figure


@click.command(
    epilog=examples(
        "orderkit sweep failure_rate=0.1,0.3,0.5 max_attempts=1:5 orders=200",
        "orderkit sweep --notebook notebooks/05_try_again.ipynb seed=1:10",
    )
)
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUES...")
@click.option("--notebook", metavar="FILE", help="Run this notebook by papermill; by default a plain run.")
@click.option("--out", default="sweep", show_default=True, help="Folder of the results; what is done there stays done.")
@click.option("--workers", type=SOME, help="Processes at one time; by default four for each core.")
@click.option("--dask", metavar="ADDRESS", help="Run on the workers of a Dask scheduler, as in tcp://host:8786.")
@click.option("--figure", default="dead", show_default=True, help="What to show: dead, retries, average, seconds, ...")
@click.option("--chart", metavar="FILE", help="Save a heat map of the figure (.png, .svg, .pdf).")
@click.option(
    "--timeout",
    type=Number(1),
    default=120.0,
    show_default=True,
    help="Seconds that a run, or a notebook's cell, may take.",
)
def sweep(settings: tuple[str, ...], **options: Any) -> int:
    """Run every combination of parameters, and keep one table of all of them.

    VALUES is one value, several with commas between them, or a range.
    """
    grid = dict(map(_setting, settings))
    if options["chart"]:
        from orderkit.show.chart import can_save  # noqa: PLC0415  matplotlib only for those who want a picture

        can_save(options["chart"])
    check_figure(options["figure"])
    try:
        frame = library.sweep(
            grid,
            notebook=options["notebook"],
            folder=options["out"],
            workers=options["workers"],
            dask=options["dask"],
            patience=options["timeout"],
        )
    except Interrupted as end:
        end.args = (f"interrupted. What is done is kept in {options['out']}; the same command goes on with the rest.",)
        raise
    table = Path(options["out"]) / "table.csv"
    frame.to_csv(table, index=False)
    click.echo(library.varied(frame, grid, options["figure"]).to_string(index=False))
    if options["chart"]:
        library.picture(frame, grid, options["figure"]).figure.savefig(options["chart"], dpi=120)
    failed = frame["error"].dropna()
    say(f"{len(frame)} cells, {len(failed)} failed; the table is {table}.")
    for error, many in failed.value_counts().items():
        say(f"{many} x {error}", err=True)
    return 1 if len(failed) else 0


def _setting(text: str) -> tuple[str, list[Any]]:
    """Read `name=1,2,3` or `name=1:10`."""
    name, equals, values = text.partition("=")
    if not (name.isidentifier() and equals and values):
        raise UsageError(f"{text!r}: write NAME=VALUES, as in failure_rate=0.1,0.3 or seed=1:10.")
    first, colon, last = values.partition(":")
    if colon and first.isdecimal() and last.isdecimal():
        if int(last) < int(first):
            raise UsageError(f"{text!r}: a range goes upwards, as in seed=1:10.")
        return name, list(range(int(first), int(last) + 1))
    return name, list(map(_value, values.split(",")))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
