"""Log lines: text for a person, or JSON with one line for each decision, and never a payload or a secret."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

from orderkit.account.tally import AVERAGED, DEAD, RETRY, SKIPPED, UNDONE
from orderkit.consuming.loop import Loop
from orderkit.consuming.partition import Partition
from orderkit.errors import check_known
from orderkit.members.commits import Key
from orderkit.members.group import SHORT_WAIT
from orderkit.show.printable import capped, printable

ROOT = logging.getLogger("orderkit")
KAFKA = logging.getLogger("orderkit.kafka")
log = logging.getLogger("orderkit.decisions")

FORMATS = ("text", "json")
# What a line may hold beside its time, level, event and message. What is not named here cannot get out.
FIELDS = (
    "topic", "partition", "offset", "order_id", "attempt", "reason", "error", "wait", "partitions", "report",
)  # fmt: skip
COLUMNS = ("at", "topic", "partition", "offset", "order_id", "attempt", "fate", "wait", "reason", "error")
EVENTS = {
    AVERAGED: ("averaged", logging.INFO),
    RETRY: ("retry", logging.INFO),
    DEAD: ("dead-letter", logging.WARNING),
    SKIPPED: ("skip", logging.WARNING),
    UNDONE: ("undone", logging.INFO),
}
EVERY = 0.1  # seconds between two looks into the ledger: a look copies it
MANY = 10_000  # attempts that are worth a look before that


def utc(seconds: float) -> str:
    """Give a time in seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextLines(logging.Formatter):
    """Writes a record as one line, whatever is in its message; below it the traceback, if there is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  its name in the base class
        """Give the line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Give the traceback."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class JsonLines(logging.Formatter):
    """Writes a record as one JSON object in one line: `at`, `level`, `event`, the known fields, and `message`."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        given = record.__dict__
        line: dict[str, Any] = {
            "at": utc(given.get("at", record.created)),
            "level": record.levelname.lower(),
            "event": given.get("event", "kafka-client" if record.name == KAFKA.name else "log"),
        }
        for name in FIELDS:
            if (value := given.get(name)) is not None:
                line[name] = capped(value) if isinstance(value, str) else value
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
        if text := capped(record.getMessage()):
            line["message"] = text
        return json.dumps(line)


def to_stderr(debug: bool = False) -> None:
    """Send the kit's log lines to standard error as text.

    Args:
        debug: everything, and what the Kafka client says too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines("orderkit: %(message)s"))
    ROOT.handlers[:] = [handler]
    ROOT.setLevel(logging.DEBUG if debug else logging.WARNING)
    KAFKA.propagate = debug


def set_format(name: str) -> None:
    """Choose how log lines look from now on; in JSON the Kafka client's own lines are among them.

    Raises:
        UsageError: there is no such format.
    """
    check_known("log format", name, FORMATS)
    if name == "json":
        for handler in ROOT.handlers:
            handler.setFormatter(JsonLines())
        ROOT.setLevel(min(ROOT.getEffectiveLevel(), logging.INFO))
        KAFKA.propagate = True


