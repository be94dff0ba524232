"""Dead letters in columns: Parquet files, and pandas frames. Nothing is interpreted, so nothing is lost.

| column | in Parquet | in a frame | |
|---|---|---|---|
| `topic` | string | object | where it lay |
| `partition`, `offset` | int32, int64 | int32, int64 | |
| `timestamp` | int64 | int64 | when it was written there, in ms since 1970; -1 for unknown |
| `key`, `value` | binary | object: bytes or None | the value counts, and may be edited |
| `original` | binary | object: bytes or None | the value as it was; not to be edited |
| `headers` | list of struct (name: string, value: binary) | object: list of (name, bytes or None) | in their order |
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confluent_kafka import Message

from orderkit.dead_letters.filters import LetterFilter
from orderkit.dead_letters.payload import PayloadReader
from orderkit.dead_letters.reader import read_batches
from orderkit.dead_letters.story import Headers, header_list
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.letter_files.choosing import meant
from orderkit.letter_files.copies import (
    COLUMNS,
    OPTIONAL,
    Bad,
    LetterCopy,
    Portion,
    check_names,
    check_place,
    make_copy,
)
from orderkit.letter_files.texts import short
from orderkit.letter_files.values import Values

if TYPE_CHECKING:
    import pandas as pd

PORTION = 5_000  # rows that are turned into letters at once
KINDS = {"partition": "int32", "offset": "int64", "timestamp": "int64"}  # of a frame; else object
Columns = Mapping[str, Sequence[Any]]


def to_columns(messages: Sequence[Message]) -> dict[str, list[Any]]:
    """Give dead letters as columns, each of their headers as pairs."""
    values = [message.value() for message in messages]
    return {
        "topic": [message.topic() for message in messages],
        "partition": [message.partition() for message in messages],
        "offset": [message.offset() for message in messages],
        "timestamp": [message.timestamp()[1] for message in messages],
        "key": [message.key() for message in messages],
        "value": values,
        "original": values,
        "headers": [header_list(message) for message in messages],
    }


def check_columns(name: str, there: Sequence[str]) -> list[str]:
    """Give the columns of an export that are there.

    Raises:
        UsageError: one is missing that has to be there.
    """
    missing = [each for each in COLUMNS if each not in there and each != OPTIONAL]
    if missing:
        raise UsageError(
            f"{name} is no export of dead letters: it has no column {', '.join(missing)}. "
            "`orderkit dlq export` writes them."
        )
    return [each for each in COLUMNS if each in there]


def to_portion(columns: Columns, first: int, values: Values, checked: bool = False) -> Portion:
    """Make letters of columns.

    Args:
        columns: those of `COLUMNS`, `original` optional.
        first: the number of rows before.
        values: reads a value that is given in one of its forms.
        checked: headers are pairs of a name and bytes, or `None`.
    """
    letters, bad = list[LetterCopy](), list[Bad]()
    originals = columns.get(OPTIONAL, columns["value"])
    named = (columns[name] for name in COLUMNS if name != OPTIONAL)
    for number, (*place, key, value, headers), original in zip(
        range(first + 1, first + 1 + len(originals)), zip(*named, strict=True), originals, strict=True
    ):
        try:
            where, pairs = check_place(*place), headers if checked and headers is not None else _checked(headers)
            was = _plain(original, values, None)
            letters.append(make_copy(number, where, _plain(key, values, None), _plain(value, values, was), pairs, was))
        except ValueError as error:
            bad.append(Bad(number, str(error)))
    return Portion(letters, bad, first + len(originals))


def _plain(cell: Any, values: Values, was: bytes | None) -> bytes | None:
    """Give a cell's bytes; of pandas' signs for nothing, which are floats or have no truth, `None`."""
    if cell is None or cell.__class__ is bytes:
        return cell
    if cell != cell or type(cell).__name__ == "NAType":  # noqa: PLR0124  NaN
        return None
    return values.read(cell, was)


def _checked(cell: Any) -> Headers:
    """Give headers as pairs: from pairs, or from the dicts that pandas makes of a Parquet file's.

    Raises:
        ValueError: they are neither.
    """
    try:
        pairs = [(each["name"], each["value"]) if isinstance(each, dict) else (each[0], each[1]) for each in cell]
    except (TypeError, KeyError, IndexError):
        raise ValueError(f"headers are {short(cell)}, no list of names and values") from None
    check_names(tuple([name for name, _ in pairs]))
    if not all(content is None or isinstance(content, bytes | str) for _, content in pairs):
        raise ValueError(f"headers {short(cell)} have contents that are no bytes")
    return [(name, content.encode() if isinstance(content, str) else content) for name, content in pairs]


class LetterFrame:
    """A pandas frame, as `letters_frame` gives it.

    Args:
        frame: it. A value may be bytes, text, or `{"avro": ...}` or `{"json": ...}`, written as the letter's was.
        values: reads values.

    Raises:
        UsageError: it lacks columns.
    """

    unit, name = "row", "The frame"

    def __init__(self, frame: pd.DataFrame, values: Values | None = None) -> None:
        self._frame, self._values = frame, values or Values()
        self._names = check_columns(self.name, list(frame.columns))

    def digest(self) -> str:
        """Give a text that is another one for other contents."""
        found = hashlib.sha256()
        for portion in self.portions():
            found.update(repr(portion).encode("utf-8", "backslashreplace"))
        return found.hexdigest()

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Yield the letters of the frame, without its first `start` rows."""
        for first in range(start, len(self._frame), PORTION):
            rows = self._frame.iloc[first : first + PORTION]
            yield to_portion({name: rows[name].tolist() for name in self._names}, first, self._values)


def letters_frame(
    connection: Connection, topic: str, only: LetterFilter | None = None, reader: PayloadReader | None = None
) -> pd.DataFrame:
    """Read the dead letters of a topic into a frame that `write_letters` can write again, bit for bit.

    Its columns and their types are in the table at the head of this module. All letters are in memory at once: about
    three times their size.

    Args:
        connection: the cluster.
        topic: the dead-letter topic.
        only: which are meant; by default all.
        reader: reads values, where that looks into them; by default the kit's own orders, JSON and text.

    Raises:
        OrderkitError: pandas is not installed, there is no such topic, or the broker stopped answering.
    """
    try:
        import pandas as pd  # noqa: PLC0415  the base install has none
    except ImportError:
        raise OrderkitError('A frame needs pandas: pip install "orderkit[lab]".') from None
    parts: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    only, reader = only or LetterFilter(), reader or PayloadReader()
    for messages in read_batches(connection, topic):
        for name, column in to_columns(meant(messages, only, reader)).items():
            parts[name] += column
    return pd.DataFrame({name: pd.Series(part, dtype=KINDS.get(name, "object")) for name, part in parts.items()})
