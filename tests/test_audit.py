"""The account: sound runs add up, and every planted fault is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, TopicPartition
from helpers import note_failure, take_orders

from orderkit import EmbeddedBroker, Faults, OrderProducer, RetryingConsumer
from orderkit.account.audit import Origin, account
from orderkit.account.average import RunningAverage
from orderkit.account.report import Report
from orderkit.account.state import GroupState, _committed
from orderkit.account.tally import AVERAGED, DEAD, RETRY, SKIPPED, TAKEN, Tally
from orderkit.errors import OrderkitError
from orderkit.ledger import Ledger
from orderkit.orders.order import Order, random_orders
from orderkit.retry import Poison

T = "orders"
MANY = 60
PARTITIONS = 3
PRICES = {order["orderId"]: order for order in islice(random_orders(3), 10 * MANY)}


def planned(number: int) -> int:
    """Say the fate of an order in the sound run."""
    return DEAD if number % 10 == 4 else SKIPPED if number % 10 == 7 else AVERAGED


@dataclass
class Witnesses:
    """All that an account looks at, put together by hand: a run of 60 orders over 3 partitions."""

    ledger: Ledger
    state: GroupState
    produced: dict[int, Tally]
    letters: list[Origin]

    def report(self) -> Report:
        """Hold them against each other."""
        return account(self.ledger, self.state, T, produced=self.produced, letters=self.letters, seed=3, broker="none")

    def produce(self, partition: int) -> int:
        """Let the broker acknowledge one more record; give its offset."""
        tally = self.produced.setdefault(partition, Tally(0))
        offset = len(tally.cells)
        tally.finish([offset])
        return offset

    def finish(self, partition: int, offset: int, fate: int, order: Order) -> None:
        """Let the consumer finish a record."""
        self.ledger.took(T, partition, [offset])
        if fate == AVERAGED:
            self.ledger.note(1.0, T, partition, [offset], [order])
        else:
            note_failure(self.ledger, T, partition, offset, fate, order)

    def commit(self, **changes: int) -> None:
        """Commit all that was produced, as the ledger has it, with these changes to the counts."""
        averaged = [price for price, fate in zip(self.ledger.price, self.ledger.fate, strict=True) if fate == AVERAGED]
        average = RunningAverage()
        average.add_all(averaged)
        average.count += changes.get("averaged", 0)
        dead = self.ledger.counts[DEAD] + changes.get("dead", 0)
        skipped = self.ledger.counts[SKIPPED] + changes.get("skipped", 0)
        offsets = {number: len(tally.cells) for number, tally in self.produced.items()}
        self.state = GroupState(offsets, average, dead, skipped)


def sound(leave_out: int | None = None) -> Witnesses:
    """Make the witnesses of a sound run; `leave_out` names an order that the consumer never finishes."""
    run = Witnesses(Ledger(), GroupState({}, RunningAverage(), 0, 0), {}, [])
    for number, order in enumerate(islice(random_orders(3), MANY)):
        partition = number % PARTITIONS
        offset = run.produce(partition)
        if number == leave_out:
            run.ledger.took(T, partition, [offset])
            continue
        if number % 6 == 0:
            note_failure(run.ledger, T, partition, offset, RETRY, order)
        run.finish(partition, offset, planned(number), order)
        if planned(number) == DEAD:
            run.letters.append((T, partition, offset))
    run.commit()
    return run


def test_a_sound_run_is_conserved() -> None:
    """60 produced = 48 averaged + 6 dead + 6 skipped, nothing lost, nothing doubled, and the sentence says so."""
    report = sound().report()
    assert (report.produced, report.averaged, report.dead, report.skipped) == (60, 48, 6, 6)
    assert (report.in_flight, report.lost, report.duplicated, report.retries) == (0, 0, 0, 10)
    assert report.conserved
    assert "60 produced = 48 averaged + 6 dead + 6 skipped + 0 in flight" in str(report)
    assert str(report).endswith("every order is accounted for")


def test_the_average_is_the_committed_one() -> None:
    """The report's average is what the group committed, as a decimal string."""
    run = sound()
    assert run.report().average == run.state.average.rounded()
    assert run.report().average.split(".")[1].isdigit()


