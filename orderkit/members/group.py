"""One member of a consumer group: its partitions, what they saved, and their records."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, Message, TopicPartition

from orderkit.consuming.partition import Partition
from orderkit.kafka import Connection
from orderkit.members.commits import Committer, Key, saved_with
from orderkit.members.doubts import Doubts
from orderkit.members.lag import Ends
from orderkit.members.logs import Logs, place_of
from orderkit.members.notices import Notices
from orderkit.members.offsets import Offsets, beginning, start_at
from orderkit.members.patience import HASTE, leave_group, manners
from orderkit.members.records import by_partition, key_of, keys_of
from orderkit.members.refused import Refusals
from orderkit.members.stranded import Lookout

log = logging.getLogger("orderkit")

# Seconds. Pausing drops what the client has fetched ahead, and getting it again costs more than a shorter wait.
SHORT_WAIT = 0.2
SUSPECTS = 3  # batches: what a member may have had in hand, beyond its last commit
# The mock lets a group that a member has left wait for the session time-out less a second before the next one may join.
EMBEDDED_SETTINGS = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 300}


class GroupMember:
    """Reads topics as one member of a group.

    Args:
        connection: the cluster.
        group: the group's name.
        topics: what to subscribe to.
        tell: whom to call when something happens to a partition.
        batch: records to fetch at once, at most.
        keep: hold on to records until they are committed, so that they can be undone.
        settings: further librdkafka properties.
    """

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        tell: Notices,
        *,
        batch: int,
        keep: bool = False,
        settings: dict[str, object] | None = None,
    ) -> None:
        self.group = group
        self.parts: dict[Key, Partition] = {}
        self.held: dict[Key, Partition] = {}
        self.commits = Committer(self.parts)
        self.rebalances, self.stopping = 0, False
        self._batch, self._keep = batch, keep
        self._tell = tell
        embedded = connection.is_embedded
        self._logs = Logs(connection, not embedded, self.parts, tell.expired, self._begin)
        self._paused: set[Key] = set()
        self._assigned: set[Key] = set()  # to this client, as far as its callbacks have run
        self._left: set[Key] = set()  # partitions that were let go since the latest record was polled
        for topic in topics:
            connection.partitions(topic)  # a missing topic is said here, not in an endless silence
        self._connection, self._topics = connection, list(topics)
        self._ends, self._beginning = Ends(), beginning(connection)
        self._lookout, self._refusals = Lookout(connection, topics[0]), Refusals(connection, group)
        self.offsets = Offsets(connection, group, self.commits, self._lookout, lambda: self.stopping)
        self._doubts = Doubts(self.offsets, tell.undone)
        self._settings = {**(EMBEDDED_SETTINGS if embedded else {}), **(settings or {})}
        self._manners = manners({**connection.config, **self._settings})
        self.client: Consumer = self._open()

    def _open(self) -> Consumer:
        """Open a client that joins the group."""
        client = self._connection.consumer(
            self.group, on_commit=self.commits.answered, auto_offset_reset="error", enable_partition_eof=True,
            **self._settings,
        )  # fmt: skip
        self.commits.client = client
        client.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        return client

    @property
    def settled(self) -> bool:
        """Whether everything done so far is committed, and nothing is in doubt."""
        return not self._doubts and all(part.is_settled for part in self.parts.values())

    def fetch(self, wait: float) -> list[tuple[Partition, list[Message]]]:
        """Take what is there, at most a batch; wait for the first record only, at most `wait` seconds.

        Raises:
            OrderkitError: a topic is gone, or may not be read.
        """
        moved: list[tuple[Partition, list[Message]]] = [(part, []) for part in self._logs.move_on(self.client)]
        first = self.client.poll(0.0 if moved else wait)
        self._ends.look(self.client, self.parts)
        if first is None:
            self._look_for_brokers()
            return moved
        self._lookout.heard()
        self._left.clear()
        messages = self.client.consume(self._batch - 1, 0)
        if key_of(first) not in self._left:  # else its assignment has ended, and it comes again in the next one
            messages = [first, *messages]
        if any(map(Message.error, messages)):
            for event in filter(Message.error, messages):
                if error := self._logs.hear(event):
                    self._refusals.complain(error)
            messages = [message for message in messages if not message.error()]
        fetched = by_partition(messages, one_topic=len(self._topics) == 1)
        return moved + [(self.parts[key], some) for key, some in fetched.items() if key in self.parts]

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
        self._assigned.update(keys_of(offsets))
        starts: list[TopicPartition] = []
        # Doubts that are left: until the group has let us in again, a commit without an answer may still arrive.
        found = self.offsets.read([*offsets, *self._doubts.places])
        self._doubts.settle(found[len(offsets) :])
        ids, suspects = self._logs.ids(one.topic for one in offsets), SUSPECTS * self._batch
        for offset in found[: len(offsets)]:
            at, saved = max(offset.offset, -1), saved_with(offset, logging.WARNING)
            part = Partition(offset.topic, offset.partition, at, saved, keep=self._keep, suspects=suspects)
            current = self._logs.adopt(part, ids.get(part.topic, ""))
            self.parts[part.key] = current
            self._logs.begin(self.client, current, from_the_end=current is part and self._beginning == OFFSET_END)
            starts.append(place_of(current, self._beginning if current is part else OFFSET_BEGINNING))
        if starts:
            start_at(self.client, starts)
        self._ends.look_soon()

    def _on_revoke(self, client: Consumer, offsets: list[TopicPartition]) -> None:
        self.commits.in_callback = True
        try:
            self._tell.revoked([self.parts[key] for key in keys_of(offsets) if key in self.parts])
        finally:
            self.commits.in_callback = False
        self._on_lost(client, offsets)
        if not self.commits.is_stuck:  # what was sent is answered, and nobody else has the partitions yet
            self._doubts.clear_up()

    def _on_lost(self, _client: Consumer, offsets: list[TopicPartition]) -> None:
        self._assigned.difference_update(keys_of(offsets))
        self.let_go([self.parts[key] for key in keys_of(offsets) if key in self.parts])

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
                if unsure:
                    self._doubts.add(part)
                else:
                    undone.append(part)
        self._tell.lost(parts)
        for part in undone:
            self._tell.undone(part)

    def rewind(self, part: Partition) -> Partition:
        """Take a partition back to its last commit; its records are at hand still."""
        again = part.undone()
        self.parts[part.key] = again
        if self.held.pop(part.key, None):
            self.held[part.key] = again
        self._tell.undone(part)
        return again

    def _begin(self, part: Partition, again: Partition) -> None:
        """Put the partition of another log in the place of one whose log is gone."""
        self.commits.forget(part)
        self._doubts.drop(part.key)
        self.release(part)
        if part.key in self.parts:
            self.parts[part.key] = again
            self._tell.lost([part])
        self._tell.begun(part)

    def lag(self) -> dict[Key, int]:
        """Give the records that each partition is behind, as far as the client has heard."""
        return self._ends.lag(self.parts)

    def close(self, patience: float) -> None:
        """Clear up what is in doubt, or give it up as undone, and leave the group within `patience` seconds."""
        self.stopping = True
        self.let_go(list(self.parts.values()))
        self._doubts.clear_up()
        if self.commits.is_stuck or self._doubts:
            patience = HASTE  # the broker is silent
        self._doubts.give_up()
        self._lookout.finish()
        leave_group(self.client, lambda: not self._assigned, **self._manners, patience=patience)
