"""Which dead letters are meant: one filter for looking at them and for moving them."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from orderkit.dead_letters.kinds import has_header
from orderkit.dead_letters.payload import Payload, PayloadReader
from orderkit.dead_letters.reader import HEAVY, DeadLetterRecord
from orderkit.dead_letters.times import UNKNOWN, whole
from orderkit.dead_letters.where import Where
from orderkit.errors import UsageError
from orderkit.kafka.properties import bare
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.retry import Failure

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
BATCH = 1000  # letters whose values are read at once


@dataclass(frozen=True)
class LetterFilter:
    """Says which dead letters are meant; what is left empty does not restrict.

    Args:
        reasons: of these reasons, as `poison`.
        exceptions: whose exception's class has one of these names, with or without its module; `*` stands for anything.
        products, keys: whose record has one of these as its product; whose key is one of these texts.
        since, until: written to the dead-letter topic from then on, and before; seconds since 1970.
        topics, partitions: that came from there last.
        attempts: that had so many delivery attempts: the least and the most.
        dialects: written by these systems.
        places: that lie there: `(partition, offset)`; of many a set is the quickest.
        where: whose record fulfils this condition.
        origins: that came from one of these last: `(topic, partition)`, and `None` for any partition.
        headers: that have one of these headers: `(name, value)`; `*` stands for anything, and 0x... for bytes.
    """

    reasons: Sequence[str] = ()
    exceptions: Sequence[str] = ()
    products: Sequence[str] = ()
    keys: Sequence[str] = ()
    since: float | None = None
    until: float | None = None
    topics: Sequence[str] = ()
    partitions: Sequence[int] = ()
    attempts: tuple[float, float] | None = None
    dialects: Sequence[str] = ()
    places: Collection[tuple[int, int]] = ()
    where: Where | None = field(default=None)
    origins: Sequence[tuple[str, int | None]] = ()
    headers: Sequence[tuple[str, str]] = ()

    @property
    def needs_order(self) -> bool:
        """Whether it looks into the value."""
        return bool(self.products or self.where)

    @property
    def is_empty(self) -> bool:
        """Whether every dead letter is meant."""
        return not str(self)

    def __str__(self) -> str:
        named = {
            name: value.text if isinstance(value, Where) else value
            for name in self.__dataclass_fields__
            if (value := getattr(self, name)) not in ((), None, [])
        }
        return ", ".join(f"{name} {value}" for name, value in named.items())

    def lies(self, partition: int | None, offset: int | None) -> bool:
        """Whether what lies there may be meant; what lies elsewhere need not be read."""
        return not self.places or (partition, offset) in self.places

    def matches(self, letter: DeadLetterRecord, order: Payload | Order | Failure | None = None) -> bool:
        """Whether a dead letter is meant.

        Args:
            letter: the dead letter.
            order: what its value says, where that matters; what is no record has no product and fulfils nothing.
        """
        return self._story_matches(letter) and (not self.needs_order or self._order_matches(order))

    def _story_matches(self, letter: DeadLetterRecord) -> bool:  # noqa: PLR0911  one line for each condition
        story = letter.story
        if self.reasons and story.get("reason") not in self.reasons:
            return False
        if self.exceptions and not _named(story.get("exception", ""), self.exceptions):
            return False
        if self.keys and (letter.key is None or letter.key.decode(errors="replace") not in self.keys):
            return False
        if not self._time_matches(letter.timestamp):
            return False
        if self.topics and letter.origin[0] not in self.topics:
            return False
        if self.partitions and _number(story.get("partition")) not in self.partitions:
            return False
        if self.attempts and not self.attempts[0] <= _number(story.get("attempts")) <= self.attempts[1]:
            return False
        if self.dialects and letter.dialect not in self.dialects:
            return False
        if self.origins and not {letter.origin[:2], (letter.origin[0], None)} & set(self.origins):
            return False
        named = not self.headers or any(has_header(letter.raw, *header) for header in self.headers)
        return named and self.lies(letter.partition, letter.offset)

    def _time_matches(self, written: int) -> bool:
        """Whether it was written in time; of a record without a time nobody knows."""
        if written == UNKNOWN:
            return self.since is None and self.until is None
        return (self.since is None or written >= self.since * 1000) and (
            self.until is None or written < self.until * 1000
        )

    def _order_matches(self, order: Payload | Order | Failure | None) -> bool:
        fields: Any = order.fields if isinstance(order, Payload) else order
        if not isinstance(fields, dict):
            return False
        sold = not self.products or fields.get("product") in self.products
        return sold and (self.where is None or self.where(fields))


def select(
    letters: Iterable[DeadLetterRecord], only: LetterFilter, codec: PayloadReader | Codec | None = None
) -> Iterator[tuple[DeadLetterRecord, Any]]:
    """Yield the dead letters that are meant, each with what its value says when there is somebody to read it.

    Args:
        letters: what to choose from, in order.
        only: what is meant.
        codec: reads the values, whatever they are, or orders alone; needed when the filter looks into them.
    """
    if codec is None:
        yield from ((letter, None) for letter in letters if only.matches(letter))
        return
    read: Any = codec.read_batch if isinstance(codec, PayloadReader) else codec.decode_batch
    for batch in portions(letters, BATCH):
        said = read([letter.value for letter in batch])
        yield from (pair for pair in zip(batch, said, strict=True) if only.matches(*pair))
        del batch, said  # they may be heavy, and the next are fetched meanwhile


def portions(letters: Iterable[DeadLetterRecord], most: int) -> Iterator[list[DeadLetterRecord]]:
    """Yield letters in lists of at most so many, shorter ones where the letters are heavy."""
    batch: list[DeadLetterRecord] = []
    size = 0
    for letter in letters:
        batch.append(letter)
        size += len(letter.value or b"")
        if len(batch) >= most or size >= HEAVY:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _named(exception: str, patterns: Sequence[str]) -> bool:
    names = exception, exception.rpartition(".")[2]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _number(text: str | None) -> float:
    try:
        return int(text or "")
    except ValueError:
        return -1


def parse_time(name: str, text: str | None) -> float | None:
    """Read a point in time: `2h` (ago), or ISO 8601 as in `2026-11-23` or `2026-11-23T14:00:00+01:00` (else UTC).

    Args:
        name: of the option, for the error.
        text: what was given.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    text = bare(text)
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text):
        return time.time() - float(ago[1]) * UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--{name} {text!r}: write how long ago, as in 90m or 2d, or a time as in 2026-11-23T14:00."
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def parse_attempts(text: str | None) -> tuple[float, float] | None:
    """Read a number or a range of delivery attempts: `3`, `2-5`, `4-`.

    Raises:
        UsageError: it is neither.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(-(\d*))?", bare(text))
    if not found:
        raise UsageError(f"--attempts {text!r}: write a number or a range, as in 3, 2-5 or 4-.")
    least = float(found[1])
    return least, (float(found[3]) if found[3] else float("inf")) if found[2] else least


def parse_origin(text: str) -> tuple[str, int | None]:
    """Read where letters came from: TOPIC, or TOPIC:PARTITION.

    Raises:
        UsageError: it is not written so.
    """
    topic, colon, partition = bare(text).partition(":")
    number = whole(partition)
    if not topic or (colon and (number is None or number < 0)):
        raise UsageError(f"--origin {text!r}: write TOPIC or TOPIC:PARTITION, as in orders or orders:3.")
    return topic, number


def parse_header(text: str) -> tuple[str, str]:
    """Read which header letters have: NAME=VALUE, or NAME for any value.

    Raises:
        UsageError: it names none.
    """
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--header {text!r}: write NAME=VALUE, as in trace=abc; * stands for anything.")
    return name, value if equals else "*"


def parse_place(text: str) -> tuple[int, int]:
    """Read where a dead letter lies: PARTITION:OFFSET.

    Raises:
        UsageError: it is not written so.
    """
    partition, _, offset = map(whole, bare(text).partition(":"))
    if partition is None or offset is None or partition < 0 or offset < 0:
        raise UsageError(f"{text!r}: write PARTITION:OFFSET, as `orderkit dlq list` does.")
    return partition, offset
