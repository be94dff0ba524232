"""`orderkit dlq`: look at dead letters."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from orderkit.avro import Codec
from orderkit.cli.options import (
    at_least,
    connection_options,
    json_option,
    make_connection,
    print_json,
    schema_option,
    topic_options,
)
from orderkit.dead_letters import DeadLetterRecord, read_dead_letters
from orderkit.errors import OrderkitError, UsageError
from orderkit.retry import Failure


@click.group()
def dlq() -> None:
    """Look at dead letters: what they are, where they came from, and why."""


@dlq.command("list")
@click.option("--limit", type=int, help="At most so many.")
@topic_options
@connection_options
@json_option
def list_(**options: Any) -> None:
    """List dead letters, a line each."""
    at_least("limit", options["limit"], 0)
    letters = islice(read_dead_letters(make_connection(options), options["dlq_topic"]), options["limit"])
    if options["as_json"]:
        print_json({"topic": options["dlq_topic"], "dead_letters": [_row(letter) for letter in letters]})
        return
    for letter in letters:
        story = letter.story
        origin = f"{story.get('topic', '?')}[{story.get('partition', '?')}]@{story.get('offset', '?')}"
        why = f"{story.get('exception', '?')}: {story.get('message', '')}"
        click.echo(
            f"{letter.partition}:{letter.offset}  from {origin}  {story.get('reason', '?')} "
            f"after {story.get('attempts', '?')}  {why}"
        )


def _row(letter: DeadLetterRecord) -> dict[str, object]:
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "key": None if letter.key is None else letter.key.decode(errors="replace"),
        "bytes": len(letter.value or b""),
        **{f"dlq.{name}": value for name, value in letter.story.items()},
    }


@dlq.command()
@click.argument("which", metavar="PARTITION:OFFSET")
@schema_option
@topic_options
@connection_options
def show(**options: Any) -> None:
    """Show one dead letter: the order, its bytes, its headers and its story."""
    letter = _find(options)
    click.echo(f"dead letter {letter.partition}:{letter.offset} in {letter.topic}")
    for name, value in letter.story.items():
        click.echo(f"  {name:14} {_when(value) if name in TIMES else value}")
    click.echo(f"  {'key':14} {letter.key!r}")
    for header, content in letter.headers:
        click.echo(f"  header {header} = {content!r}")
    try:
        order = Codec(schema=options["schema"]).decode(letter.value)
        click.echo(f"  {'order':14} {json.dumps(order, ensure_ascii=False)}")
    except Failure as failure:
        click.echo(f"  {'undecodable':14} {failure}")
    click.echo(_dump(letter.value or b""))


TIMES = {"timestamp", "first-failure", "last-failure"}


def _when(milliseconds: str) -> str:
    if not milliseconds.isdecimal():
        return milliseconds
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat(timespec="milliseconds")


def _dump(value: bytes, width: int = 16, most: int = 512) -> str:
    lines = []
    for start in range(0, min(len(value), most), width):
        chunk = value[start : start + width]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in chunk)
        lines.append(f"  {start:06x}  {chunk.hex(' '):{width * 3}} {text}")
    if len(value) > most:
        lines.append(f"  ... {len(value)} bytes in all")
    return "\n".join(lines)


def _find(options: dict[str, Any]) -> DeadLetterRecord:
    partition, colon, offset = options["which"].partition(":")
    if not (colon and partition.isdecimal() and offset.isdecimal()):
        raise UsageError(f"{options['which']!r}: write PARTITION:OFFSET, as `orderkit dlq list` does.")
    for letter in read_dead_letters(make_connection(options), options["dlq_topic"]):
        if (letter.partition, letter.offset) == (int(partition), int(offset)):
            return letter
    raise OrderkitError(f"There is no dead letter {options['which']}. `orderkit dlq list` shows what there is.")


@dlq.command()
@topic_options
@connection_options
@json_option
def stats(**options: Any) -> None:
    """Count dead letters by reason, exception and origin."""
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("reason", "exception", "topic", "group", "attempts")
    }
    total = 0
    for letter in read_dead_letters(make_connection(options), options["dlq_topic"]):
        total += 1
        for name, counter in counts.items():
            counter[letter.story.get(name, "?")] += 1
    if options["as_json"]:
        print_json({"topic": options["dlq_topic"], "total": total, **{n: dict(c) for n, c in counts.items()}})
        return
    click.echo(f"{total} dead letters in {options['dlq_topic']}")
    for name, counter in counts.items():
        for value, count in counter.most_common():
            click.echo(f"  {name:10} {count:8}  {value}")
