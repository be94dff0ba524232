"""How the bytes of a header are read: as text, as a number, as a time; and what is said of bytes that are none.

Whatever a stranger wrote, a header is read to text: numbers in decimal, times in ms since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import NamedTuple

from orderkit.dead_letters.times import MOST_DIGITS

LONGEST_INT = 8  # bytes of a number in binary
SHOWN_BYTES = 16  # of bytes that are not what they should be


class Kind(NamedTuple):
    """One way in which a header's bytes are read.

    Args:
        what: such bytes should be, as a note says it.
        read: gives the text; raises ValueError for other bytes.
    """

    what: str
    read: Callable[[bytes], str]


def _number(value: bytes) -> str:
    text = value.decode("ascii")
    if not text.removeprefix("-").isdecimal() or len(text) > MOST_DIGITS + 1:
        raise ValueError(text)
    return text


def _binary(*sizes: int) -> Callable[[bytes], str]:
    def read(value: bytes) -> str:
        if len(value) not in sizes:
            raise ValueError(value)
        return str(int.from_bytes(value, "big", signed=True))

    return read


def _either(*sizes: int) -> Callable[[bytes], str]:
    """Read decimal text, else binary: bytes that are digits only would be a number beyond any offset or time."""
    binary = _binary(*sizes)
    return lambda value: _number(value) if value.isdigit() else binary(value)


def _moment(value: bytes) -> str:
    text = value.decode("ascii")
    if text.isdecimal():
        return _number(value)
    moment = datetime.fromisoformat(text)
    return str(round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000))


def _seconds(value: bytes) -> str:
    return str(round(float(_plain(value)) * 1000))


def _plain(value: bytes) -> str:
    text = value.decode("ascii")
    if not text.replace(".", "", 1).isdecimal() or len(text) > 2 * MOST_DIGITS:  # neither nan, nor 1e999
        raise ValueError(text)
    return text


TEXT = Kind("text in UTF-8", bytes.decode)
NUMBER = Kind("a whole number in decimal", _number)
INT = Kind("an integer of 4 bytes", _binary(4))
LONG = Kind("an integer of 8 bytes", _binary(8))
COUNT = Kind("an integer of 1 or 4 bytes", _binary(1, 4))
BIG = Kind("an integer of 1 to 8 bytes", _binary(*range(1, LONGEST_INT + 1)))  # Java's BigInteger
EITHER_INT = Kind("a number in decimal, or of 4 bytes", _either(4))
EITHER_LONG = Kind("a number in decimal, or of 8 bytes", _either(8))
MOMENT = Kind("a time in ISO 8601, or in ms since 1970", _moment)
SECONDS = Kind("a time in seconds since 1970", _seconds)
LONG_SECONDS = Kind("a time in seconds since 1970, of 8 bytes", lambda value: str(int(LONG.read(value)) * 1000))


def read_header(name: str, value: str | bytes | None, kind: Kind) -> tuple[str | None, str]:
    """Read a header.

    Args:
        name: its name, for the note.
        value: its bytes; nothing, and no bytes where text or a decimal is expected, tell nothing.
        kind: what they should be.

    Returns:
        What it tells, `None` where that cannot be said; and a note on what is wrong, "" where nothing is.
    """
    if not isinstance(value, bytes):
        return value or "", ""
    if not value and kind in (TEXT, NUMBER):
        return "", ""
    try:
        return kind.read(value), ""
    except (ValueError, OverflowError):
        some = value[:SHOWN_BYTES]
        shown = repr(some)[1:] if some.isascii() and some.decode().isprintable() else f"0x{some.hex()}"
        more = "..." if len(value) > SHOWN_BYTES else ""
        note = f"header {name} is not {kind.what}: {len(value)} bytes, {shown}{more}"
        return (value.decode(errors="replace") if kind is TEXT else None), note


def has_header(headers: Iterable[tuple[str, str | bytes | None]], name: str, wanted: str) -> bool:
    """Whether a header of this name has a value like this, `*` being anything, or these bytes, as in 0x00ff."""
    values = [it.encode() if isinstance(it, str) else it or b"" for each, it in headers if each == name]
    return any(
        fnmatchcase(value.decode(errors="replace"), wanted) or f"0x{value.hex()}" == wanted.lower() for value in values
    )
