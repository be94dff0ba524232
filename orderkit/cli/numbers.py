"""What a dead-letter topic holds in numbers: its errors in a few lines, and how often each value was told."""

from __future__ import annotations

import csv
import sys

from orderkit.dead_letters.stats import NAMED, Stats
from orderkit.dead_letters.times import when
from orderkit.show.printable import capped, cell, say

SHOWN_VALUES = 20  # of each name
COLUMNS = ("name", "value", "count", "share", "first", "last", "partitions", "example")


def print_numbers(found: Stats) -> None:
    """Print the errors, the most frequent first, and then the counts."""
    span = ""
    if found.oldest is not None and found.newest is not None:
        span = f", {found.size:,} bytes, written {when(found.oldest)} to {when(found.newest)}"
    say(f"{found.total} dead letters in {found.topic}{span}")
    _print_errors(found)
    for name, counter in found.counts.items():
        for value, count in counter.most_common(SHOWN_VALUES):
            say(f"  {NAMED.get(name, name):10} {count:8}  {capped(value)}")
        if len(counter) > SHOWN_VALUES:
            say(f"  {NAMED.get(name, name):10}           ... and {len(counter) - SHOWN_VALUES} more values")


def _print_errors(found: Stats) -> None:
    rows = found.rows()
    say(f"  {'COUNT':>8}  {'SHARE':>6}  {'FIRST':24}  {'LAST':24}  {'PARTITIONS':>10}  {'EXAMPLE':>10}  ERROR")
    for row in rows[:SHOWN_VALUES]:
        first, last = (str(row[name] or "unknown").replace("+00:00", "Z") for name in ("first", "last"))
        say(
            f"  {row['count']:8}  {row['share']:6.1%}  {first:24}  {last:24}  {row['partitions']:10.0%}  "
            f"{row['example'] or '':>10}  {capped(str(row['label']))}"
        )
    if len(rows) > SHOWN_VALUES:
        say(f"  {'':8}  ... and {len(rows) - SHOWN_VALUES} more errors")


def print_numbers_as_csv(found: Stats) -> None:
    """Print the errors and the counts as CSV, a line each, with a header."""
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    for row in found.rows():
        label = cell(str(row["label"]))
        writer.writerow(("error", label, *(row[name] for name in COLUMNS[2:])))
    for name, counter in found.counts.items():
        counts = counter.most_common()
        writer.writerows(
            (NAMED.get(name, name), cell(value), many, found.share(many), *[""] * 4) for value, many in counts
        )
