"""`orderkit dlq`: look at dead letters, whoever wrote them, and move them back."""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

import click

from orderkit.cli.dlq_files import export, import_
from orderkit.cli.history import history
from orderkit.cli.letters import (
    filter_options,
    format_option,
    make_filter,
    print_counts,
    print_csv,
    print_rows,
    print_table,
    row,
)
from orderkit.cli.options import (
    as_text,
    connection_options,
    json_option,
    make_codec,
    make_connection,
    print_json,
    reading_options,
    topic_options,
)
from orderkit.cli.replay import replay
from orderkit.cli.types import COUNT, Commands, examples
from orderkit.consuming.calm import calm_collector
from orderkit.dead_letters import DeadLetterRecord, read_dead_letters, read_one, select
from orderkit.dead_letters.filters import parse_place
from orderkit.dead_letters.seen import check_replays
from orderkit.dead_letters.stats import NAMED, Stats, count_letters
from orderkit.dead_letters.times import when, whole
from orderkit.errors import OrderkitError
from orderkit.orders.order import Order
from orderkit.retry import Failure
from orderkit.show.printable import capped, say

SHOWN_VALUES = 20  # of each name in the statistics
TIMES = {"timestamp", "first-failure", "last-failure", "due"}
WIDTH, MOST_BYTES = 16, 512  # of a dump


@click.group(cls=Commands)
def dlq() -> None:
    """Look at dead letters (what they are, where they came from, and why) and move them back."""


for command in (replay, history, export, import_):
    dlq.add_command(command)


@dlq.command("list", epilog=examples("orderkit dlq list", "orderkit dlq list --reason poison --since 2d --format csv"))
@click.option("--limit", type=COUNT, help="At most so many.")
@filter_options
@format_option
@reading_options
@topic_options
@connection_options
@json_option
def list_(**options: Any) -> None:
    """List dead letters, a line each."""
    codec = make_codec(options)
    only, topic = make_filter(options, codec), options["dlq_topic"]
    letters = read_dead_letters(make_connection(options), topic)
    pairs = islice(select(letters, only, codec), options["limit"])
    with calm_collector():
        if options["as_json"] or options["shape"] == "json":
            print_rows(topic, pairs)
        elif options["shape"] == "csv":
            print_csv(pairs)
        elif not print_table(pairs):
            say(f"No dead letters in {topic}{f' with {only}' if not only.is_empty else ''}.")


@dlq.command(epilog=examples("orderkit dlq show 0:0", "orderkit dlq show 2:17 --dlq-topic shop-dlq --json"))
@click.argument("which", metavar="PARTITION:OFFSET")
@reading_options
@topic_options
@connection_options
@json_option
def show(**options: Any) -> None:
    """Show one dead letter: the order, its bytes, its headers and its story."""
    place, codec = parse_place(options["which"]), make_codec(options)
    letter = read_one(make_connection(options), options["dlq_topic"], *place)
    if letter is None:
        raise OrderkitError(f"There is no dead letter {options['which']}. `orderkit dlq list` shows what there is.")
    order = codec.decode_batch([letter.value])[0]
    if options["as_json"]:
        print_json(_whole(letter, order))
        return
    say(f"dead letter {letter.place} in {letter.topic}, written {when(letter.timestamp) or 'nobody knows when'}")
    _line("dialect", letter.dialect or "unknown: no header that any dialect has")
    for name, value in letter.story.items():
        time = whole(value) if name in TIMES else None
        _line(name, value if time is None else when(time) or value)
    if letter.replays:
        topic, partition, offset = letter.first_origin
        _line("replays", f"{letter.replays}; first from {topic}[{partition}]@{offset}")
    _line("key", repr(letter.key))
    for header, content in letter.headers:
        say(f"  header {header} = {content!r}")
    _value(letter.value, order)
    if letter.original_value is not None:
        say("  before it was mended:")
        _value(letter.original_value, codec.decode_batch([letter.original_value])[0])


def _line(name: str, value: str) -> None:
    say(f"  {name:14} {value}")


def _whole(letter: DeadLetterRecord, order: Order | Failure) -> dict[str, object]:
    headers = [
        {"name": name, "hex": content.hex() if isinstance(content, bytes) else content}
        for name, content in letter.headers
    ]
    failure = str(order) if isinstance(order, Failure) else None
    hexed = None if letter.value is None else letter.value.hex()
    return {**row(letter, order), "undecodable": failure, "value_hex": hexed, "headers": headers}


def _value(value: bytes | None, order: Order | Failure) -> None:
    """Show what bytes say, and the byte at which they stop saying it."""
    mark = None
    if isinstance(order, Failure):
        _line("undecodable", str(order))
        found = re.search(r"\(at byte (\d+)", str(order))
        mark = int(found[1]) if found else None
    else:
        _line("order", json.dumps(order, ensure_ascii=False, default=as_text))
    click.echo(_dump(value or b"", mark))


def _dump(value: bytes, mark: int | None = None) -> str:
    """Write bytes in hexadecimal and as text, with a pointer below the marked one; a long value from near the mark."""
    begin = 0 if mark is None or mark < MOST_BYTES else (mark - MOST_BYTES // 2) // WIDTH * WIDTH
    lines = [f"  ... {begin} bytes before"] if begin else []
    for start in range(begin, min(len(value) + 1, begin + MOST_BYTES), WIDTH):
        chunk = value[start : start + WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in chunk)
        if chunk:
            lines.append(f"  {start:06x}  {chunk.hex(' '):{WIDTH * 3}} {text}")
        if mark is not None and start <= mark < start + WIDTH:
            lines.append(f"          {'   ' * (mark - start)}^^ byte {mark}")
    if len(value) > begin + MOST_BYTES:
        lines.append(f"  ... {len(value)} bytes in all")
    return "\n".join(lines)


@dlq.command(epilog=examples("orderkit dlq stats", "orderkit dlq stats --replayed --since 2026-11-23T14:00"))
@click.option("--replayed", is_flag=True, help="Look in --topic for records that were replayed, and replayed twice.")
@filter_options
@format_option
@reading_options
@topic_options
@connection_options
@json_option
def stats(**options: Any) -> int:
    """Count dead letters by reason, exception, origin, group, attempts, dialect and replays."""
    connection, codec = make_connection(options), make_codec(options)
    only = make_filter(options, codec)
    found = count_letters(connection, options["dlq_topic"], only, codec)
    check = check_replays(connection, options["topic"]) if options["replayed"] else None
    if options["as_json"] or options["shape"] == "json":
        print_json({**found.as_dict(), **({"replayed": check.as_dict()} if check else {})})
    elif options["shape"] == "csv":
        print_counts((NAMED.get(name, name), counter) for name, counter in found.counts.items())
    else:
        _print_stats(found)
        if check:
            say(str(check))
    return 1 if check and check.doubled else 0


def _print_stats(found: Stats) -> None:
    span = ""
    if found.oldest is not None and found.newest is not None:
        span = f", {found.size:,} bytes, written {when(found.oldest)} to {when(found.newest)}"
    say(f"{found.total} dead letters in {found.topic}{span}")
    for name, counter in found.counts.items():
        for value, count in counter.most_common(SHOWN_VALUES):
            say(f"  {NAMED.get(name, name):10} {count:8}  {capped(value)}")
        if len(counter) > SHOWN_VALUES:
            say(f"  {NAMED.get(name, name):10}           ... and {len(counter) - SHOWN_VALUES} more values")
