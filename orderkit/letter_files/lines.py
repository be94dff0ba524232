"""Dead letters as JSON lines, one each: what people read, edit, and give to jq and pandas.

    {"topic": "orders-dlq", "partition": 2, "offset": 17, "timestamp": 1764000000000, "key": "17",
     "value": {"avro": {...}}, "original": {"base64": "..."}, "headers": {"trace": "abc", ...}}

`value` is what counts, in a form of `orderkit.letter_files.values`. `original` is what it was, and is not to be edited.
Key, original and the content of headers are text where their bytes are UTF-8, else `{"base64": "..."}`, or null.
Headers are an object in their order; where a name is there twice, a list of pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from orderkit.dead_letters.story import Headers, header_list
from orderkit.letter_files.copies import Bad, Place, Portion, check_names, check_place, make_copy, place_of
from orderkit.letter_files.texts import compact, loads, read_bytes, short, show_bytes
from orderkit.letter_files.values import Values

PORTION = 4_000_000  # bytes of lines that are read together, and the line that is begun then
UNKNOWN: Any = object()
FIELDS = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")
_fields = itemgetter(*FIELDS)
Row = tuple[int, Place, bytes | None, Any, Any, Headers]  # number, place, key, value as shown, original, headers


def to_lines(messages: Sequence[Message], values: Values) -> bytes:
    """Write dead letters as lines."""
    contents = [message.value() for message in messages]
    lines = []
    for message, value, shown in zip(messages, contents, values.show(contents), strict=True):
        topic, partition, offset, timestamp = place_of(message)
        line = {
            "topic": topic,
            "partition": partition,
            "offset": offset,
            "timestamp": timestamp,
            "key": show_bytes(message.key()),
            "value": shown,
            "original": shown if shown.__class__ is str else show_bytes(value),
            "headers": _shown_headers(header_list(message)),
        }
        lines.append(compact(line))
    return b"".join([line + b"\n" for line in lines])


def _shown_headers(headers: Headers) -> Any:
    pairs: list[tuple[str, Any]]
    try:
        pairs = [(name, content.decode()) for name, content in headers]  # type: ignore[union-attr]
    except (AttributeError, UnicodeDecodeError):
        pairs = [(name, show_bytes(content)) for name, content in headers]
    named = dict(pairs)
    return named if len(named) == len(pairs) else pairs


class LetterLines:
    """A file of JSON lines.

    Args:
        path: the file.
        values: reads what the values have become.
    """

    unit = "line"

    def __init__(self, path: Path, values: Values) -> None:
        self.name, self._path, self._values = str(path), path, values

    def digest(self) -> str:
        """Give a text that is another one for other contents."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Yield the letters of the file, without its first `start` lines.

        Raises:
            OSError: it cannot be read.
        """
        with self._path.open("rb") as file:
            for _ in range(start):
                file.readline()
            while lines := file.readlines(PORTION):
                if not start:
                    lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")  # as some editors mark UTF-8
                yield self._portion(lines, start)
                start += len(lines)

    def _portion(self, lines: Sequence[bytes], first: int) -> Portion:
        rows, bad = list[Row](), list[Bad]()
        for number, line in enumerate(lines, first + 1):
            if line.isspace():
                continue
            try:
                rows.append((number, *_checked(loads(line))))
            except (ValueError, RecursionError) as error:
                bad.append(Bad(number, _why(error, line)))
        unedited = self._values.read_orders([row[3] for row in rows], [row[4] for row in rows])
        letters = []
        for number, place, key, shown, was, headers in rows:
            try:
                value = was if unedited else self._values.read(shown, None if was is UNKNOWN else was)
                letters.append(make_copy(number, place, key, value, headers, value if was is UNKNOWN else was))
            except ValueError as error:
                bad.append(Bad(number, str(error)))
        return Portion(letters, sorted(bad), first + len(lines))


def _checked(row: Any) -> tuple[Place, bytes | None, Any, Any, Headers]:
    """Take a line's object apart.

    Raises:
        ValueError: it is not what an export writes; says what is wrong.
    """
    try:
        topic, partition, offset, timestamp, key, shown, headers = _fields(row)
    except (KeyError, TypeError):
        missing = [name for name in FIELDS if name not in row] if isinstance(row, dict) else []
        what = f"has no {' and no '.join(missing)}" if missing else f"is {short(row)}, not an object"
        raise ValueError(what) from None
    place = check_place(topic, partition, offset, timestamp)
    was = row.get("original", UNKNOWN)
    return place, _read("key", key), shown, was if was is UNKNOWN else _read("original", was), _read_headers(headers)


def _read(name: str, shown: Any) -> bytes | None:
    try:
        return read_bytes(shown)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read_headers(shown: Any) -> Headers:
    """Take headers apart; their content as bytes, for the client cuts text off at a NUL."""
    try:
        pairs = shown.items() if shown.__class__ is dict else [(name, content) for name, content in shown]
        check_names(tuple(shown) if shown.__class__ is dict else tuple([name for name, _ in pairs]))
    except TypeError:
        raise ValueError("headers are neither an object nor a list of pairs") from None
    try:
        return [(name, content.encode()) for name, content in pairs]
    except AttributeError:  # null, or no text
        return [(name, _read(f"header {name}", content)) for name, content in pairs]


def _why(error: Exception, line: bytes) -> str:
    """Say what is wrong with a line; a JSON reader says where in its own words."""
    if type(error) is ValueError:
        return str(error)
    return "is cut off" if not line.endswith(b"\n") else f"is no JSON: {short(error)}"
