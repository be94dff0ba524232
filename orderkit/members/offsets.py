"""What a group has committed, as a member reads it: an average can only go on from what is known."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.kafka import Connection
from orderkit.members.commits import Committer
from orderkit.members.refused import DENIED, complain
from orderkit.members.stranded import Lookout

log = logging.getLogger("orderkit")

ASK_AGAIN = 0.05  # seconds until offsets that could not be read are asked for again
FROM_THE_END = ("latest", "largest", "end")  # what `auto.offset.reset` calls it
AT_ONCE = 2.0  # seconds for one question, at the most


class Offsets:
    """Reads a group's commits, whatever has become of the client.

    Args:
        connection: the cluster.
        group: the group's name.
        commits: whose thread may wait in the client for an answer that never comes.
        lookout: finds out whether the client has lost all its brokers.
        stopping: whether the member was told to stop: then it does not wait for a broker that is away.
    """

    def __init__(
        self, connection: Connection, group: str, commits: Committer, lookout: Lookout, stopping: Callable[[], bool]
    ) -> None:
        self._connection, self._group = connection, group
        self._commits, self._lookout, self._stopping = commits, lookout, stopping

    def read(self, wanted: list[TopicPartition], patience: float = float("inf")) -> list[TopicPartition]:
        """Read what the group last committed; nothing when the broker does not answer within `patience` seconds.

        Raises:
            OrderkitError: the group may not be read.
        """
        if not wanted:
            return []
        deadline = time.monotonic() + patience
        # A client lets in one thread at a time, and one may wait in it for an answer that never comes.
        client = self._connection.consumer(self._group) if self._commits.is_stuck else self._commits.client
        while not (self._stopping() and patience == float("inf")):
            try:
                return committed(client, wanted, timeout=min(AT_ONCE, patience))
            except KafkaException as error:
                told = error.args[0]
                if told.code() in DENIED:
                    complain(told)
                if time.monotonic() + ASK_AGAIN > deadline:
                    log.warning("the group's offsets cannot be read just now: %s", told.str())
                    break
                if self._lookout.is_stranded(self._commits.client):
                    break  # the member will find the same, and open a new client
                time.sleep(ASK_AGAIN)  # some errors come at once
        return []

    def find(self, sent: Sequence[tuple[Partition, Checkpoint]]) -> bool:
        """Note which commits went through though nobody heard the answer; say whether that is known of all."""
        points = {part.key: (part, point) for part, point in sent}
        found = self.read([TopicPartition(*key) for key in points])
        for offset in found:
            part, point = points[offset.topic, offset.partition]
            if (offset.offset, offset.metadata) == (point.offset, point.metadata):
                part.went_through(point)
        return len(found) == len(points)


def beginning(connection: Connection) -> int:
    """Say where a group without a commit begins; a name for an offset, as the client takes it."""
    return OFFSET_END if connection.config.get("auto.offset.reset") in FROM_THE_END else OFFSET_BEGINNING


def start_at(client: Consumer, starts: list[TopicPartition]) -> None:
    """Fetch from where the averages stand: were the client to ask again, a commit might have come in between."""
    try:
        client.assign(starts)
    except KafkaException as error:
        if error.args[0].code() != KafkaError._STATE:
            raise
        client.incremental_assign(starts)  # the group moves partitions one by one (KIP-429, KIP-848)


def committed(client: Consumer, wanted: list[TopicPartition], timeout: float) -> list[TopicPartition]:
    """Ask what a group has committed. Of a partition with an error nothing is known, least of all that it has nothing.

    Raises:
        KafkaException: the broker does not answer, or not for every partition.
    """
    offsets: list[TopicPartition] = client.committed(wanted, timeout=timeout)
    for offset in offsets:
        if offset.error:
            raise KafkaException(offset.error)
    return offsets
