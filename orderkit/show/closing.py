"""How a run ends on a terminal: its account in three short lines, and what to do next."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.text import Text

from orderkit.account.report import Report

TICK, CROSS = "✔", "✘"
ASCII_TICK, ASCII_CROSS = "OK", "NO"


def account_lines(report: Report, ascii_only: bool = False) -> list[Text]:
    """Give the account in three lines: orders, retries, and the average with the number of orders in it."""
    tick, cross = (ASCII_TICK, ASCII_CROSS) if ascii_only else (TICK, CROSS)
    mark, style = (tick, "bold green") if report.conserved else (cross, "bold red")
    fates = {
        "averaged": report.averaged,
        "dead": report.dead,
        "skipped": report.skipped,
        "in flight": report.in_flight,
        "expired": report.expired,
    }
    told = " + ".join(f"{many} {name}" for name, many in fates.items() if many or name in ("averaged", "dead"))
    orders = f": {report.produced} {report.counted} = {told}"
    spoilt = "bold red" if report.lost or report.duplicated else ""
    indent = " " * (len(mark) + 1)
    return [
        Text.assemble((f"{mark} {report.verdict}", style), orders),
        Text.assemble(
            f"{indent}{report.retries} retries; ", (f"lost {report.lost}, duplicated {report.duplicated}", spoilt)
        ),
        Text(f"{indent}average {report.average} over {report.count} orders{report.crashes}"),
    ]


def close(report: Report, *then: str) -> None:
    """Print the account: three lines and what comes next on a terminal, one line in a pipe.

    Args:
        report: the account.
        then: what to do next, a line each.
    """
    if not sys.stdout.isatty():
        click.echo(report)
        return
    console = Console(highlight=False)
    for line in account_lines(report, console.options.ascii_only):
        console.print(line, soft_wrap=True)
    for told in then:
        console.print(Text(told, style="dim"), soft_wrap=True)
