"""What a contest came to: a table, a chart, and one JSON object with the machine it ran on."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import confluent_kafka

from orderkit.bench.contest import Row
from orderkit.errors import OrderkitError

COLUMNS = ("contender", "orders", "orders/s", "spread", "orderkit is", "CPU per order", "memory")


def machine() -> dict[str, str]:
    """Describe this machine and the versions that count."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _processor(),
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        "python": platform.python_version(),
        "orderkit": version("orderkit"),
        "confluent-kafka": version("confluent-kafka"),
        "librdkafka": confluent_kafka.libversion()[0],
        "fastavro": version("fastavro"),
    }


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Give the table's text, the first row being the reference."""
    reference = rows[0].rate
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if not row.rate:
            told = f"wrong: {row.wrong}" if row.wrong else f"not here: {row.absent}"
            lines.append((row.entry.title, f"{row.orders:,}", told, "", "", "", ""))
            continue
        ratio = f"{reference / row.rate:.2f}x" if reference else ""
        figures = (f"{row.rate:,.0f}", f"±{row.spread:.0%}", ratio, f"{row.cpu:.2f} µs", f"{row.memory:.0f} MB")
        lines.append((row.entry.title, f"{row.orders:,}", *figures))
    return lines


def as_markdown(rows: Sequence[Row], about: dict[str, str]) -> str:
    """Give the table as Markdown, with the machine below it."""
    lines = [f"| {' | '.join(line)} |" for line in (COLUMNS, ("---", *["---:"] * 6), *cells(rows))]
    return "\n".join([*lines, "", ", ".join(f"{name} {value}" for name, value in about.items()), ""])


def show(rows: Sequence[Row], about: dict[str, str]) -> None:
    """Print the table."""
    from rich.console import Console  # noqa: PLC0415  only where a table is shown
    from rich.table import Table  # noqa: PLC0415

    console = Console()
    plain = str.maketrans({"±": "+-", "µ": "u"} if console.options.ascii_only else {})
    table = Table(caption=", ".join(f"{name} {value}" for name, value in about.items()))
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right")
    for line in cells(rows):
        table.add_row(*(text.translate(plain) for text in line))
    console.print(table)


def as_dict(rows: Sequence[Row], about: dict[str, str]) -> dict[str, Any]:
    """Give everything as one JSON object."""
    return {"machine": about, "rows": [row.as_dict(rows[0].rate) for row in rows]}


def save_chart(rows: Sequence[Row], path: str) -> None:
    """Save a bar for each contender that has a rate, with its slowest and fastest run.

    Raises:
        OrderkitError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  only pictures need it

    good = sorted((row for row in rows if row.rate), key=lambda row: row.rate)
    figure = Figure(figsize=(9, 1 + 0.35 * len(good)), layout="constrained")
    axes = figure.subplots()
    ends = [(row.rate - min(row.rates), max(row.rates) - row.rate) for row in good]
    ours = [row.entry.contender.name.startswith("orderkit") for row in good]
    axes.barh(
        [row.entry.title for row in good],
        [row.rate for row in good],
        xerr=list(zip(*ends, strict=True)) if ends else None,
        color=["#0072B2" if own else "#999999" for own in ours],
    )
    axes.set_xlabel("orders a second: median of all rounds, from the slowest to the fastest")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise OrderkitError(f"--chart {path}: {error.strerror}.") from None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
