"""Does every order add up? The ledger, the topics and the commits held against each other.

Three witnesses that do not know each other: the producer's delivery reports say which records exist, the ledger says
what the consumer did with each, and the broker says what was committed and what lies in the dead-letter topic. A lost
or a doubled order makes two of them disagree.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from orderkit.account.average import RunningAverage
from orderkit.account.tally import AVERAGED, DEAD, FINISHED, RETRY, SKIPPED, TAKEN, Tally
from orderkit.consuming.saved import Saved
from orderkit.dead_letters import read_dead_letters, read_topic
from orderkit.engines.topics import Retried
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.ledger import Ledger
from orderkit.members.commits import saved_with
from orderkit.members.offsets import committed
from orderkit.show.markup import report_html

Place = tuple[int, int]  # partition and offset
Origin = tuple[str, int, int]  # topic, partition and offset
SETTLING = {  # a broker is just taking the group over
    KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}  # fmt: skip


@dataclass(frozen=True)
class GroupState:
    """What a group has committed for one topic, and for its retry topics.

    Args:
        offsets: per partition of the topic, the committed offset; partitions without a commit are missing.
        average: merged over all partitions.
        dead, skipped: summed over all partitions.
        waiting: partition and offset of the orders that wait in a retry topic.
    """

    offsets: Mapping[int, int]
    average: RunningAverage
    dead: int
    skipped: int
    waiting: frozenset[tuple[int, int]] = frozenset()


def _committed(reader: Consumer, wanted: list[TopicPartition], patience: float = 10.0) -> list[TopicPartition]:
    """Read commits; a broker that is just taking the group over is asked again."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return committed(reader, wanted, timeout=patience)
        except KafkaException as error:
            if error.args[0].code() not in SETTLING or time.monotonic() > deadline:
                told = error.args[0].str()
                raise OrderkitError(f"The group's offsets cannot be read: {told}. Try again.") from None
            time.sleep(0.1)


def group_state(connection: Connection, group: str, topic: str) -> GroupState:
    """Read a group's offsets and running average from its commits, without joining it.

    Raises:
        OrderkitError: the broker does not answer, or the topic does not exist.
    """
    there = connection.metadata().topics
    if topic not in there:
        connection.partitions(topic)  # says so
    retry_topics = [name for name in there if name.startswith(f"{topic}.{group}.retry.")]
    wanted = [TopicPartition(name, number) for name in [topic, *retry_topics] for number in there[name].partitions]
    reader = connection.consumer(group)
    try:
        commits = [commit for commit in _committed(reader, wanted) if commit.offset >= 0]
    finally:
        reader.close()
    saved = [saved_with(commit) or Saved() for commit in commits]
    average = RunningAverage()
    for one in saved:
        average = average.merge(one.average)
    offsets: dict[str, dict[int, int]] = {name: {} for name in [topic, *retry_topics]}
    for commit in commits:
        offsets[commit.topic][commit.partition] = commit.offset
    waiting = frozenset(
        (record.partition() or 0, record.offset() or 0)
        for name in retry_topics
        for record in map(Retried, read_topic(connection, name, since=offsets[name]))
    )
    dead, skipped = sum(one.dead for one in saved), sum(one.skipped for one in saved)
    return GroupState(offsets[topic], average, dead, skipped, waiting)


@dataclass(frozen=True)
class Report:
    """The account of a run: produced = averaged + dead + skipped + in flight, or something is wrong.

    Args:
        produced: orders that the broker acknowledged (or, without a producer in the run, that were fetched).
        averaged, dead, skipped: orders with that fate.
        in_flight: orders with no fate yet, that will be delivered again.
        lost: orders with no fate that will not be delivered again, or whose dead letter is missing.
        duplicated: fates beyond an order's first.
        retries: failed delivery attempts that were followed by another.
        average: the group's running average, as a decimal string.
        seed: decides orders and fates.
        broker: what kind of broker it was.
    """

    produced: int
    averaged: int
    dead: int
    skipped: int
    in_flight: int
    lost: int
    duplicated: int
    retries: int
    average: str
    seed: int
    broker: str

    @property
    def conserved(self) -> bool:
        """Whether every order is accounted for, once."""
        accounted = self.averaged + self.dead + self.skipped + self.in_flight
        return not self.lost and not self.duplicated and self.produced == accounted

    def as_dict(self) -> dict[str, object]:
        """Give the report as it goes into JSON."""
        return asdict(self)

    def __str__(self) -> str:
        sums = f"{self.produced} produced = {self.averaged} averaged + {self.dead} dead + {self.skipped} skipped"
        verdict = "every order is accounted for" if self.conserved else "THE LAW IS BROKEN"
        return (
            f"{sums} + {self.in_flight} in flight; {self.retries} retries; "
            f"lost {self.lost}, duplicated {self.duplicated}; average {self.average}: {verdict}"
        )

    def _repr_html_(self) -> str:
        return report_html(self)


