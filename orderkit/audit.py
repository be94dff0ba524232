"""Does every order add up? The ledger, the topics and the commits held against each other.

Three witnesses that do not know each other: the producer's delivery reports say which records exist, the ledger says
what the consumer did with each, and the broker says what was committed and what lies in the dead-letter topic. A lost
or a doubled order makes two of them disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from confluent_kafka import TopicPartition

from orderkit.average import RunningAverage
from orderkit.dead_letters import read_dead_letters
from orderkit.kafka import Connection
from orderkit.ledger import AVERAGED, DEAD, FINISHED, RETRY, SKIPPED, TAKEN, UNDONE, Ledger, Tally
from orderkit.progress import Saved

Origin = tuple[str, int, int]


@dataclass(frozen=True)
class GroupState:
    """What a group has committed for one topic.

    Args:
        offsets: per partition, the committed offset; partitions without a commit are missing.
        average: merged over the partitions.
        dead, skipped: summed over the partitions.
    """

    offsets: Mapping[int, int]
    average: RunningAverage
    dead: int
    skipped: int


def group_state(connection: Connection, group: str, topic: str) -> GroupState:
    """Read a group's offsets and running average from its commits, without joining it.

    Raises:
        OrderkitError: the broker does not answer, or the topic does not exist.
    """
    wanted = [TopicPartition(topic, number) for number in connection.partitions(topic)]
    reader = connection.consumer(group)
    try:
        commits = [commit for commit in reader.committed(wanted, timeout=10) if commit.offset >= 0]
    finally:
        reader.close()
    saved = [Saved.from_text(commit.metadata) or Saved() for commit in commits]
    average = RunningAverage()
    for one in saved:
        average = average.merge(one.average)
    offsets = {commit.partition: commit.offset for commit in commits}
    return GroupState(offsets, average, sum(one.dead for one in saved), sum(one.skipped for one in saved))


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
    finished = {number: set(tally.offsets(FINISHED)) for number, tally in tallies.items()}
    lost = in_flight = 0
    for number, offsets in exist.items():
        open_ones = [offset for offset in offsets if offset not in finished.get(number, ())]
        passed = sum(offset < state.offsets.get(number, 0) for offset in open_ones)
        lost += passed
        in_flight += len(open_ones) - passed
    doubled = sum(tally.doubled() for tally in tallies.values())
    if produced is not None:
        doubled += _doubled_ids(ledger)
        for counted, saved in (
            (ledger.counts[AVERAGED], state.average.count),
            (ledger.counts[DEAD], state.dead),
            (ledger.counts[SKIPPED], state.skipped),
        ):
            lost += max(0, counted - saved)
            doubled += max(0, saved - counted)
    if letters is not None:
        dead = {(topic, number, offset) for number, tally in tallies.items() for offset in tally.with_fate(DEAD)}
        seen = [origin for origin in letters if origin[0] == topic]
        once = {(topic, number, offset) for number, tally in tallies.items() for offset in tally.once()}
        lost += len(dead - set(seen))
        doubled += len(seen) - len(set(seen)) + len((set(seen) & once) - dead)
    return Report(
        produced=sum(map(len, exist.values())),
        averaged=ledger.counts[AVERAGED],
        dead=ledger.counts[DEAD],
        skipped=ledger.counts[SKIPPED],
        in_flight=in_flight,
        lost=lost,
        duplicated=doubled,
        retries=ledger.counts[RETRY],
        average=state.average.rounded(),
        seed=seed,
        broker=broker,
    )


def _doubled_ids(ledger: Ledger) -> int:
    """Count orders written twice: one id, two offsets. Possible while the ledger remembers all events."""
    if not ledger.complete:
        return 0
    where: dict[str, set[tuple[int, int]]] = {}
    rows = zip(ledger.order_id, ledger.partition, ledger.offset, ledger.fate, strict=True)
    for order_id, partition, offset, fate in rows:
        if fate not in (RETRY, UNDONE) and order_id is not None:
            where.setdefault(order_id, set()).add((partition, offset))
    return sum(len(places) - 1 for places in where.values())


def dead_letter_origins(connection: Connection, topic: str, group: str) -> list[Origin]:
    """Read the dead-letter topic back and say where each letter of `group` came from."""
    return [letter.origin for letter in read_dead_letters(connection, topic) if letter.story.get("group") == group]
