"""The commits of a group's member: in the background, or waited for; never two at once."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import METADATA_LIMIT, Saved
from orderkit.members.patience import TICK, call_aside, call_here, is_answered

log = logging.getLogger("orderkit")

COMMIT, LAST_COMMIT = 10.0, 5.0  # seconds for a commit that is waited for: at work, and when leaving
PACE = 0.02  # seconds from one commit in the background to the next: each costs as much as dozens of orders
AGAIN = 0.1  # seconds until a commit that failed is tried again
Key = tuple[str, int]
Commits = dict[Key, tuple[Partition, Checkpoint]]
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
    KafkaError._FATAL,  # this client commits nothing any more; what it polls next says why
}


class Committer:
    """Commits checkpoints.

    Args:
        parts: the partitions that are ours, by topic and number; others are not committed.
    """

    client: Consumer

    def __init__(self, parts: Mapping[Key, Partition]) -> None:
        self.patience = COMMIT
        self.times: deque[float] = deque(maxlen=100)  # seconds that the latest commits took
        self.count = 0
        self._parts = parts
        self._waiting: Commits = {}
        self._sent: Commits = {}  # in the background, and not overtaken by a commit that was waited for
        self._under_way = False  # whether a commit in the background is unanswered
        self._sent_at = self._not_before = 0.0
        self._doubtful: set[Partition] = set()  # a commit of theirs failed or was not answered, and none after it went
        self.in_callback = False  # of the client: while it lasts no other thread's commit is answered
        self._asked: Future[list[TopicPartition] | None] | None = None  # the commit that is, or was, waited for

    def start(self, ready: Iterable[tuple[Partition, Checkpoint]]) -> None:
        """Commit checkpoints in the background, one commit under way at a time; the newest of each partition wins."""
        self._waiting |= {part.key: (part, point) for part, point in ready}
        if time.monotonic() < self.next_due:
            return
        self._sent, self._waiting = {part.key: (part, point) for part, point in fitting(self._waiting.values())}, {}
        if not self._sent:
            return
        self._under_way, self._sent_at = True, time.monotonic()
        self._not_before = self._sent_at + PACE
        try:
            self.client.commit(offsets=to_offsets(self._sent.values()), asynchronous=True)
        except KafkaException as error:
            self.answered(error.args[0], [])

    @property
    def next_due(self) -> float:
        """Give the monotonic time of the next commit in the background; infinity when none can be made now."""
        return self._not_before if self._waiting and not self._under_way and not self.is_stuck else float("inf")

    def answered(self, error: KafkaError | None, offsets: list[TopicPartition]) -> None:
        """Take in the answer to a commit in the background; what failed is tried again, unless newer work waits."""
        sent, self._sent, self._under_way = list(self._sent.values()), {}, False
        for part, point in sent if error else self._take_in(sent, offsets):
            if self._parts.get(part.key) is part:  # else another member has it now
                self._waiting.setdefault(part.key, (part, point))
        if error is None:
            self.note(self._sent_at)
        elif error.code() not in MOVED_ON:
            self._not_before = time.monotonic() + AGAIN
            log.warning("the commit failed and will be tried again: %s", error.str())

    def note(self, since: float) -> None:
        """Count a commit that went through, and the time it took."""
        self.count += 1
        self.times.append(time.monotonic() - since)

    def pending(self, part: Partition) -> Checkpoint | None:
        """Give the newest checkpoint of a partition that waits for a commit, or for its answer."""
        for commits in (self._waiting, self._sent):
            if part.key in commits:
                return commits[part.key][1]
        return None

    def finish(self, deadline: float) -> None:
        """Wait for the answer to the commit under way, in the last turn: two at once could overtake each other."""
        began = time.monotonic()
        while self._under_way and time.monotonic() < min(deadline, began + LAST_COMMIT):
            self.client.poll(TICK)  # a record that comes now is not committed, and so not lost
        self.patience = max(1.0, LAST_COMMIT - (time.monotonic() - began))

    def now(self, ready: Iterable[tuple[Partition, Checkpoint]], timeout: float = COMMIT) -> bool:
        """Commit and wait for the answer; say whether all went through within `timeout` seconds, or our patience.

        A client that has lost its brokers never answers. What such a commit did is known when offsets are read.
        """
        newer = self._waiting | {part.key: (part, point) for part, point in fitting(ready)}
        wanted = self._sent | newer
        # What is overtaken here is never made again, however late its answer is: that would take back the newer one.
        self._sent = {key: commit for key, commit in self._sent.items() if key not in newer}
        self._waiting = {}
        pending = [(part, point) for key, (part, point) in wanted.items() if self._parts.get(key) is part]
        since = time.monotonic()
        deadline = since + min(timeout, self.patience)
        while pending and time.monotonic() < deadline and self._is_free(deadline):
            self._asked = self._commit(to_offsets(pending))
            if not self._is_free(deadline):
                log.warning("the commit is not answered")
                break
            try:
                answers = self._asked.result() or []
            except KafkaException as error:
                log.warning("the commit failed: %s", error.args[0].str())
                if error.args[0].code() in MOVED_ON:
                    break
                time.sleep(AGAIN)  # the loop has ended or the partitions are going: nobody waits for a poll
                continue
            pending = self._take_in(pending, answers)
            self.note(since)
        self._doubtful.update(part for part, _ in pending)
        return not pending

    def _take_in(
        self, sent: list[tuple[Partition, Checkpoint]], answers: list[TopicPartition]
    ) -> list[tuple[Partition, Checkpoint]]:
        """Note what of a commit went through; give what did not."""
        failed = {(answer.topic, answer.partition) for answer in answers if answer.error}
        for part, point in sent:
            if part.key not in failed:
                part.went_through(point)
                self._doubtful.discard(part)
        return [(part, point) for part, point in sent if part.key in failed]

    def _commit(self, offsets: list[TopicPartition]) -> Future[list[TopicPartition] | None]:
        commit = partial(self.client.commit, offsets=offsets, asynchronous=False)
        return call_here(commit) if self.in_callback else call_aside(commit)

    def _is_free(self, deadline: float) -> bool:
        return self._asked is None or is_answered(self._asked, deadline)

    @property
    def is_stuck(self) -> bool:
        """Whether a thread still waits in the client for the answer to a commit."""
        return not self._is_free(0)

    def give_up(self) -> None:
        """Drop every commit under way: its answer will not come. Where it stands is known when offsets are read."""
        self._doubtful.update(part for part, _ in self._sent.values())
        self._sent, self._waiting, self._under_way, self._asked = {}, {}, False, None

    def forget(self, part: Partition) -> bool:
        """Drop what was to be committed of a partition that is somebody else's now.

        Returns:
            Whether a commit that was made of it may still arrive.
        """
        sent, _ = self._sent.get(part.key, (None, None))
        waiting, _ = self._waiting.pop(part.key, (None, None))  # one that failed may have arrived all the same
        doubtful = part in self._doubtful or part in (sent, waiting)
        self._doubtful.discard(part)
        return doubtful


def fitting(ready: Iterable[tuple[Partition, Checkpoint]]) -> list[tuple[Partition, Checkpoint]]:
    """Leave out checkpoints that carry more than a commit may: their offsets stay, and that is said once."""
    fit = []
    for part, point in ready:
        size = len(point.metadata)  # of ASCII: as many bytes, and as many UTF-16 units
        if size <= METADATA_LIMIT:
            fit.append((part, point))
        elif not part.oversized:
            part.oversized = True
            log.warning(
                "%s cannot be committed at %d: what goes with the offset takes %d bytes of %d; it stays at %d",
                part, point.offset, size, METADATA_LIMIT, part.committed,
            )  # fmt: skip
    return fit


def to_offsets(ready: Iterable[tuple[Partition, Checkpoint]]) -> list[TopicPartition]:
    """Give offsets with what is saved beside them, as Kafka takes both."""
    return [TopicPartition(*part.key, point.offset, point.metadata) for part, point in ready]


def saved_with(commit: TopicPartition, level: int = logging.DEBUG) -> Saved | None:
    """Give what was saved with a committed offset.

    Args:
        commit: as the group has it.
        level: of the log line that says why nothing is, if it is not.
    """
    try:
        return Saved.from_text(commit.metadata, commit.offset) if commit.offset >= 0 else None
    except ValueError as why:
        log.log(
            level, "%s[%d] was committed at %d %s; its average starts there",
            commit.topic, commit.partition, commit.offset, why,
        )  # fmt: skip
        return None
