"""Whether a topic holds dead letters at all: whether its first records have headers that are known, or it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaException

from orderkit.dead_letters.dialects import DIALECTS
from orderkit.dead_letters.story import UNREADABLE
from orderkit.errors import OrderkitError

if TYPE_CHECKING:
    from orderkit.dead_letters.reader import DeadLetterRecord

LOOK = 1000  # records without a known header after which a topic holds no dead letters
PATIENCE = 5.0  # seconds for an answer
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


def not_dead_letters(topic: str, looked: int, other: str = ", or add --any for all that is there") -> OrderkitError:
    """Say that a topic is no dead-letter topic, after so many records without a known header; `other` is a way out."""
    names = ", ".join(dialect.name for dialect in DIALECTS)
    return OrderkitError(
        f"Topic {topic} holds no dead letters: none of the {looked} records looked at has headers of {names}. "
        f"Name a dead-letter topic with --dlq-topic{other}."
    )


def check_there(consumer: Consumer, topic: str) -> None:
    """Make sure that a topic is still there, as far as the broker says; the client itself would wait for long.

    Raises:
        OrderkitError: it is not.
    """
    with suppress(KafkaException):
        if topic not in consumer.list_topics(timeout=PATIENCE).topics:
            raise gone(topic)


def gone(topic: str) -> OrderkitError:
    """Say that a topic is no more."""
    return OrderkitError(f"Topic {topic} was deleted while it was read. There is nothing more in it.")
