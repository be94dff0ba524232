"""Which records of a dead-letter topic a filter means, as they lie there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Message

from orderkit.dead_letters.filters import LetterFilter
from orderkit.dead_letters.payload import PayloadReader
from orderkit.dead_letters.reader import DeadLetterRecord


def meant(messages: Sequence[Message], only: LetterFilter, reader: PayloadReader) -> Sequence[Message]:
    """Give those dead letters that a filter means."""
    if only.is_empty:
        return messages
    messages = [it for it in messages if only.lies(it.partition(), it.offset())]
    letters = list(map(DeadLetterRecord.of, messages))
    said: Sequence[Any] = [None] * len(letters)
    if only.needs_order:
        said = reader.read_batch([letter.value for letter in letters])
    return [message for message, *pair in zip(messages, letters, said, strict=True) if only.matches(*pair)]
