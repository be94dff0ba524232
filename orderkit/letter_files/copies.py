"""A dead letter as a file has it: what is to be written, and what is wrong with a line that is none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from confluent_kafka import Message

from orderkit.dead_letters.dialects import ORIGINAL_VALUE
from orderkit.dead_letters.story import Headers
from orderkit.dead_letters.times import UNKNOWN
from orderkit.letter_files.texts import short

COLUMNS = ("topic", "partition", "offset", "timestamp", "key", "value", "original", "headers")
OPTIONAL = "original"  # a file without it was not edited
MOST_PARTITION, MOST_OFFSET = 2**31 - 1, 2**63 - 1


class LetterCopy(NamedTuple):
    """A dead letter out of a file.

    Args:
        number: of its line or row, from 1.
        topic, partition, offset: where it lay.
        timestamp: when it was written there, in ms since 1970; -1 for unknown.
        key, value: bytes to write; the value may have been edited.
        headers: in their order; an edited letter has its former value among them.
        edited: whether the value is another one than it was.
    """

    number: int
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    edited: bool = False


class Bad(NamedTuple):
    """A line or row that cannot be imported: its number, and why."""

    number: int
    why: str


class Portion(NamedTuple):
    """Some lines or rows of a file: the letters in them, those that are none, and the number of the last one."""

    letters: list[LetterCopy]
    bad: list[Bad]
    end: int


class LetterSource(Protocol):
    """Where letters are imported from, a portion at a time."""

    name: str
    unit: str  # what it consists of: "line" or "row"

    def digest(self) -> str:
        """Give a text that is another one for other contents."""

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Yield its letters, without the first `start` lines or rows."""


Place = tuple[str, int, int, int]  # topic, partition, offset, timestamp


def place_of(message: Message) -> Place:
    """Say where and when a record was written."""
    return message.topic() or "", message.partition() or 0, message.offset() or 0, message.timestamp()[1]


def check_place(topic: Any, partition: Any, offset: Any, timestamp: Any) -> Place:
    """Give a place back if it is one.

    Raises:
        ValueError: it is none.
    """
    if topic.__class__ is not str or not topic:
        raise ValueError(f"topic is {short(topic)}, which is no topic's name")
    if partition.__class__ is not int or not 0 <= partition <= MOST_PARTITION:
        raise ValueError(f"partition is {short(partition)}, not a whole number from 0")
    if offset.__class__ is not int or not 0 <= offset <= MOST_OFFSET:
        raise ValueError(f"offset is {short(offset)}, not a whole number from 0")
    if timestamp.__class__ is not int or not UNKNOWN <= timestamp <= MOST_OFFSET:
        raise ValueError(f"timestamp is {short(timestamp)}, no time in ms since 1970")
    return topic, partition, offset, timestamp


def make_copy(
    number: int, place: Place, key: bytes | None, value: bytes | None, headers: Headers, was: bytes | None
) -> LetterCopy:
    """Make a letter out of what a file says; the former value of an edited one goes into its headers, once."""
    if value == was:
        return LetterCopy(number, *place, key, value, headers)
    if not any(name == ORIGINAL_VALUE for name, _ in headers):
        headers = [*headers, (ORIGINAL_VALUE, was)]
    return LetterCopy(number, *place, key, value, headers, edited=True)


@lru_cache(maxsize=1000)  # most letters of a topic have the same names
def check_names(names: tuple[Any, ...]) -> None:
    """Hold the names of headers against what the client can write.

    Raises:
        ValueError: one is no text, or has a NUL in it.
    """
    for name in names:
        if not isinstance(name, str) or "\0" in name:
            raise ValueError(f"{short(name)} is no name for a header")
        name.encode()