def test_a_report_is_one_json_object_with_the_keys_of_the_contract() -> None:
    """The keys are those that readers of `--json` rely on, and the object survives JSON."""
    report = sound().report()
    keys = "produced averaged dead skipped in_flight lost duplicated retries average seed broker"
    assert set(keys.split()) <= set(report.as_dict())
    assert json.loads(json.dumps(report.as_dict())) == report.as_dict()


def test_records_beyond_the_commit_are_in_flight() -> None:
    """Records with no fate at or after the committed offset will come again: nothing is lost, and the law holds."""
    run = sound()
    for _ in range(5):
        run.produce(1)
    report = run.report()
    assert (report.in_flight, report.lost, report.duplicated) == (5, 0, 0)
    assert report.conserved


def test_a_waiting_record_holds_its_partition_s_commit() -> None:
    """A record that was taken, and is not done with, is in flight while the commit stands at it."""
    last = MANY - 1
    run = sound(leave_out=last)
    partition, offset = last % PARTITIONS, last // PARTITIONS
    run.state = replace(run.state, offsets={**run.state.offsets, partition: offset})
    report = run.report()
    assert (report.in_flight, report.lost, report.produced) == (1, 0, MANY)
    assert report.conserved


def test_a_partition_without_a_commit_is_in_flight() -> None:
    """Where nothing was committed, nothing can be lost."""
    run = sound()
    assert [run.produce(7) for _ in range(3)] == [0, 1, 2]
    report = run.report()
    assert (report.in_flight, report.lost) == (3, 0)
    assert report.conserved


# --- planted faults


def first_of(fate: int) -> tuple[int, int, Order]:
    """Find the first order with this fate: its partition, offset, and itself."""
    number = next(number for number in range(MANY) if planned(number) == fate)
    return number % PARTITIONS, number // PARTITIONS, PRICES[str(number + 1)]


def caught(run: Witnesses) -> Report:
    """Report on a run in which something is wrong; the verdict must say so."""
    report = run.report()
    assert not report.conserved
    assert str(report).endswith("THE LAW IS BROKEN")
    return report


@pytest.mark.parametrize("number", [0, 4, 7, 31, MANY - 1])
def test_a_record_that_was_passed_over_is_lost(number: int) -> None:
    """A record without a fate behind the committed offset is lost, wherever it was."""
    assert caught(sound(leave_out=number)).lost == 1


def test_a_record_that_was_never_fetched_is_lost() -> None:
    """A record that the consumer did not even take, and committed past, is lost."""
    run = sound()
    run.produce(1)
    run.commit()
    assert caught(run).lost == 1


def test_a_whole_partition_that_was_passed_over_is_lost() -> None:
    """Records of a partition that the ledger has never heard of are lost when the commit is past them."""
    run = sound()
    for _ in range(4):
        run.produce(9)
    run.commit()
    assert caught(run).lost == 4


@pytest.mark.parametrize("committed_twice", [False, True])
@pytest.mark.parametrize("fate", [AVERAGED, SKIPPED])
def test_a_record_finished_twice_is_a_double(fate: int, *, committed_twice: bool) -> None:
    """A second fate of one record is a double, whether or not the commit has counted it twice as well."""
    run = sound()
    run.finish(*first_of(fate)[:2], fate, first_of(fate)[2])
    if committed_twice:
        run.commit()
    assert caught(run).duplicated == 1


def test_a_record_with_two_fates_is_a_double() -> None:
    """A record that was averaged and dead-lettered is a double."""
    run = sound()
    partition, offset, order = first_of(DEAD)
    run.finish(partition, offset, AVERAGED, order)
    run.commit()
    assert caught(run).duplicated == 1