class DecisionLog:
    """Tells what a consumer decides, a line each, from what ledger and member keep anyway.

    Call it once per turn of the loop, and `finish` when the loop has ended.

    Args:
        consumer: whose decisions.
        averaged: tell the orders that went well, too.
    """

    def __init__(self, consumer: Loop, averaged: bool = False) -> None:
        self._consumer = consumer
        self._averaged = averaged
        self._told = consumer.ledger.dropped + len(consumer.ledger)  # events of the ledger, from its first
        self._seen = self._worth_telling()
        self._due = 0.0
        self._assigned: set[Key] = set()
        self._rebalances = 0
        self._waiting: dict[Key, str] = {}
        self._refused = False
        self._stopped = False

    def __call__(self) -> None:
        """Tell what is new."""
        self._follow(at_once=False)
        self._rebalanced()
        self._paused()
        self._letters()
        if self._consumer.broken and not self._stopped:
            self._follow(at_once=True)  # the line that says why it ends comes last
            self._stopped = True
            self._stop(str(self._consumer.broken), self._consumer.broken.__cause__)

    def finish(self) -> None:
        """Tell what is left."""
        self._follow(at_once=True)
        self._letters()

    def _worth_telling(self) -> int:
        """Count the attempts that get a line; it only grows, whatever a rebalance takes back."""
        counts = self._consumer.ledger.counts
        return sum(counts) - (0 if self._averaged else counts[AVERAGED])

    def _follow(self, at_once: bool) -> None:
        ledger = self._consumer.ledger
        end, seen = ledger.dropped + len(ledger), self._worth_telling()
        if seen == self._seen:
            self._told = end
            return
        if not at_once and time.monotonic() < self._due and end - self._told < MANY:
            return
        columns, dropped, _ = ledger.rows(*COLUMNS)
        if self._told < dropped:
            gone = dropped - self._told
            log.warning("%d attempts came too fast to be told", gone, extra={"event": "gap"})
        new = max(0, self._told - dropped)
        for row in zip(*(column[new:] for column in columns), strict=True):
            if row[6] != AVERAGED or self._averaged:
                self._attempt(*row)
        self._told, self._seen = dropped + len(columns[0]), seen
        self._due = time.monotonic() + EVERY

    def _attempt(
        self,
        at: float,
        topic: str,
        partition: int,
        offset: int,
        order_id: str | None,
        attempt: int,
        fate: int,
        wait: float,
        reason: str | None,
        told: str | None,
    ) -> None:
        event, level = EVENTS[fate]
        kind, _, message = (told or "").partition(": ")
        fields = {
            "event": event, "at": at, "topic": topic, "partition": partition, "offset": offset, "order_id": order_id,
            "attempt": attempt, "reason": reason, "error": kind or None, "wait": wait if fate == RETRY else None,
        }  # fmt: skip
        log.log(level, "%s", message, extra=fields)

    def _rebalanced(self) -> None:
        member = self._consumer.member
        if member.rebalances == self._rebalances and len(member.parts) == len(self._assigned):
            return
        self._rebalances, self._assigned = member.rebalances, set(member.parts)
        held = ", ".join(str(part) for part in member.parts.values())
        many = len(self._assigned)
        log.info("now has: %s", held or "nothing", extra={"event": "rebalance", "partitions": many})

    def _paused(self) -> None:
        """Tell which partitions began to wait for long, and which go on."""
        now = time.monotonic()
        waiting = {}
        for key, part in self._consumer.member.held.items():
            if part.refused or part.due - now > SHORT_WAIT or (key in self._waiting and part.due > now):
                waiting[key] = "dlq-refused" if part.refused else "retry"
                if self._waiting.get(key) != waiting[key]:
                    wait = None if part.refused else round(part.due - now, 3)
                    self._place("partition-paused", part, reason=waiting[key], wait=wait)
        for topic, partition in self._waiting.keys() - waiting.keys():
            if going_on := self._consumer.member.parts.get((topic, partition)):
                self._place("partition-resumed", going_on)
        self._waiting = waiting

    def _place(self, event: str, part: Partition, **more: Any) -> None:
        offset = part.backlog.offsets[0] if part.backlog else part.next
        place = {"topic": part.topic, "partition": part.partition, "offset": offset}
        log.info("", extra={"event": event, **place, **more})

    def _letters(self) -> None:
        """Tell when the dead-letter topic takes letters again; the writer itself says that it refuses them."""
        letters = self._consumer.letters
        if self._refused and not letters.trouble:
            log.info("it takes dead letters again", extra={"event": "dlq-recovered", "topic": letters.topic})
        self._refused = bool(letters.trouble)

    def _stop(self, told: str, cause: BaseException | None) -> None:
        fields: dict[str, Any] = {"event": "stop", "error": type(cause).__name__ if cause else None}
        for part in self._consumer.member.parts.values():
            if part.backlog and f" {part}@{part.backlog.offsets[0]}:" in told:
                order = part.backlog.orders[0]
                fields |= {"topic": part.topic, "partition": part.partition, "offset": part.backlog.offsets[0]}
                fields |= {"attempt": part.attempts(part.backlog.offsets[0]) + 1}
                fields |= {"order_id": order["orderId"] if isinstance(order, dict) else None}
        log.error("%s", told, extra=fields)
