"""Whose records are whose: what a client gives, by topic and partition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from confluent_kafka import Message, TopicPartition

from orderkit.members.commits import Key


def keys_of(offsets: Iterable[TopicPartition]) -> list[Key]:
    """Give topic and partition of each offset."""
    return [(offset.topic, offset.partition) for offset in offsets]


def key_of(message: Message) -> Key:
    """Give topic and partition of a record."""
    return message.topic() or "", message.partition() or 0


def by_partition(messages: Sequence[Message], *, one_topic: bool) -> dict[Key, list[Message]]:
    """Sort records by partition, each in its order.

    Args:
        messages: as they came.
        one_topic: all of them are of one topic: then telling them apart costs no call of ours.
    """
    found: dict[Key, list[Message]] = {}
    for _, run in groupby(messages, Message.partition if one_topic else key_of):
        some = list(run)
        found.setdefault(key_of(some[0]), []).extend(some)
    return found
