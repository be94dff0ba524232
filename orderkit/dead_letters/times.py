"""Times and numbers as strangers write them: milliseconds since 1970, or so they should be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999  # ms since 1970: the years 1 and 9999, which a calendar has
UNKNOWN = -1  # Kafka's timestamp of a record that has none
MOST_DIGITS = 18  # of a number that 64 bits hold
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def when(milliseconds: int) -> str | None:
    """Write a time in ms since 1970 as ISO 8601, in UTC; the number itself if no calendar has it, as microseconds.

    Args:
        milliseconds: the time; -1, which is Kafka's word for none, gives `None`.
    """
    if milliseconds == UNKNOWN:
        return None
    if not FIRST <= milliseconds <= LAST:
        return f"{milliseconds} ms"
    return (EPOCH + timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds")


def moment(milliseconds: int | None) -> int | None:
    """Give a time in ms since 1970 back if a calendar has it."""
    return milliseconds if milliseconds is not None and 0 <= milliseconds <= LAST else None


def whole(text: str | None) -> int | None:
    """Read a whole number that 64 bits hold; `None` for anything else."""
    digits = (text or "").removeprefix("-")
    return int(text or "") if digits.isdecimal() and len(digits) <= MOST_DIGITS else None