def test_an_order_written_twice_is_a_double() -> None:
    """One order id under two offsets is a double, although every record has one fate."""
    run = sound()
    _, _, order = first_of(AVERAGED)
    run.finish(2, run.produce(2), AVERAGED, order)
    run.commit()
    report = caught(run)
    assert (report.duplicated, report.lost) == (1, 0)


def test_a_replayed_order_counts_once_and_a_second_replay_is_a_double() -> None:
    """An order that died and came back from the dead-letter topic may be averaged once; twice is a double."""
    run = sound()
    _, _, order = first_of(DEAD)
    run.finish(2, run.produce(2), AVERAGED, order)
    run.commit()
    assert run.report().conserved
    run.finish(2, run.produce(2), AVERAGED, order)
    run.commit()
    assert caught(run).duplicated == 1


def test_undecodable_records_share_no_id() -> None:
    """Records whose order is not known are no doubles of each other."""
    run = sound()
    for _ in range(3):
        offset = run.produce(0)
        run.ledger.took(T, 0, [offset])
        note_failure(run.ledger, T, 0, offset, DEAD, Poison("x"), reason="poison")
        run.letters.append((T, 0, offset))
    run.commit()
    assert run.report().conserved


def test_a_missing_dead_letter_is_a_loss() -> None:
    """A record that the ledger calls dead, and the dead-letter topic does not have, is lost."""
    run = sound()
    run.letters.pop(2)
    report = caught(run)
    assert (report.lost, report.duplicated) == (1, 0)


def test_a_dead_letter_written_twice_is_a_double() -> None:
    """Two dead letters of one record are a double."""
    run = sound()
    run.letters.append(run.letters[0])
    report = caught(run)
    assert (report.lost, report.duplicated) == (0, 1)


def test_a_dead_letter_of_another_record_replaces_none() -> None:
    """A missing dead letter is a loss even when another record's stands in its place."""
    run = sound()
    partition, offset, _ = first_of(AVERAGED)
    run.letters[0] = (T, partition, offset)
    assert caught(run).lost == 1


def test_dead_letters_of_another_topic_do_not_count() -> None:
    """Letters that came from another topic neither fill a gap nor double anything."""
    run = sound()
    run.letters += [("other", 0, 0), ("other", 0, 0)]
    assert run.report().conserved
    run.letters.pop(0)
    assert caught(run).lost == 1


@pytest.mark.parametrize("what", ["averaged", "dead", "skipped"])
def test_a_commit_that_counts_one_too_few_is_a_loss(what: str) -> None:
    """A count in the commit below the ledger's means that something finished was not saved."""
    run = sound()
    run.commit(**{what: -1})
    report = caught(run)
    assert (report.lost, report.duplicated) == (1, 0)


@pytest.mark.parametrize("what", ["averaged", "dead", "skipped"])
def test_a_commit_that_counts_one_too_many_is_a_double(what: str) -> None:
    """A count in the commit above the ledger's means that something was saved twice."""
    run = sound()
    run.commit(**{what: 1})
    report = caught(run)
    assert (report.lost, report.duplicated) == (0, 1)


def test_a_fate_of_a_record_that_nobody_wrote_is_found() -> None:
    """A finished record that the producer knows nothing of breaks the law."""
    run = sound()
    offset = run.state.offsets[0]
    run.finish(0, offset, AVERAGED, PRICES[str(MANY + 1)])
    averaged = run.ledger.counts[AVERAGED]
    run.state = replace(run.state, average=RunningAverage(averaged, run.state.average.total))
    assert run.report().averaged == averaged
    caught(run)


def test_two_faults_do_not_cancel_out() -> None:
    """One record lost and another finished twice still break the law, and both are named."""
    run = sound(leave_out=0)
    partition, offset, order = 1, 0, PRICES["2"]
    run.finish(partition, offset, AVERAGED, order)
    run.commit()
    report = caught(run)
    assert (report.lost, report.duplicated) == (1, 1)


