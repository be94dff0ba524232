"""`orderkit dlq history`: who moved which dead letters, and how it ended."""

from __future__ import annotations

import csv
import logging
import sys
import time
from typing import Any

import click

from orderkit.cli.letters import format_option
from orderkit.cli.options import checked, connection_options, json_option, make_connection, print_json
from orderkit.cli.types import COUNT, OneOf, examples
from orderkit.dead_letters.filters import parse_time
from orderkit.dead_letters.times import when
from orderkit.kafka import Connection
from orderkit.kafka.names import check_dead_letter_topic
from orderkit.replay.batch import FILTERED
from orderkit.replay.journal import (
    ENDS,
    Entry,
    as_dict,
    create_journal,
    journal_topic,
    read_journal,
)
from orderkit.show.printable import capped, cell, say

log = logging.getLogger("orderkit")

COLUMNS = (
    "began", "told", "user", "host", "process", "source", "to", "moved", "parked", "stayed", "failed", "filtered",
    "outcome", "filter", "group", "error", "id",
)  # fmt: skip


@click.command(
    epilog=examples("orderkit dlq history", "orderkit dlq history --dlq-topic shop-dlq --since 7d --format csv")
)
@click.option(
    "--dlq-topic", "sources", multiple=True, metavar="TOPIC", help="Replays of this dead-letter topic; by default all.",
    callback=lambda _context, _option, names: tuple(map(check_dead_letter_topic, names)),
)  # fmt: skip
@click.option("--user", "users", multiple=True, help="Run by this user.")
@click.option("--ended", "ends", multiple=True, type=OneOf(ENDS), help="That ended so, or still run.")
@click.option("--since", metavar="TIME", help="Begun since then: 90m, 2d (ago), or 2026-11-23T14:00 (UTC).")
@click.option("--limit", type=COUNT, metavar="N", help="Only the newest so many.")
@click.option(
    "--create", metavar="TOPIC", help="First create the journal's topic beside this dead-letter topic, for all to see.",
    callback=checked(check_dead_letter_topic),
)  # fmt: skip
@format_option
@connection_options
@json_option
def history(**options: Any) -> None:
    """Show who replayed dead letters: when, with which filter, where to, how many, and how it ended.

    A replay that began and never ended was killed; it may have moved a few more than it could still tell.
    """
    connection, since = make_connection(options), parse_time("since", options["since"])
    if source := options["create"]:
        made = create_journal(connection, source)
        say(f"{journal_topic(source)}: {'created' if made else 'is there already'}", err=True)
    entries = [
        entry
        for entry in read_journal(connection, _warn, options["sources"] or None)
        if (not options["users"] or entry.user in options["users"])
        and (not options["ends"] or entry.outcome(time.time()) in options["ends"])
        and (since is None or entry.began >= since)
    ][: options["limit"]]
    if options["as_json"] or options["shape"] == "json":
        print_json({"replays": [as_dict(entry) for entry in entries]})
    elif options["shape"] == "csv":
        _print_csv(entries)
    else:
        _print_table(connection, entries)


def _warn(text: str) -> None:
    log.warning("%s", text, extra={"event": "journal"})


def _to(entry: Entry) -> str:
    """Say where the letters of a replay went."""
    return entry.to or " ".join(entry.targets) or "where they came from"


def _print_csv(entries: list[Entry]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    for entry in entries:
        told = {**as_dict(entry), "filter": entry.only, "filtered": entry.counts.get(FILTERED, 0), "to": _to(entry)}
        told |= {name: when(int(getattr(entry, name) * 1000)) for name in ("began", "told")}
        writer.writerow([cell(it) if isinstance(it := told[name], str) else it for name in COLUMNS])


def _print_table(connection: Connection, entries: list[Entry]) -> None:
    if not entries:
        say("No replay is noted.")
        return
    say(f"{'BEGAN':24}  {'WHO':12}  {'MOVED':>9} {'PARKED':>7} {'STAYED':>7} {'FAILED':>7}  {'ENDED':11}  FROM, TO")
    for entry in entries:
        began = str(when(int(entry.began * 1000))).replace("+00:00", "Z")
        moved = f"{entry.moved}{'' if entry.is_exact else '+'}"
        only = f", only {entry.only}" if entry.only else ""
        way = f"{entry.source} to {_to(entry)}{only}{f': {entry.error}' if entry.error else ''}"
        say(
            f"{began:24}  {capped(entry.user):12}  {moved:>9} {entry.parked:>7} {entry.stayed:>7} "
            f"{entry.failed:>7}  {entry.outcome(time.time()):11}  {capped(way)}"
        )
    there = connection.metadata().topics
    if alone := sorted({entry.source for entry in entries if journal_topic(entry.source) not in there}):
        say(
            f"Only replays of this user on this machine are noted for {', '.join(alone)}. "
            f"`orderkit dlq history --create {alone[0]}` lets the team see the next ones.",
            err=True,
        )
