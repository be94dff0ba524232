"""One dead letter taken apart: its story, its headers, and its bytes with the one at which reading ended."""

from __future__ import annotations

import json

import click

from orderkit.cli.letters import row
from orderkit.dead_letters import DeadLetterRecord
from orderkit.dead_letters.payload import Payload, PayloadReader, plain
from orderkit.dead_letters.times import when, whole
from orderkit.orders.schemas import SINGLE
from orderkit.orders.writers import CONFLUENT, CONFLUENT_SIZE
from orderkit.show.printable import say

TIMES = {"timestamp", "first-failure", "last-failure", "due", "first-timestamp"}
WIDTH, MOST_BYTES = 16, 512  # of a dump
MOST_SIGNS = 4_000  # of a text, or of a record as JSON
NAMED = {
    "order": "an order in Avro", "avro": "a record in Avro", "json": "JSON", "text": "text", "bytes": "bytes",
    "empty": "an empty value", "tombstone": "no value (a tombstone)",
}  # fmt: skip


def print_letter(letter: DeadLetterRecord, reader: PayloadReader) -> None:
    """Print all that there is to know of a dead letter."""
    say(f"dead letter {letter.place} in {letter.topic}, written {when(letter.timestamp) or 'nobody knows when'}")
    _line("dialect", letter.dialect or "unknown: no header that any dialect has")
    for name, told in letter.story.items():
        time = whole(told) if name in TIMES else None
        _line(name, told if time is None else when(time) or told)
    for note in letter.notes:
        _line("note", note)
    if letter.replays:
        topic, partition, offset = letter.first_origin
        _line("replays", f"{letter.replays}; first from {topic}[{partition}]@{offset}")
    _line("key", _cut(repr(letter.key)))
    for header, content in letter.headers:
        say(f"  header {header} = {_cut(repr(content))}")
    _value(letter.value, reader)
    if letter.original_value is not None:
        say("  before it was mended:")
        _value(letter.original_value, reader)


def whole_letter(letter: DeadLetterRecord, payload: Payload) -> dict[str, object]:
    """Give a dead letter as JSON, with all its bytes."""
    headers = [
        {"name": name, "hex": content.hex() if isinstance(content, bytes) else content}
        for name, content in letter.headers
    ]
    hexed = None if letter.value is None else letter.value.hex()
    return {**row(letter, payload), "at_byte": payload.at, "value_hex": hexed, "headers": headers}


def _line(name: str, value: str) -> None:
    say(f"  {name:14} {value}")


def _cut(text: str) -> str:
    return text if len(text) <= MOST_SIGNS else f"{text[:MOST_SIGNS]}... {len(text)} characters in all"


def _value(value: bytes | None, reader: PayloadReader) -> None:
    """Show what bytes say, and the byte at which they stop saying it."""
    payload = reader.read(value)
    named = "a value in Avro" if payload.kind == "avro" and payload.fields is None else NAMED[payload.kind]
    _line("payload", f"{named}{_framed(value or b'', payload)}, {len(value or b'')} bytes")
    if payload.why:
        _line("undecodable" if payload.fields is None else "but", payload.why)
    if payload.data is not None:
        shown = payload.data if payload.kind == "text" else json.dumps(plain(payload.data), ensure_ascii=False)
        _line("order" if payload.order else "fields" if payload.fields else "data", _cut(shown))
    click.echo(_dump(value or b"", payload.at))


def _framed(value: bytes, payload: Payload) -> str:
    """Say which schema a value names, and how."""
    named = f" {payload.schema}" if payload.schema else ""
    if value.startswith(SINGLE):
        return f"{named}, single-object encoding, fingerprint {value[2:10].hex()}"
    if value.startswith(CONFLUENT) and len(value) >= CONFLUENT_SIZE:
        return f"{named}, Confluent's framing, schema id {int.from_bytes(value[1:CONFLUENT_SIZE], 'big')}"
    return named


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
