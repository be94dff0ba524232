"""What a partition keeps in the metadata of its offset commit: offset and state are one write."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from zlib import crc32

from orderkit.account.average import RunningAverage

METADATA_LIMIT = 4096  # bytes; Kafka's default `offset.metadata.max.bytes`
MARK, VERSION = '{"orderkit":', 1  # of the text; one that this kit does not know is not guessed at
EXTRAS = ("at_work", "deaths", "trying", "high", "ahead", "lost")  # numbers that are left out while they are 0


def this_process() -> int:
    """Name this process, by a number that no other has.

    A member that could not hand its partition over is taken for dead by the next one, and its death is blamed on the
    record that it was at. If both are of one process, it lives.
    """
    return _name(os.getpid())


@cache
def _name(_pid: int) -> int:  # once in a process, again in one that was forked off
    return secrets.randbelow(2**31 - 1) + 1


@dataclass(slots=True)
class History:
    """The failed delivery attempts of one record.

    Args:
        attempts: how many there were.
        since: when the first one failed, in seconds since 1970.
        wait: how long was waited before the latest, in seconds.
        due: not to be tried again before, on the monotonic clock.
        killed: one more attempt ended the member that made it, and is not counted yet.
        held: its attempts are spent, but the budget of dead letters is, too.
        begun: when the first one failed, on the monotonic clock; 0 for not known yet.

    What other processes read is by the wall clock, which may be set at any moment; what decides here is not.
    """

    attempts: int = 0
    since: float = 0.0
    wait: float = 0.0
    due: float = 0.0
    killed: bool = False
    held: bool = False
    begun: float = field(default=0.0, compare=False)

    def failed(self, now: float) -> None:
        """Count one more failed attempt, at `now` in seconds since 1970."""
        self.attempts += 1
        if not self.since:
            self.since, self.begun = now, self.begun or time.monotonic()
        elif not self.begun:
            self.began_before(now)

    def began_before(self, now: float) -> None:
        """Find `begun` from `since`; a clock that was set back since then makes no time negative."""
        self.begun = time.monotonic() - max(0.0, now - self.since)

    @property
    def elapsed(self) -> float:
        """Seconds since the first failure."""
        return time.monotonic() - self.begun


@dataclass(frozen=True)
class Saved:
    """What goes with a committed offset. Other offsets are counted from that one.

    Args:
        average: of all orders done with.
        dead: dead letters among the records done with.
        skipped: orders skipped.
        attempts: failed delivery attempts of the record at the offset.
        since: when the first of those failed, in seconds since 1970.
        at_work: the process of a member that has the partition, and has not handed it over; 0 for none.
        deaths: members that had it and ended without a word, since it last moved on.
        trying: 1 + the offset of the record whose next attempt is under way; 0 for none.
        high: records from here on are not done with; before it, all but the one at the offset and the holes are.
        holes: offset and failed attempts of each other record before `high` that is not done with.
        ahead: at most once: records before the offset that somebody is at work on. Nobody gets them again.
        lost: those that crashes have cost the group so: at most, for some may have been dead-lettered.
        log: the id of the topic (KIP-516); empty when the broker told none. A topic of that name that was made anew
            has another one, and other records at the same offsets.
    """

    average: RunningAverage = field(default_factory=RunningAverage)
    dead: int = 0
    skipped: int = 0
    attempts: int = 0
    since: float = 0.0
    at_work: int = 0
    deaths: int = 0
    trying: int = 0
    high: int = 0
    holes: tuple[tuple[int, int], ...] = ()
    ahead: int = 0
    lost: int = 0
    log: str = ""

    def failed(self, offset: int, died: bool) -> dict[int, History]:
        """Give the failed attempts of records that are not done with, by offset.

        Args:
            offset: of the commit.
            died: whether the member that made it ended without a word.
        """
        failed = {offset + beyond: History(attempts) for beyond, attempts in self.holes if attempts}
        if self.attempts:
            failed[offset] = History(self.attempts, self.since)
        if self.trying and died:
            # Its attempt ended the member that made it, and if it is the first one noticed, those before, too.
            deadly = failed.setdefault(offset + self.trying - 1, History())
            deadly.attempts = deadly.attempts or self.deaths
            deadly.killed = True
        return failed

    def to_text(self, offset: int) -> str:
        """Give the metadata of a commit at `offset`: JSON, the sum as an exact decimal, and at its end a checksum.

        The offset is in it because mirrors and tools move commits: at another offset the average would be wrong.
        """
        state: dict[str, object] = {"orderkit": VERSION, "offset": offset}
        state |= {"count": self.average.count, "total": self.average.sum, "dead": self.dead, "skipped": self.skipped}
        if self.attempts:
            state |= {"attempts": self.attempts, "since": self.since}
        state |= {name: value for name in EXTRAS if (value := int(getattr(self, name)))}
        state |= {"log": self.log} if self.log else {}
        if self.holes:
            state["holes"] = holes_to_text(self.holes)
        text = json.dumps(state, separators=(",", ":"))[:-1]
        return f"{text}{_checksum(text)}"

    @classmethod
    def from_text(cls, text: str | None, offset: int) -> Saved:
        """Read the metadata of a commit at `offset`.

        Raises:
            ValueError: it is not this kit's, or not whole, or of another offset; the message says which.
        """
        body, _, _ = (text or "").rpartition(',"crc":')
        if not (text or "").startswith(MARK):
            raise ValueError("without an average, by another program")
        if not body.startswith(f"{MARK}{VERSION},"):
            raise ValueError("by another version of this kit, with an average that this one cannot read")
        if text != body + _checksum(body):
            raise ValueError("with an average that was changed, or cut off, on its way")
        state = json.loads(body + "}")
        if state["offset"] != offset:
            raise ValueError(f"with the average of offset {state['offset']}, by a tool that moved it")
        return cls(
            RunningAverage.from_sum(state["count"], state["total"]), state["dead"], state["skipped"],
            state.get("attempts", 0), state.get("since", 0.0), holes=holes_from_text(state.get("holes", "")),
            log=state.get("log", ""), **{name: state.get(name, 0) for name in EXTRAS},
        )  # fmt: skip


def _checksum(text: str) -> str:
    return f',"crc":"{crc32(text.encode()):08x}"}}'


def holes_to_text(holes: Iterable[tuple[int, int]]) -> str:
    """Write holes as steps from one to the next, with the attempts where there were some: `5:1,4,21:2`."""
    words, last = [], 0
    for offset, attempts in holes:
        words.append(f"{offset - last}:{attempts}" if attempts else str(offset - last))
        last = offset
    return ",".join(words)


def holes_from_text(text: str) -> tuple[tuple[int, int], ...]:
    """Read what `holes_to_text` wrote."""
    holes, last = [], 0
    for word in text.split(",") if text else ():
        step, _, attempts = word.partition(":")
        last += int(step)
        holes.append((last, int(attempts or 0)))
    return tuple(holes)
