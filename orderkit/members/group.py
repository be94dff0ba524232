"""One member of a consumer group: its partitions, what they saved, and their records."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import groupby

from confluent_kafka import Consumer, Message, TopicPartition

from orderkit.consuming.partition import Partition
from orderkit.kafka import Connection
from orderkit.members.commits import Committer, Key, saved_with
from orderkit.members.lag import Ends
from orderkit.members.offsets import Offsets, beginning, start_at
from orderkit.members.patience import HASTE, leave_group, manners
from orderkit.members.refused import Refusals
from orderkit.members.stranded import Lookout

log = logging.getLogger("orderkit")

# Seconds. Pausing drops what the client has fetched ahead, and getting it again costs more than a shorter wait.
SHORT_WAIT = 0.2
BRIEFLY = 2.0  # seconds for reading what was committed, when leaving
SUSPECTS = 3  # batches: what a member may have had in hand, beyond its last commit
# The mock lets a group that a member has left wait for the session time-out less a second before the next one may join.
EMBEDDED_SETTINGS = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 300}


class GroupMember:
    """Reads topics as one member of a group.

    Args:
        connection: the cluster.
        group: the group's name.
        topics: what to subscribe to.
        batch: records to fetch at once, at most.
        keep: hold on to records until they are committed, so that they can be undone.
        revoked: called with partitions that are about to go, while they can still be committed.
        lost: called with partitions that have just gone.
        undone: called with one of those when it is known where its last commit stands: all after it comes again.
        settings: further librdkafka properties.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        *,
        batch: int = 1000,
        keep: bool = False,
        revoked: Callable[[list[Partition]], None],
        lost: Callable[[list[Partition]], None],
        undone: Callable[[Partition], None],
        settings: dict[str, object] | None = None,
    ) -> None:
        self.group = group
        self.parts: dict[Key, Partition] = {}
        self.held: dict[Key, Partition] = {}
        self.rebalances = 0
        self.commits = Committer(self.parts)
        self.stopping = False
        self._kin = _key if len(topics) > 1 else Message.partition  # the latter costs no call of ours
        self._batch = batch
        self._keep = keep
        self._revoked, self._lost, self._undone = revoked, lost, undone
        self._paused: set[Key] = set()
        self._assigned: set[Key] = set()  # to this client, as far as its callbacks have run
        self._left: set[Key] = set()  # partitions that were let go since the latest record was polled
        self._unsure: list[Partition] = []  # gone, and a commit of theirs may still arrive
        for topic in topics:
            connection.partitions(topic)  # a missing topic is said here, not in an endless silence
        self._connection, self._topics = connection, list(topics)
        self._ends, self._beginning = Ends(), beginning(connection)
        self._lookout, self._refusals = Lookout(connection, topics[0]), Refusals(connection, group)
        self.offsets = Offsets(connection, group, self.commits, self._lookout, lambda: self.stopping)
        self._settings = {**(EMBEDDED_SETTINGS if connection.is_embedded else {}), **(settings or {})}
        self._manners = manners({**connection.config, **self._settings})
        self.client: Consumer = self._open()

    def _open(self) -> Consumer:
        """Open a client that joins the group."""
        client = self._connection.consumer(self.group, on_commit=self.commits.answered, **self._settings)
        self.commits.client = client
        client.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        return client

    @property
    def settled(self) -> bool:
        """Whether everything done so far is committed, and nothing is in doubt."""
        return not self._unsure and all(part.is_settled for part in self.parts.values())

    def fetch(self, wait: float) -> list[tuple[Partition, list[Message]]]:
        """Take what is there, at most a batch; wait for the first record only, at most `wait` seconds.

        Raises:
            OrderkitError: a topic is gone, or may not be read.
        """
        first = self.client.poll(wait)
        self._ends.look(self.client, self.parts)
        if first is None:
            self._look_for_brokers()
            return []
        self._lookout.heard()
        self._left.clear()
        messages = self.client.consume(self._batch - 1, 0)
        if _key(first) not in self._left:  # else its assignment has ended meanwhile, and it comes again in the next one
            messages = [first, *messages]
        if any(map(Message.error, messages)):
            for error in filter(None, map(Message.error, messages)):
                self._refusals.complain(error)
            messages = [message for message in messages if not message.error()]
        by_part: dict[Key, list[Message]] = {}
        for _, run in groupby(messages, self._kin):
            some = list(run)
            by_part.setdefault(_key(some[0]), []).extend(some)
        return [(self.parts[key], some) for key, some in by_part.items() if key in self.parts]

    def hold(self, part: Partition, until: float) -> None:
        """Let a partition wait until a time on the monotonic clock; the others flow, and polling goes on."""
        part.due = until
        self.held[part.key] = part

    def release(self, part: Partition) -> None:
        """Let a partition's new records be worked on as they come."""
        self.held.pop(part.key, None)

    def steer(self, part: Partition) -> None:
        """Pause the partition at the broker while it waits long or has enough at hand; let it flow otherwise."""
        key = part.key
        paused = key in self._paused
        enough = self._batch // 2 if paused else 2 * self._batch
        waits_long = key in self.held and part.due - time.monotonic() > SHORT_WAIT
        wanted = waits_long or len(part.backlog) > enough
        if wanted and not paused and key in self.parts:
            self._paused.add(key)
            self.client.pause([TopicPartition(*key)])
        elif paused and not wanted:
            self._paused.discard(key)
            self.client.resume([TopicPartition(*key)])

    def _look_for_brokers(self) -> None:
        """Open a new client when this one has lost all its brokers; what is not committed comes again."""
        if self._lookout.has_lost(self.client):
            log.warning("the client has lost all its brokers; a new one is opened")
            self.commits.give_up()
            self._paused.clear()  # the new client has paused nothing, and has nothing
            self._assigned.clear()
            self.client = self._open()
            self.let_go(list(self.parts.values()))

    def _on_assign(self, _client: Consumer, offsets: list[TopicPartition]) -> None:
        self.rebalances += 1
        self._assigned.update(_keys(offsets))
        starts: list[TopicPartition] = []
        # The doubts not earlier: until the group has let us in again, a commit that was sent before may still arrive.
        unsure = [TopicPartition(*part.key) for part in self._unsure]
        found = self.offsets.read([*offsets, *unsure])
        self._settle(found[len(offsets) :])
        suspects = SUSPECTS * self._batch
        for offset in found[: len(offsets)]:
            at, saved = max(offset.offset, -1), saved_with(offset, logging.WARNING)
            part = Partition(offset.topic, offset.partition, at, saved, keep=self._keep, suspects=suspects)
            self.parts[part.key] = part
            starts.append(TopicPartition(*part.key, offset.offset if offset.offset >= 0 else self._beginning))
        if starts:
            start_at(self.client, starts)
        self._ends.look_soon()

    def _on_revoke(self, client: Consumer, offsets: list[TopicPartition]) -> None:
        self.commits.in_callback = True
        try:
            self._revoked(self._mine(offsets))
        finally:
            self.commits.in_callback = False
        self._on_lost(client, offsets)

    def _on_lost(self, _client: Consumer, offsets: list[TopicPartition]) -> None:
        self._assigned.difference_update(_keys(offsets))
        self.let_go(self._mine(offsets))

    def _mine(self, offsets: list[TopicPartition]) -> list[Partition]:
        return [self.parts[key] for key in _keys(offsets) if key in self.parts]

    def let_go(self, parts: list[Partition], *, doubtful: bool = False) -> None:
        """Let partitions go.

        Args:
            parts: which.
            doubtful: how much of their work was committed is not known before the group's offsets are read.
        """
        undone: list[Partition] = []
        for part in parts:
            part.gone = True
            self._left.add(part.key)
            for table in (self.parts, self.held):
                table.pop(part.key, None)
            if part.key in self._paused:  # the client would keep it paused, should it ever come back to us
                self._paused.discard(part.key)
                self.client.resume([TopicPartition(*part.key)])
            unsure = self.commits.forget(part) or doubtful
            if not part.is_settled:
                (self._unsure if unsure else undone).append(part)
        self._lost(parts)
        for part in undone:
            self._undone(part)

    def _settle(self, found: list[TopicPartition]) -> None:
        """Undo what was done on partitions in doubt after their last commit: all of it is delivered again."""
        if not found:
            return
        parts, self._unsure = self._unsure, []
        for part, offset in zip(parts, found, strict=True):
            part.found(offset.offset, saved_with(offset))
            self._undone(part)

    def rewind(self, part: Partition) -> Partition:
        """Take a partition back to its last commit; its records are at hand still."""
        again = part.undone()
        self.parts[part.key] = again
        if self.held.pop(part.key, None):
            self.held[part.key] = again
        self._undone(part)
        return again

    def lag(self) -> dict[Key, int]:
        """Give the records that each partition is behind, as far as the client has heard."""
        return self._ends.lag(self.parts)

    def close(self, patience: float) -> None:
        """Clear up what is in doubt, or give it up as undone, and leave the group within `patience` seconds."""
        self.stopping = True
        self.let_go(list(self.parts.values()))
        unsure = [TopicPartition(*part.key) for part in self._unsure]
        found = self.offsets.read(unsure, BRIEFLY)
        self._settle(found or unsure)  # what cannot be read is given up as undone
        if self.commits.is_stuck or len(found) < len(unsure):
            patience = HASTE  # the broker is silent
        self._lookout.finish()
        leave_group(self.client, lambda: not self._assigned, **self._manners, patience=patience)


def _keys(offsets: list[TopicPartition]) -> list[Key]:
    return [(offset.topic, offset.partition) for offset in offsets]


def _key(message: Message) -> Key:
    return message.topic() or "", message.partition() or 0
