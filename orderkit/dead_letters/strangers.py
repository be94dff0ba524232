"""Whether a topic holds dead letters at all: whether any of its first records has a header that a dialect knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from orderkit.dead_letters.dialects import DIALECTS
from orderkit.dead_letters.story import UNREADABLE
from orderkit.errors import OrderkitError

if TYPE_CHECKING:
    from orderkit.dead_letters.reader import DeadLetterRecord

LOOK = 1000  # records without a known header after which a topic holds no dead letters
MOST_HELD = 16 * 1024 * 1024  # bytes of the records that are held back meanwhile


def known(letters: Iterator[DeadLetterRecord], topic: str) -> Iterator[DeadLetterRecord]:
    """Hold the first letters back until one of them is known to be one.

    Raises:
        OrderkitError: none is.
    """
    held: list[DeadLetterRecord] = []
    size = 0
    for letter in letters:
        held.append(letter)
        size += len(letter.value or b"")
        if letter.dialect or UNREADABLE in letter.raw:
            break
        if len(held) >= LOOK or size > MOST_HELD:
            raise not_dead_letters(topic, len(held))
    else:
        if held:
            raise not_dead_letters(topic, len(held))
    yield from held
    yield from letters


def not_dead_letters(topic: str, looked: int) -> OrderkitError:
    """Say that a topic is no dead-letter topic, after so many records without a known header."""
    names = ", ".join(dialect.name for dialect in DIALECTS)
    return OrderkitError(
        f"Topic {topic} holds no dead letters: none of the {looked} records looked at has headers of {names}. "
        "Name a dead-letter topic with --dlq-topic, or add --any for all that is there."
    )
