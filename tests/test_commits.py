"""A group's commits never go back, however those in the background and those that are waited for meet."""

from __future__ import annotations

from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.members.commits import Committer

UNHEARD = KafkaError(KafkaError._TRANSPORT)


class Group:
    """Takes commits as a broker does: whatever comes last is what stands. Those in the background are not answered."""

    def __init__(self) -> None:
        self.stands: dict[int, int] = {}

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> list[TopicPartition] | None:
        self.stands |= {each.partition: each.offset for each in offsets}
        return None if asynchronous else offsets


def open_committer() -> tuple[Committer, Group, list[Partition]]:
    """Give the commits of a member with two partitions, and who takes them."""
    parts = [Partition("orders", number) for number in (0, 1)]
    commits, group = Committer({part.key: part for part in parts}), Group()
    commits.client = cast(Consumer, group)
    return commits, group, parts


@pytest.mark.parametrize("error", [None, UNHEARD], ids=["answered", "failed"])
def test_what_was_waited_for_is_not_taken_back(error: KafkaError | None) -> None:
    """A commit in the background whose answer is late is not made again where a newer one has gone through."""
    commits, group, (first, second) = open_committer()
    commits.start([(first, Checkpoint(0)), (second, Checkpoint(0))])
    assert commits.now([(second, Checkpoint(1000))])
    assert commits.now([(first, Checkpoint(999))])
    assert group.stands == {0: 999, 1: 1000}
    commits.answered(error, [])
    assert commits.next_due == float("inf")  # nothing is tried again
    assert (first.committed, second.committed) == (999, 1000)


def test_what_nobody_waited_for_is_tried_again() -> None:
    """A commit in the background that failed is made again for those partitions that have no newer one."""
    commits, group, (first, second) = open_committer()
    commits.start([(first, Checkpoint(5))])
    commits.answered(UNHEARD, [])
    assert commits.next_due < float("inf")
    assert commits.now([(second, Checkpoint(7))])
    assert group.stands == {0: 5, 1: 7}
    assert commits.next_due == float("inf")


def test_one_commit_at_a_time_is_under_way_in_the_background() -> None:
    """The next is made when the last is answered, though one that was waited for has gone past it meanwhile."""
    commits, group, (first, second) = open_committer()
    commits.start([(first, Checkpoint(1))])
    assert commits.now([(first, Checkpoint(2))])
    commits.start([(second, Checkpoint(3))])
    assert group.stands == {0: 2}
    assert commits.next_due == float("inf")
    commits.answered(None, [])
    assert commits.next_due < float("inf")
