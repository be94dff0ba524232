"""What a group has committed, read from outside: without joining it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from orderkit.account.average import RunningAverage
from orderkit.consuming.saved import Saved
from orderkit.dead_letters import read_topic
from orderkit.engines.topics import Retried
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection, is_mock
from orderkit.kafka.asking import ask, is_deciding
from orderkit.members.commits import saved_with
from orderkit.members.logs import is_another, topic_ids
from orderkit.members.offsets import committed

log = logging.getLogger("orderkit")


@dataclass(frozen=True)
class GroupState:
    """What a group has committed for one topic, and for its retry topics.

    Args:
        offsets: per partition of the topic, the committed offset; partitions without a commit are missing.
        average: merged over all partitions.
        dead, skipped: summed over all partitions.
        waiting: partition and offset of the orders that wait in a retry topic.
        lost: what crashes have cost the group in `at-most-once`, at most: committed, and nobody was done with it.
        ahead: committed like that by members that are at work still, or have died since.
    """

    offsets: Mapping[int, int]
    average: RunningAverage
    dead: int
    skipped: int
    waiting: frozenset[tuple[int, int]] = frozenset()
    lost: int = 0
    ahead: int = 0


def _committed(reader: Consumer, wanted: list[TopicPartition], patience: float = 10.0) -> list[TopicPartition]:
    """Read commits; a broker that is just taking the group over is asked again."""
    try:
        return ask(lambda: committed(reader, wanted, timeout=patience), patience, is_deciding)
    except KafkaException as error:
        told = error.args[0].str()
        raise OrderkitError(
            f"The group's offsets cannot be read: {told}. Try again; if it stays so, a transaction that nobody ends "
            "may hide them, and Kafka's `kafka-transactions.sh find-hanging` names it."
        ) from None


def group_state(connection: Connection, group: str, topic: str) -> GroupState:
    """Read a group's offsets and running average from its commits, without joining it.

    Raises:
        OrderkitError: the broker does not answer, or the topic does not exist.
    """
    cluster = connection.metadata()
    there = cluster.topics
    if topic not in there:
        connection.partitions(topic)  # says so
    retry_topics = [name for name in there if name.startswith(f"{topic}.{group}.retry.")]
    wanted = [TopicPartition(name, number) for name in [topic, *retry_topics] for number in there[name].partitions]
    reader = connection.consumer(group)
    try:
        commits = [commit for commit in _committed(reader, wanted) if commit.offset >= 0]
    finally:
        reader.close()
    offsets: dict[str, dict[int, int]] = {name: {} for name in [topic, *retry_topics]}
    saved = []
    ids = {} if is_mock(cluster) else topic_ids(connection, offsets)
    for commit in commits:
        one = saved_with(commit) or Saved()
        if is_another(ids.get(commit.topic, ""), one.log):
            told = "%s[%d]: the commit is of an older topic of that name, with an average of %s over %d orders"
            log.warning(told, commit.topic, commit.partition, one.average.rounded(), one.average.count)
        else:
            saved.append(one)
            offsets[commit.topic][commit.partition] = commit.offset
    average = RunningAverage()
    for one in saved:
        average = average.merge(one.average)
    waiting = frozenset(
        (record.partition() or 0, record.offset() or 0)
        for name in retry_topics
        for record in map(Retried, read_topic(connection, name, since=offsets[name]))
    )
    dead, skipped = sum(one.dead for one in saved), sum(one.skipped for one in saved)
    lost, ahead = sum(one.lost for one in saved), sum(one.ahead for one in saved)
    return GroupState(offsets[topic], average, dead, skipped, waiting, lost, ahead)
