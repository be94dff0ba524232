"""What a crash test leaves behind: what lies in the topics and the group's commits, and what the workers told.

A crash may leave a transaction open, and the broker hides what is behind it: whoever reads waits until it is ended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orderkit.account.state import GroupState, group_state
from orderkit.crash.hidden import check_ends, hidden
from orderkit.dead_letters import DeadLetterRecord, read_dead_letters, read_topic
from orderkit.delivery import TRANSACTION_TIMEOUT
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection

OPEN_AT_MOST = TRANSACTION_TIMEOUT + 15.0  # seconds: the broker ends what a dead consumer left open
Place = tuple[int, int]  # partition and offset


@dataclass(frozen=True)
class Trail:
    """What workers told of themselves.

    Args:
        handled: when (ns), order id, attempt, and whether it succeeded, of each call of a handler.
        acked: partition and offset of each order that the producer knows to be written.
        wounds: numbers of the injuries that came about.
        ahead: at most once: where each record was committed before anybody was done with it, with no later commit that
            carries its fate: its topic, and the partition and offset of its order.
        notes: when (ns), a worker, and where the partitions begin that it was assigned, or what it warns of.
    """

    handled: list[tuple[int, str, int, bool]] = field(default_factory=list)
    acked: set[Place] = field(default_factory=set)
    wounds: list[int] = field(default_factory=list)
    ahead: set[tuple[str, int, int]] = field(default_factory=set)
    notes: list[tuple[int, str, str]] = field(default_factory=list)

    def risk(self, word: str, topic: str, partition: int, offsets: list[int]) -> None:
        """Take in that records are committed `ahead`, or are `safe`."""
        places = {(topic, partition, offset) for offset in offsets}
        if word == "ahead":
            self.ahead.update(places)
        else:
            self.ahead.difference_update(places)


@dataclass(frozen=True)
class Evidence:
    """What lies at the broker when all is over.

    Args:
        records: the orders' topic: key and value by place.
        letters: the dead letters of the group, and those that were read before somebody deleted the topic.
        state: what the group has committed.
        in_flight: records that the group is not done with.
    """

    records: Mapping[Place, tuple[bytes | None, bytes | None]]
    letters: list[DeadLetterRecord]
    state: GroupState
    in_flight: int = 0


def gather(
    connection: Connection, topic: str, dead_letters: str, group: str, before: Iterable[DeadLetterRecord] = ()
) -> Evidence:
    """Read all that there is to read.

    Args:
        connection: the cluster.
        topic: of the orders.
        dead_letters: their topic.
        group: whose commits, and whose dead letters.
        before: dead letters that were read before their topic was deleted.

    Raises:
        EndMissing: the broker has lost the end of a transaction, and hides what is behind it for ever.
        OrderkitError: the broker does not answer.
    """
    records = {
        (message.partition() or 0, message.offset() or 0): (message.key(), message.value())
        for message in read_topic(connection, topic)
    }
    letters = [*before, *read_stable(connection, dead_letters)]
    state = _stable_state(connection, group, topic)
    behind = sum(offset >= state.offsets.get(number, 0) for number, offset in records)
    mine = [letter for letter in letters if letter.story.get("group") == group]
    return Evidence(records, mine, state, behind + len(state.waiting))


def _stable_state(connection: Connection, group: str, topic: str) -> GroupState:
    """Read what the group has committed; while a transaction that a crash left is open, the broker does not tell."""
    deadline = time.monotonic() + OPEN_AT_MOST
    while True:
        try:
            return group_state(connection, group, topic)
        except OrderkitError:
            if time.monotonic() > deadline:
                raise
            check_ends(connection, [])


def read_stable(connection: Connection, topic: str) -> list[DeadLetterRecord]:
    """Read a dead-letter topic when no transaction is open on it: behind one that a crash left, letters are hidden."""
    deadline = time.monotonic() + OPEN_AT_MOST
    while not connection.is_embedded and time.monotonic() < deadline and hidden(connection, [topic]):
        check_ends(connection, [topic])
        time.sleep(0.2)
    return list(read_dead_letters(connection, topic))