# --- with fewer witnesses


def test_without_a_producer_what_was_fetched_counts_as_produced() -> None:
    """A consumer alone accounts for the records it took."""
    run = sound()
    report = account(run.ledger, run.state, T)
    assert (report.produced, report.in_flight) == (MANY, 0)
    assert report.conserved


def test_without_a_producer_a_record_passed_over_is_lost_all_the_same() -> None:
    """Taken, not finished, and behind the commit: lost, with or without the producer's word."""
    run = sound(leave_out=31)
    report = account(run.ledger, run.state, T)
    assert report.lost == 1
    assert not report.conserved


def test_without_a_producer_a_group_may_have_a_past() -> None:
    """A group that has committed more in earlier runs than this ledger saw is no double."""
    run = sound()
    past = RunningAverage(1000, 0)
    report = account(run.ledger, replace(run.state, average=run.state.average.merge(past)), T)
    assert report.conserved


def test_other_topics_in_the_ledger_are_left_out() -> None:
    """Records of a retry topic, say, are not counted as produced orders."""
    run = sound()
    run.ledger.took("orders-retry", 0, [0, 1, 2])
    assert account(run.ledger, run.state, T).produced == MANY


PLANTS: dict[str, Callable[[Report], Report]] = {
    "lost": lambda report: replace(report, lost=1),
    "duplicated": lambda report: replace(report, duplicated=1),
    "produced": lambda report: replace(report, produced=report.produced + 1),
    "averaged": lambda report: replace(report, averaged=report.averaged - 1),
    "in flight": lambda report: replace(report, in_flight=1),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_every_number_weighs_in_the_verdict(plant: Callable[[Report], Report]) -> None:
    """A report is conserved only if its numbers add up and nothing is lost or doubled."""
    assert not plant(sound().report()).conserved


class Reader:
    """Answers for commits: first with an error for one partition, then without.

    Args:
        error: its code.
    """

    def __init__(self, error: int) -> None:
        self._errors = [KafkaError(error)]

    def committed(self, wanted: list[TopicPartition], timeout: float) -> list[Any]:  # noqa: ARG002  as the client's
        """Answer as a client does: an offset with an error is not raised."""
        if not self._errors:
            return wanted
        error = self._errors.pop()
        first, *rest = wanted
        return [SimpleNamespace(partition=first.partition, offset=OFFSET_INVALID, error=error), *rest]


def test_a_commit_that_cannot_be_read_is_not_taken_for_none() -> None:
    """A partition with an error is asked for again while the broker settles, and is an error otherwise."""
    wanted = [TopicPartition(T, 0, 7), TopicPartition(T, 1, 9)]
    settling: Any = Reader(KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    assert _committed(settling, wanted) == wanted
    denied: Any = Reader(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(OrderkitError, match="cannot be read"):
        _committed(denied, wanted)


def test_what_was_taken_and_given_back_is_in_flight() -> None:
    """Orders whose dead letters are refused were taken and have no fate: when the consumer leaves they are in flight.

    Those that another member has done with meanwhile are its own: nothing is lost then, and nothing counted twice.
    """
    with EmbeddedBroker() as broker:
        OrderProducer(broker.connection).run(take_orders(40))
        broker.refuse("orders-dlq")
        first = RetryingConsumer(broker.connection, Faults(7, permanent_rate=0.5).strike)
        taken = first.ledger.tallies
        first.run(
            until=lambda: sum(len(it.offsets(TAKEN)) for it in taken.values()) == 40 and bool(first.letters.refused)
        )
        report = account(first.ledger, first.state(), T)
        assert (report.produced, report.averaged + report.in_flight, report.dead) == (40, 40, 0)
        assert report.conserved
        broker.accept("orders-dlq")
        RetryingConsumer(broker.connection).run(orders=40 - report.averaged)
        after = account(first.ledger, first.state(), T)
        assert (after.produced, after.counted, after.count) == (report.averaged, "taken", 40)
        assert after.conserved
