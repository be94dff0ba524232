"""What the `dlq` commands share: the filter's options, and a dead letter as a row."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from orderkit.cli.options import Command, checked
from orderkit.cli.types import OneOf
from orderkit.dead_letters import DIALECTS, DeadLetterRecord, LetterFilter, Where
from orderkit.dead_letters.filters import parse_attempts, parse_header, parse_origin, parse_time
from orderkit.dead_letters.payload import Payload, plain
from orderkit.dead_letters.times import when
from orderkit.kafka import DEAD_LETTERS
from orderkit.kafka.names import check_dead_letter_topic
from orderkit.show.printable import capped, cell, say

REASONS = ("poison", "permanent", "transient")
FORMATS = ("table", "json", "csv")
PREVIEW = 60  # characters of a value in a line
FILTER_OPTIONS = (
    click.option("--reason", "reasons", multiple=True, type=OneOf(REASONS), help="Of this reason."),
    click.option("--exception", "--class", "exceptions", multiple=True, metavar="CLASS",
                 help="Whose exception is of this class; * is anything."),
    click.option("--product", "products", multiple=True, help="Whose record is for it."),
    click.option("--key", "keys", multiple=True, help="With this key."),
    click.option("--since", metavar="TIME", help="Written since then: 90m, 2d (ago), or 2026-11-23T14:00 (UTC)."),
    click.option("--until", metavar="TIME", help="Written before then."),
    click.option("--from-topic", "topics", multiple=True, help="That came from there."),
    click.option("--from-partition", "partitions", multiple=True, type=int, help="That came from there."),
    click.option("--origin", "origins", multiple=True, metavar="TOPIC[:PARTITION]", help="That came from there."),
    click.option("--attempts", metavar="N[-M]", help="That had so many delivery attempts: 3, 2-5, 4-."),
    click.option("--dialect", "dialects", multiple=True, type=OneOf([it.name for it in DIALECTS]),
                 metavar="NAME", help="Written by this system: spring, connect, ..."),
    click.option("--header", "headers", multiple=True, metavar="NAME=VALUE",
                 help="With this header; * is anything, 0x... are bytes."),
    click.option("--where", metavar="CONDITION",
                 help='On fields: \'price > 100 and product == "Lamp"\', \'customer.country == "DE"\'.'),
)  # fmt: skip
dlq_topic_option = click.option(
    "--dlq-topic", default=DEAD_LETTERS, envvar="ORDERKIT_DLQ_TOPIC", show_default=True, help="The dead-letter topic.",
    callback=checked(check_dead_letter_topic),
)  # fmt: skip
any_option = click.option(
    "--any", "any_topic", is_flag=True, help="Whatever is there, even if no header of it is known."
)
format_option = click.option("--format", "shape", type=OneOf(FORMATS), help="By default a table.")


def filter_options(command: Command) -> Command:
    """Add the options that say which dead letters are meant."""
    decorate: Callable[[Any], Any]
    for decorate in reversed(FILTER_OPTIONS):
        command = decorate(command)
    return command


def make_filter(options: Mapping[str, Any]) -> LetterFilter:
    """Make the filter that the options ask for.

    Raises:
        UsageError: a time, a range or a condition that cannot be read.
    """
    return LetterFilter(
        reasons=options["reasons"],
        exceptions=options["exceptions"],
        products=options["products"],
        keys=options["keys"],
        since=parse_time("since", options["since"]),
        until=parse_time("until", options["until"]),
        topics=options["topics"],
        partitions=options["partitions"],
        attempts=parse_attempts(options["attempts"]),
        dialects=options["dialects"],
        where=None if options["where"] is None else Where(options["where"]),
        origins=tuple(map(parse_origin, options["origins"])),
        headers=tuple(map(parse_header, options["headers"])),
    )


def never(only: LetterFilter) -> str:
    """Say which fields of a condition nothing has, as a misspelt one."""
    missing = ", ".join(sorted(only.where.missing)) if only.where else ""
    return f" None has a field {missing}." if missing else ""


def row(letter: DeadLetterRecord, payload: Payload) -> dict[str, object]:
    """Give a dead letter as flat JSON; of its value what can be read."""
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "written": when(letter.timestamp),
        "dialect": letter.dialect or None,
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
        "bytes": len(letter.value or b""),
        "replays": letter.replays,
        "order": plain(payload.order),
        "payload": payload.kind,
        "data": plain(payload.data),
        "undecodable": payload.why or None,
        "notes": list(letter.notes),
        **{f"dlq.{name}": value for name, value in letter.story.items()},
    }


COLUMNS = (
    "place", "written", "dialect", "origin", "group", "reason", "attempts", "replays", "exception", "message", "key",
    "bytes", "orderId", "product", "price", "payload", "data", "undecodable", "notes",
)  # fmt: skip


def _flat(letter: DeadLetterRecord, payload: Payload) -> list[object]:
    told, read = letter.story, payload.order or {}
    return [
        letter.place,
        when(letter.timestamp) or "",
        letter.dialect,
        _origin(letter),
        told.get("group", ""),
        told.get("reason", ""),
        told.get("attempts", ""),
        letter.replays,
        told.get("exception", ""),
        told.get("message", ""),
        "" if letter.key is None else letter.key.decode(errors="replace"),
        len(letter.value or b""),
        *(read.get(name, "") for name in ("orderId", "product", "price")),
        payload.kind,
        payload.data if isinstance(payload.data, str) else json.dumps(plain(payload.data), ensure_ascii=False),
        payload.why,
        "; ".join(letter.notes),
    ]


def _origin(letter: DeadLetterRecord) -> str:
    topic, partition, offset = letter.origin
    return f"{topic}[{partition}]@{offset}" if offset >= 0 else topic


Pairs = Iterable[tuple[DeadLetterRecord, Payload]]


def print_csv(pairs: Pairs) -> None:
    """Print dead letters as CSV, with a header."""
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    writer.writerows([cell(it) if isinstance(it, str) else it for it in _flat(*pair)] for pair in pairs)


def print_rows(topic: str, pairs: Pairs) -> None:
    """Print dead letters as one JSON object, however many there are."""
    click.echo(f'{{"topic": {json.dumps(topic)}, "dead_letters": [')
    for i, pair in enumerate(pairs):
        click.echo((",\n  " if i else "  ") + json.dumps(row(*pair)), nl=False)
    click.echo("\n]}")


def print_table(pairs: Pairs) -> int:
    """Print a line for each dead letter as it is read; give their number."""
    many = 0
    for letter, payload in pairs:
        if not many:
            say(f"{'PLACE':>10}  {'WRITTEN':24}  {'ORIGIN':24}  {'REASON':9}  TRIES  WHAT, AND WHY")
        many += 1
        told, written = letter.story, (when(letter.timestamp) or "unknown").replace("+00:00", "Z")
        reason = capped(told.get("reason") or letter.dialect or "unknown")
        why = [capped(it) for it in (told.get("exception"), told.get("message", "").partition("\n")[0]) if it]
        again = f", replayed {letter.replays} x" if letter.replays else ""
        notes = f" ({capped('; '.join(letter.notes))})" if letter.notes else ""
        say(
            f"{letter.place:>10}  {written:24}  {capped(_origin(letter)):24}  {reason:9}  "
            f"{capped(told.get('attempts') or '?'):>5}  "
            f"{summary(payload, letter.value)}: {': '.join(why) or 'nothing told'}{again}{notes}"
        )
    return many


def summary(payload: Payload, value: bytes | None) -> str:
    """Say in a few words what a value says."""
    if order := payload.order:
        return f"{capped(str(order['product']))} at {order['price']:.2f}"
    if payload.kind == "avro":
        return f"{payload.schema} {_short(json.dumps(plain(payload.data), ensure_ascii=False))}"
    if payload.kind in ("json", "text"):
        return _short((value or b"")[: 4 * PREVIEW].decode(errors="ignore"))
    return f"{len(value or b'')} bytes" if payload.kind == "bytes" else payload.kind


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…"
