"""Errors to short labels: what differs between two letters in the same trouble is taken out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

LONGEST = 120  # letters of a label
LOOKED_AT = 300  # bytes of a message, at most its first line
MASK = bytes.maketrans(b"123456789", b"000000000")  # any digit looks like any other
MOST_PLACES = 1_000  # partitions that are told apart
NOTHING = "(nothing told)"
UUID = rb"[0a-f]{8}(?:-[0a-f]{4}){3}-[0a-f]{12}"
IDS = re.compile(rb"(?<!\w)(?:" + UUID + rb"|(?=0*[a-f])(?=[a-f]*0)[0a-f]{8,})(?!\w)", re.IGNORECASE)  # or a hash
PARTS = re.compile(
    r"""
    (?P<time>\b0000-00-00(?:[T ]00:00(?::00(?:[.,]0+)?)?(?:Z|\ ?[+-]00:?00)?)?)
    |(?P<address>
        \b0x[0a-f]+\b                                     # in memory
        |\b[a-z][a-z0+.-]*://[^\s,;'")]+                  # of a page
        |\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+                   # of a person
        |\b0{1,3}(?:\.0{1,3}){3}(?::0+)?\b                # of a machine
        |\b[a-z][\w-]*(?:\.[\w-]+)+:0+\b|\blocalhost:0+\b
    )
    |(?P<quoted>(?<!\w)'[^']*'(?!\w)|(?<!\w)"[^"]*"(?!\w)|`[^`]*`)
    |(?P<number>(?<!\w)[-+]?0+(?:[.,]0+)*(?:e[-+]?0+)?(?!\w)|0+)
    """,
    re.VERBOSE | re.IGNORECASE,
)
SIGNS = {"time": "<time>", "address": "<address>", "quoted": "'…'", "number": "#"}


def masked(message: str | bytes | None) -> bytes:
    """Give the first line of a message with all digits alike; most of what differs is gone then, at little cost."""
    if not message:
        return b""
    told = message.encode(errors="replace") if isinstance(message, str) else message
    return _without_ids(told[:LOOKED_AT].split(b"\n", 1)[0].translate(MASK))


@lru_cache(maxsize=20_000)
def _without_ids(told: bytes) -> bytes:
    return IDS.sub(b"<id>", told) if b"0" in told else told


@lru_cache(maxsize=20_000)
def label_of(exception: str | bytes | None, message: bytes) -> str:
    """Give the label of an error: the exception's class, and the message without what is different each time.

    Numbers become `#`, UUIDs and other ids `<id>`, times `<time>`, addresses of any sort `<address>`, what is quoted
    `'…'`.

    Args:
        exception: its class, with or without its module.
        message: as `masked` gives it.
    """
    name = exception.decode(errors="replace") if isinstance(exception, bytes) else exception or ""
    name = " ".join(name[:LOOKED_AT].split()).rpartition(".")[2]
    text = PARTS.sub(lambda found: SIGNS[found.lastgroup or ""], " ".join(message.decode(errors="replace").split()))
    told = text if not name or text.startswith(name) else f"{name}: {text}" if text else name
    return (told if len(told) <= LONGEST else told[: LONGEST - 1] + "…") or NOTHING


@dataclass
class Trouble:
    """What letters have in common that tell the same but for numbers, ids and the like.

    Args:
        count: how many they are.
        first, last: when the first and the last was written, in ms since 1970; `None` when none says so.
        places: the partitions that they came from, or else those where they lie.
        example: where one of them lies: partition and offset.
    """

    count: int = 0
    first: int | None = None
    last: int | None = None
    places: set[str] = field(default_factory=set)
    example: tuple[int, int] | None = None

    def add(self, other: Trouble) -> None:
        """Take in what others have."""
        times = [time for time in (self.first, self.last, other.first, other.last) if time is not None]
        self.count += other.count
        self.first, self.last = min(times, default=None), max(times, default=None)
        if len(self.places) < MOST_PLACES:
            self.places |= other.places
        self.example = self.example or other.example
