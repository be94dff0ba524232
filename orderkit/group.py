"""One member of a consumer group: its partitions, what they saved, and their records."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.patience import call_aside, call_here, is_answered, leave_group
from orderkit.progress import Checkpoint, Progress, Saved

log = logging.getLogger("orderkit")

Key = tuple[str, int]
# Seconds. Pausing drops what the client has fetched ahead, and getting it again costs more than a shorter wait.
SHORT_WAIT = 0.2
# The mock lets a group that a member has left wait for the session time-out less a second before the next one may join.
EMBEDDED_SETTINGS = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 300}
COMMIT, LAST_COMMIT = 10.0, 5.0  # seconds for a commit that is waited for: at a rebalance, and when leaving
LONG, BRIEFLY, TRIES = 30.0, 3.0, 3  # seconds for reading offsets: at work, and when leaving; in so many tries
# Another member has the partition now, or soon will; it starts from the last commit that went through.
MOVED_ON = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError._NO_OFFSET,
    KafkaError._STATE,
    KafkaError._ASSIGNMENT_LOST,
}


class GroupMember:
    """Reads topics as one member of a group.

    Args:
        connection: the cluster.
        group: the group's name.
        topics: what to subscribe to.
        batch: records to fetch at once, at most.
        revoked: called with partitions that are about to go, while they can still be committed.
        lost: called with partitions that are gone, as soon as it is known how much of their work was committed.
        settings: further librdkafka properties.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        *,
        batch: int = 1000,
        revoked: Callable[[list[Progress]], None],
        lost: Callable[[list[Progress]], None],
        settings: dict[str, object] | None = None,
    ) -> None:
        self.group = group
        self._connection = connection
        self.parts: dict[Key, Progress] = {}
        self.held: dict[Key, Progress] = {}
        self.rebalances = 0
        self._paused: set[Key] = set()
        self._batch = batch
        self._revoked = revoked
        self._lost = lost
        for topic in topics:
            connection.partitions(topic)  # a missing topic is said here, not in an endless silence
        self._settings = {**(EMBEDDED_SETTINGS if connection.is_embedded else {}), **(settings or {})}
        self._client: Consumer = connection.consumer(group, on_commit=self._committed, **self._settings)
        self._is_static = "group.instance.id" in connection.config or "group_instance_id" in self._settings
        self._leaving = self._closing = self._in_callback = False
        self._sent: dict[Key, tuple[Progress, Checkpoint]] = {}
        self._waiting: dict[Key, tuple[Progress, Checkpoint]] = {}
        self._doubtful: list[Progress] = []  # a commit of theirs was not answered, and may still arrive
        self._client.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def fetch(self, wait: float) -> list[tuple[Progress, list[Message]]]:
        """Take what is there, at most a batch; wait for the first record only, at most `wait` seconds.

        Raises:
            OrderkitError: a topic is gone, or may not be read.
        """
        first = self._client.poll(wait)
        if first is None:
            return []
        by_part: dict[Key, list[Message]] = {}
        for message in [first, *self._client.consume(self._batch - 1, 0)]:
            if error := message.error():
                self._complain(error)
            else:
                by_part.setdefault((message.topic() or "", message.partition() or 0), []).append(message)
        return [(self.parts[key], messages) for key, messages in by_part.items() if key in self.parts]

    def _complain(self, error: KafkaError) -> None:
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise OrderkitError(f"{error.str()}. Create the topic with `orderkit topics create`.")
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise OrderkitError(f"{error.str()}. Ask for the right to read it; the offsets stay where they are.")
        log.warning("%s", error.str())

    def hold(self, part: Progress, until: float) -> None:
        """Let a partition wait until a time on the monotonic clock; the others flow, and polling goes on."""
        part.due = until
        self.held[part.key] = part

    def release(self, part: Progress) -> None:
        """Let a partition's new records be worked on as they come."""
        self.held.pop(part.key, None)

    def steer(self, part: Progress) -> None:
        """Pause the partition at the broker while it waits long or has enough at hand; let it flow otherwise."""
        key = part.key
        paused = key in self._paused
        enough = self._batch // 2 if paused else 2 * self._batch
        waits_long = key in self.held and part.due - time.monotonic() > SHORT_WAIT
        wanted = waits_long or len(part.backlog) > enough
        if wanted and not paused and key in self.parts:
            self._paused.add(key)
            self._client.pause([TopicPartition(*key)])
        elif paused and not wanted:
            self._paused.discard(key)
            self._client.resume([TopicPartition(*key)])

    def commit(self, ready: Sequence[tuple[Progress, Checkpoint]]) -> None:
        """Commit checkpoints in the background, one commit under way at a time; the newest of each partition wins."""
        self._waiting |= {part.key: (part, point) for part, point in ready}
        if self._sent or not self._waiting:
            return
        self._sent, self._waiting = self._waiting, {}
        try:
            self._client.commit(offsets=_offsets(self._sent.values()), asynchronous=True)
        except KafkaException as error:
            self._committed(error.args[0], [])

    def _committed(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """Take in the answer to a commit in the background; what failed is tried again, unless newer work waits."""
        sent, self._sent = self._sent, {}
        failed = {(offset.topic, offset.partition) for offset in offsets if offset.error}
        for key, (part, point) in sent.items():
            if error is None and key not in failed:
                part.committed = max(part.committed, point.offset)
            elif self.parts.get(key) is part:  # else another member has it now
                self._waiting.setdefault(key, (part, point))
        if error is not None and error.code() not in MOVED_ON:
            log.warning("the commit failed and will be tried again: %s", error.str())

    def await_commit(self, deadline: float) -> None:
        """Wait for the answer to the commit under way, in the last turn: two at once could overtake each other."""
        self._leaving = True
        while self._sent and time.monotonic() < deadline:
            self._client.poll(0.05)  # a record that comes now is not committed, and so not lost

    def commit_now(self, ready: Sequence[tuple[Progress, Checkpoint]]) -> None:
        """Commit and wait for the answer, but not for ever: a broker that has fallen silent gives none."""
        wanted = self._sent | self._waiting | {part.key: (part, point) for part, point in ready}
        self._waiting = {}
        pending = [(part, point) for key, (part, point) in wanted.items() if self.parts.get(key) is part]
        deadline = time.monotonic() + (LAST_COMMIT if self._leaving else COMMIT)
        while pending and time.monotonic() < deadline:
            asked = self._commit(_offsets(pending))
            if not is_answered(asked, deadline):
                log.warning("the commit is not answered; what it was to keep may be delivered again")
                break
            try:
                answers = asked.result() or []
            except KafkaException as error:
                log.warning("the commit failed: %s", error.args[0].str())
                if error.args[0].code() in MOVED_ON:
                    break
                time.sleep(0.1)  # the loop has ended or the partitions are going: nobody waits for a poll
                continue
            failed = {(answer.topic, answer.partition) for answer in answers if answer.error}
            for part, point in pending:
                if part.key not in failed:
                    part.committed = max(part.committed, point.offset)
            pending = [(part, point) for part, point in pending if part.key in failed]
        self._doubtful += [part for part, _ in pending]

    def _commit(self, offsets: list[TopicPartition]) -> Future[list[TopicPartition] | None]:
        """Commit aside, where it may take for ever; but a client that is in a callback answers no other thread."""
        commit = partial(self._client.commit, offsets=offsets, asynchronous=False)
        return call_here(commit) if self._in_callback else call_aside(commit)

    def settle_doubts(self) -> None:
        """Learn, before leaving, what became of commits without an answer.

        Raises:
            OrderkitError: the group's coordinator does not answer.
        """
        if not self._doubtful:
            return
        # Another thread may still wait in our own client for the answer.
        reader = self._connection.consumer(self.group, **self._settings)
        try:
            self._settle(_read_commits(reader, [TopicPartition(*part.key) for part in self._doubtful], BRIEFLY))
        finally:
            reader.close()

    def _settle(self, found: Iterable[TopicPartition]) -> None:
        parts, self._doubtful = self._doubtful, []
        for part, offset in zip(parts, found, strict=True):
            part.committed = max(part.committed, min(offset.offset, part.next))  # a new owner may be further already
        self._lost(parts)

    def _on_assign(self, client: Consumer, offsets: list[TopicPartition]) -> None:
        if self._leaving:
            return  # it gives them back at once
        self.rebalances += 1
        doubtful = [TopicPartition(*part.key) for part in self._doubtful]
        found = _read_commits(client, [*offsets, *doubtful])
        for offset in found[: len(offsets)]:
            saved = _saved(offset)
            self.parts[offset.topic, offset.partition] = Progress(offset.topic, offset.partition, offset.offset, saved)
        # Not earlier: until the group has let this client in again, a commit that it sent before may still arrive.
        self._settle(found[len(offsets) :])

    def _on_revoke(self, _client: Consumer, offsets: list[TopicPartition]) -> None:
        going = self._mine(offsets)
        if not self._closing:  # else all that could be committed is
            self._in_callback = True
            try:
                self._revoked(going)
            finally:
                self._in_callback = False
        self._forget(going)

    def _on_lost(self, _client: Consumer, offsets: list[TopicPartition]) -> None:
        gone = self._mine(offsets)
        unsure = self._sent | self._waiting
        self._doubtful += [part for part in gone if part.key in unsure]
        self._forget(gone)

    def _mine(self, offsets: list[TopicPartition]) -> list[Progress]:
        keys = [(offset.topic, offset.partition) for offset in offsets]
        return [self.parts[key] for key in keys if key in self.parts]

    def _forget(self, parts: list[Progress]) -> None:
        self._lost([part for part in parts if part not in self._doubtful])
        for part in parts:
            part.gone = True
            for table in (self.parts, self.held, self._waiting):
                table.pop(part.key, None)
            if part.key in self._paused:  # the client would keep it paused, should it ever come back to us
                self._paused.discard(part.key)
                self._client.resume([TopicPartition(*part.key)])

    def close(self, patience: float) -> None:
        """Leave the group. Whatever the broker does, it is over within `patience` seconds."""
        self._leaving = self._closing = True
        leave_group(self._client, lambda: not self.parts, stays=self._is_static, patience=patience)


def _offsets(ready: Iterable[tuple[Progress, Checkpoint]]) -> list[TopicPartition]:
    return [TopicPartition(*part.key, point.offset, point.saved.to_text()) for part, point in ready]


def _read_commits(client: Consumer, offsets: list[TopicPartition], patience: float = LONG) -> list[TopicPartition]:
    """Read what the group last committed; an average can only go on from what is known.

    Raises:
        OrderkitError: the group's coordinator does not answer.
    """
    for left in reversed(range(TRIES)):
        try:
            return list(client.committed(offsets, timeout=patience / TRIES))
        except KafkaException as error:
            if not left:
                raise OrderkitError(f"The group's offsets cannot be read: {error.args[0].str()}. Try again.") from None
    return []


def _saved(offset: TopicPartition) -> Saved | None:
    saved = Saved.from_text(offset.metadata)
    if offset.offset >= 0 and saved is None:
        log.warning(
            "%s[%d] was committed without an average, by another program; its average starts at %d",
            offset.topic, offset.partition, offset.offset,
        )  # fmt: skip
    return saved
