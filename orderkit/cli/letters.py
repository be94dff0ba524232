"""What the `dlq` commands share: the filter's options, and a dead letter as a row."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import click

from orderkit.cli.options import Command, as_text, checked
from orderkit.cli.types import OneOf
from orderkit.dead_letters import DIALECTS, DeadLetterRecord, LetterFilter, Where
from orderkit.dead_letters.filters import parse_attempts, parse_time
from orderkit.dead_letters.times import when
from orderkit.kafka import DEAD_LETTERS
from orderkit.kafka.names import check_dead_letter_topic
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.retry import Failure
from orderkit.show.printable import capped, cell, say

REASONS = ("poison", "permanent", "transient")
FORMATS = ("table", "json", "csv")
FILTER_OPTIONS = (
    click.option("--reason", "reasons", multiple=True, type=OneOf(REASONS), help="Of this reason."),
    click.option("--exception", "exceptions", multiple=True, metavar="CLASS", help="Of this class; * is anything."),
    click.option("--product", "products", multiple=True, help="Whose order is for it."),
    click.option("--key", "keys", multiple=True, help="With this key."),
    click.option("--since", metavar="TIME", help="Written since then: 90m, 2d (ago), or 2026-11-23T14:00 (UTC)."),
    click.option("--until", metavar="TIME", help="Written before then."),
    click.option("--from-topic", "topics", multiple=True, help="That came from there."),
    click.option("--from-partition", "partitions", multiple=True, type=int, help="That came from there."),
    click.option("--attempts", metavar="N[-M]", help="That had so many delivery attempts: 3, 2-5, 4-."),
    click.option("--dialect", "dialects", multiple=True, type=OneOf([it.name for it in DIALECTS]),
                 metavar="NAME", help="Written by this system: spring, connect, ..."),
    click.option("--where", metavar="CONDITION", help='On the order: \'price > 100 and product == "Lamp"\'.'),
)  # fmt: skip
dlq_topic_option = click.option(
    "--dlq-topic", default=DEAD_LETTERS, envvar="ORDERKIT_DLQ_TOPIC", show_default=True, help="The dead-letter topic.",
    callback=checked(check_dead_letter_topic),
)  # fmt: skip
format_option = click.option("--format", "shape", type=OneOf(FORMATS), help="By default a table.")


def filter_options(command: Command) -> Command:
    """Add the options that say which dead letters are meant."""
    decorate: Callable[[Any], Any]
    for decorate in reversed(FILTER_OPTIONS):
        command = decorate(command)
    return command


def make_filter(options: Mapping[str, Any], codec: Codec) -> LetterFilter:
    """Make the filter that the options ask for; `codec` knows an order's fields.

    Raises:
        UsageError: a time, a range or a condition that cannot be read.
    """
    schema: Any = codec.schema
    fields = [field["name"] for field in schema["fields"]]
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
        where=None if options["where"] is None else Where(options["where"], fields),
    )


def row(letter: DeadLetterRecord, order: Order | Failure | None) -> dict[str, object]:
    """Give a dead letter as flat JSON; of the order what can be read."""
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "written": when(letter.timestamp),
        "dialect": letter.dialect or None,
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
        "bytes": len(letter.value or b""),
        "replays": letter.replays,
        "order": order if isinstance(order, dict) else None,
        **{f"dlq.{name}": value for name, value in letter.story.items()},
    }


COLUMNS = (
    "place", "written", "dialect", "origin", "group", "reason", "attempts", "replays", "exception", "message", "key",
    "bytes", "orderId", "product", "price",
)  # fmt: skip


def _flat(letter: DeadLetterRecord, order: Order | Failure | None) -> list[object]:
    told = letter.story
    topic, partition, offset = letter.origin
    read: Mapping[str, object] = order if isinstance(order, dict) else {}
    return [
        letter.place,
        when(letter.timestamp) or "",
        letter.dialect,
        f"{topic}[{partition}]@{offset}" if offset >= 0 else topic,
        told.get("group", ""),
        told.get("reason", ""),
        told.get("attempts", ""),
        letter.replays,
        told.get("exception", ""),
        told.get("message", ""),
        "" if letter.key is None else letter.key.decode(errors="replace"),
        len(letter.value or b""),
        *(read.get(name, "") for name in COLUMNS[-3:]),
    ]


Pairs = Iterable[tuple[DeadLetterRecord, Order | Failure | None]]


def print_csv(pairs: Pairs) -> None:
    """Print dead letters as CSV, with a header."""
    writer = csv.writer(sys.stdout)
    writer.writerow(COLUMNS)
    writer.writerows([cell(it) if isinstance(it, str) else it for it in _flat(*pair)] for pair in pairs)


def print_counts(counters: Iterable[tuple[str, Counter[str]]]) -> None:
    """Print how often each value was told as CSV, with a header."""
    writer = csv.writer(sys.stdout)
    writer.writerow(("name", "value", "count"))
    for name, counter in counters:
        writer.writerows((name, cell(value), many) for value, many in counter.most_common())


def print_rows(topic: str, pairs: Pairs) -> None:
    """Print dead letters as one JSON object, however many there are."""
    click.echo(f'{{"topic": {json.dumps(topic)}, "dead_letters": [')
    for part in _joined(json.dumps(row(*pair), default=as_text) for pair in pairs):
        click.echo(part, nl=False)
    click.echo("\n]}")


def _joined(texts: Iterable[str]) -> Iterator[str]:
    for i, text in enumerate(texts):
        yield f"{',' if i else ''}\n  {text}" if i else f"  {text}"


def print_table(pairs: Pairs) -> int:
    """Print a line for each dead letter as it is read; give their number."""
    many = 0
    for letter, order in pairs:
        if not many:
            say(f"{'PLACE':>10}  {'WRITTEN':24}  {'ORIGIN':24}  {'REASON':9}  TRIES  ORDER, AND WHY")
        many += 1
        place, written, _, origin, _, reason, attempts, replays, exception, message, *_ = _flat(letter, order)
        told = capped(str(reason or letter.dialect or "unknown"))
        again = f", replayed {replays} x" if replays else ""
        what = f"{capped(str(order['product']))} at {order['price']:.2f}: " if isinstance(order, dict) else ""
        why = str(message).splitlines()[:1] or [""]
        written = str(written or "unknown").replace("+00:00", "Z")
        say(
            f"{place:>10}  {written:24}  {capped(str(origin)):24}  {told:9}  {capped(str(attempts or '?')):>5}  "
            f"{what}{capped(str(exception))}: {capped(why[0])}{again}"
        )
    return many
