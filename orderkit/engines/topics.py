"""Retry topics: a failing order moves to a topic of its own, one for each attempt, and its partition flows.

A record is written there, and acknowledged, before its offset is committed. Whoever reads a retry topic waits until the
record at the head is due: never early, and late by what stands before it. Order is given up: a retried order comes
after younger ones of its key.
"""

from __future__ import annotations

import time
from typing import cast

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message

from orderkit.consuming.backlog import Backlog
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History
from orderkit.dead_letters import DeadLetterWriter, Headers, header_list
from orderkit.engines.base import Answer, Engine
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.kafka.names import check_topic
from orderkit.members.commits import Key
from orderkit.members.group import GroupMember
from orderkit.retry import RetryPolicy

PREFIX = "orderkit.retry."
MOST = 1e18  # no offset, time or number of attempts is larger
REMEMBERED = 10_000  # records written whose times are remembered
Place = tuple[str | None, int | None, int | None]


class Retried:
    """A record of a retry topic, as it was in the topic it came from.

    Args:
        message: the record as it is in the retry topic.
    """

    def __init__(self, message: Message) -> None:
        headers = header_list(message)
        self._message = message
        self._told = {name.removeprefix(PREFIX): value for name, value in headers if name.startswith(PREFIX)}
        self._headers = [header for header in headers if not header[0].startswith(PREFIX)]

    def history(self, longest: float) -> History:
        """Give the attempts it had when it was written, and when it is due.

        Its times are by the clock of whoever wrote it, and any clock may have been set since: it waits no longer than
        its own back-off.

        Args:
            longest: seconds that a back-off may take.
        """
        now, wait = time.time(), min(self._number("wait"), longest)
        early = min(max(0.0, self._number("due") - now), wait)
        history = History(int(self._number("attempts")), self._number("since"), wait, time.monotonic() + early)
        if history.since:
            history.began_before(now)
        return history

    def _text(self, name: str) -> str:
        value = self._told.get(name) or b""
        return value if isinstance(value, str) else value.decode(errors="replace")

    def _number(self, name: str) -> float:
        try:
            number = float(self._text(name))
        except ValueError:  # not written by this kit: the record is new, and due
            return 0.0
        return number if 0.0 <= number < MOST else 0.0

    def topic(self) -> str | None:
        """Give the topic it came from."""
        return self._text("topic") or self._message.topic()

    def partition(self) -> int | None:
        """Give the partition it came from."""
        return int(self._number("partition")) if self._told else self._message.partition()

    def offset(self) -> int | None:
        """Give the offset it had there."""
        return int(self._number("offset")) if self._told else self._message.offset()

    def timestamp(self) -> tuple[int, int]:
        """Give the timestamp it had there."""
        if not self._told:
            return self._message.timestamp()
        text = self._text("timestamp")
        return (TIMESTAMP_CREATE_TIME, int(text)) if text else (TIMESTAMP_NOT_AVAILABLE, 0)

    def key(self) -> bytes | None:
        """Give its key."""
        return self._message.key()

    def value(self) -> bytes | None:
        """Give its value."""
        return self._message.value()

    def headers(self) -> Headers:
        """Give the headers it had there."""
        return self._headers


class RetryTopics(Engine):
    """Moves a failing order to the retry topic of its next attempt."""

    def __init__(self, member: GroupMember, letters: DeadLetterWriter, topic: str, policy: RetryPolicy) -> None:
        super().__init__(member, letters, topic, policy)
        self._received: dict[Key, Partition] = {}  # of retry topics: those whose records have their attempts
        # On the monotonic clock, which no header can carry: attempts, the first failure, and when the next one is due.
        self._times: dict[Place, tuple[int, float, float]] = {}

    @classmethod
    def topics(cls, topic: str, group: str, policy: RetryPolicy) -> list[str]:
        """Name the retry topics: one for each attempt after the first, for this group alone."""
        return [f"{topic}.{group}.retry.{number}" for number in range(1, policy.max_attempts)]

    def received(self, part: Partition, many: int) -> None:
        """Take new records of a retry topic for what they were, with the attempts they have had."""
        if part.topic == self._topic:
            return
        batch = part.backlog
        if self._received.get(part.key) is not part:
            self._received[part.key], many = part, len(batch)  # a partition that was undone has older ones, too
        retried = [it if isinstance(it, Retried) else Retried(it) for it in batch.messages[-many:]]
        batch.messages[-many:] = cast(list[Message], retried)
        part.origin = self._topic
        for offset, record in zip(batch.offsets[-many:], retried, strict=True):
            history, saved = record.history(self._policy.backoff.cap), part.failed.get(offset)
            attempts, begun, due = self._times.get(_place(record), (-1, 0.0, 0.0))
            if attempts == history.attempts:  # else another member has had it since
                history.begun, history.due = begun, due
            if saved is not None and saved.killed:  # the commit knows more: its last attempt ended a member
                history.killed, history.attempts = True, max(history.attempts, saved.attempts)
            part.failed[offset] = history
            part.retried[offset] = record.offset() or 0

    def due(self, now: float) -> list[Partition]:
        """List the partitions that may go on; what is at hand of one that was undone has its attempts again."""
        found = super().due(now)
        for part in found:
            if self._received.get(part.key) is not part and part.backlog:
                self.received(part, len(part.backlog))
        return found

    def wait(self, part: Partition, batch: Backlog, i: int, history: History, after: float) -> Answer:
        """Write the record to the next retry topic."""
        message = batch.messages[i]
        number = min(history.attempts, self._policy.max_attempts - 1)
        kind, timestamp = message.timestamp()
        told = {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": "" if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
            "attempts": history.attempts,
            "since": history.since,
            "wait": after,
            "due": time.time() + after,
        }
        headers: Headers = header_list(message) + [(PREFIX + name, str(value).encode()) for name, value in told.items()]
        topic = f"{self._topic}.{self._member.group}.retry.{number}"
        self._letters.write(topic, message, headers, part, message.partition() or 0)
        if len(self._times) >= REMEMBERED:
            self._times.clear()  # from now on the wall clock has to do
        self._times[_place(message)] = history.attempts, history.begun, time.monotonic() + after
        part.failed.pop(batch.offsets[i], None)  # the record carries them now
        return Answer.ASIDE


def _place(record: Message | Retried) -> Place:
    return record.topic(), record.partition(), record.offset()


def create_alike(connection: Connection, topic: str, others: list[str]) -> None:
    """Create topics with as many partitions as `topic` has: a record keeps its number.

    Raises:
        UsageError: a group's name has what no topic's may have.
        OrderkitError: one is there, and has fewer.
    """
    for name in others:
        check_topic(name, "retry topic")
    many = len(connection.partitions(topic)) if others else 0
    connection.create_topics(dict.fromkeys(others, many))
    for name in others:
        if (there := len(connection.partitions(name))) < many:
            raise OrderkitError(f"Topic {name!r} has {there} partitions and {topic!r} has {many}: give it as many.")