def account(
    ledger: Ledger,
    state: GroupState,
    topic: str,
    *,
    produced: Mapping[int, Tally] | None = None,
    letters: Iterable[Origin] | None = None,
    seed: int = 0,
    broker: str = "",
) -> Report:
    """Hold the witnesses against each other.

    Args:
        ledger: what the consumer did.
        state: what the broker has committed for its group.
        topic: the topic of the orders.
        produced: the producer's tallies by partition; without them, what was fetched counts as produced.
        letters: the origins of the records in the dead-letter topic; without them its acknowledgements are believed.
        seed: for the report.
        broker: for the report.
    """
    tallies = {partition: tally for (name, partition), tally in ledger.tallies.items() if name == topic}
    exist = {number: tally.offsets(TAKEN) for number, tally in (produced or tallies).items()}
    passed, in_flight = _without_fate(exist, tallies, state)
    doubled = sum(tally.doubled() for tally in tallies.values())
    unsaved, strange = _against_commits(ledger, state) if produced is not None else (0, 0)
    missing, surplus = _against_letters(tallies, topic, letters) if letters is not None else (0, 0)
    return Report(
        produced=sum(map(len, exist.values())),
        averaged=ledger.counts[AVERAGED],
        dead=ledger.counts[DEAD],
        skipped=ledger.counts[SKIPPED],
        in_flight=in_flight,
        lost=passed + unsaved + missing,
        duplicated=doubled + strange + surplus,
        retries=ledger.counts[RETRY],
        average=state.average.rounded(),
        seed=seed,
        broker=broker,
    )


def _without_fate(
    exist: Mapping[int, Sequence[int]], tallies: Mapping[int, Tally], state: GroupState
) -> tuple[int, int]:
    """Count the orders without a fate: those that the group's commit has passed, and those that will be delivered."""
    passed = coming = 0
    for number, offsets in exist.items():
        finished = set(tallies[number].offsets(FINISHED)) if number in tallies else set()
        for offset in offsets:
            if offset not in finished:
                if offset < state.offsets.get(number, 0) and (number, offset) not in state.waiting:
                    passed += 1
                else:
                    coming += 1
    return passed, coming


def _against_commits(ledger: Ledger, state: GroupState) -> tuple[int, int]:
    """Hold the ledger's fates against what is committed: those that are not in it, and those too many."""
    counted = [ledger.counts[fate] for fate in (AVERAGED, DEAD, SKIPPED)]
    saved = [state.average.count, state.dead, state.skipped]
    missing = sum(max(0, ours - theirs) for ours, theirs in zip(counted, saved, strict=True))
    surplus = sum(max(0, theirs - ours) for ours, theirs in zip(counted, saved, strict=True))
    return missing, surplus + _doubled_ids(ledger)


def _against_letters(tallies: Mapping[int, Tally], topic: str, origins: Iterable[Origin]) -> tuple[int, int]:
    """Hold the ledger's dead against the dead-letter topic: those that are missing, and those too many."""
    letters = [(number, offset) for name, number, offset in origins if name == topic]
    dead = {(number, offset) for number, tally in tallies.items() for offset in tally.with_fate(DEAD)}
    once = {(number, offset) for number, tally in tallies.items() for offset in tally.once()}
    there = set(letters)
    return len(dead - there), len(letters) - len(there) + len((there & once) - dead)


def _doubled_ids(ledger: Ledger) -> int:
    """Count orders that got through twice: one id, two offsets. Possible while the ledger remembers all events.

    A dead letter that was replayed has two offsets, too: it died at the first one, and may get through at the other.
    """
    if not ledger.complete:
        return 0
    where: dict[str, set[tuple[int, int]]] = {}
    rows = zip(ledger.order_id, ledger.partition, ledger.offset, ledger.fate, strict=True)
    for order_id, partition, offset, fate in rows:
        if fate in (AVERAGED, SKIPPED) and order_id is not None:
            where.setdefault(order_id, set()).add((partition, offset))
    return sum(len(places) - 1 for places in where.values())


def dead_letter_origins(connection: Connection, topic: str, group: str) -> list[Origin]:
    """Read the dead-letter topic back and say where each letter of `group` came from."""
    return [letter.origin for letter in read_dead_letters(connection, topic) if letter.story.get("group") == group]
