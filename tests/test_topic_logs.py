"""Logs that are not what they were: cut, made anew, or full of what is no order; the average is never of two logs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]
from helpers import Background, Kit, Record, average_of, take_orders, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st

from orderkit.account.audit import account
from orderkit.account.average import RunningAverage
from orderkit.account.report import Report
from orderkit.account.tally import AVERAGED, FINISHED, TAKEN, Tally
from orderkit.brokers import ApacheBroker
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import Saved
from orderkit.kafka import Connection
from orderkit.ledger import Ledger
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order

STEADY = settings(derandomize=True, deadline=None, max_examples=200)
ENCODE = Codec().encode
COOPERATIVE = {"partition.assignment.strategy": "cooperative-sticky"}


class Cut(Kit):
    """A kit whose log may be cut, and made anew."""

    def cut(self, low: int) -> None:
        """Delete the records before `low`, as retention does."""
        admin = self.connection.admin()
        for done in admin.delete_records([TopicPartition(self.topic, 0, low)]).values():
            done.result()
        wait_for(lambda: self.connection.watermarks(self.topic)[0][0] == low)

    def make_anew(self, orders: Sequence[Order] = ()) -> None:
        """Delete the topic, create it again, and write orders."""
        self.connection.delete_topics([self.topic])
        self.connection.create_topics({self.topic: self.partitions})
        self.send_orders(orders)

    def add_partitions(self, many: int) -> None:
        """Give the topic so many partitions."""
        admin = self.connection.admin()
        for done in admin.create_partitions([NewPartitions(self.topic, many)]).values():
            done.result()
        wait_for(lambda: len(self.connection.partitions(self.topic)) == many)
        self.partitions = many

    def commit(self, offset: int, saved: Saved | None = None) -> None:
        """Commit for the group, which nobody is in; without anything saved, as a tool does."""
        client = self.connection.consumer(self.group)
        place = TopicPartition(self.topic, 0, offset, saved.to_text(offset) if saved else "")
        client.commit(offsets=[place], asynchronous=False)
        client.close()

    def report(self, done: Callable[[], object] | None = None) -> Report:
        """Consume until all that is in the log is committed, or longer; give the account of it."""
        consumer = self.consumer(ledger=Ledger())
        with Background(consumer):
            wait_for(done or (lambda: consumer.settled and self.left() == 0))
        return account(consumer.ledger, self.state(), self.topic)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Give the lines that were said about logs."""
    return [line for line in caplog.messages if re.search("expired unread|another one|anew|older topic", line)]


@pytest.mark.kafka
def test_a_commit_beyond_the_end_starts_a_fresh_average(apache: ApacheBroker, caplog: pytest.LogCaptureFixture) -> None:
    """A log that ends before the group's commit is another one: its orders are averaged alone, and one line says so."""
    kit, orders = Cut(broker=apache), take_orders(40)
    kit.send_orders(orders)
    assert kit.report().conserved
    kit.commit(500, replace(kit.saved() or Saved(), at_work=0))
    report = kit.report()
    assert (report.produced, report.averaged, report.expired, report.conserved) == (40, 40, 0, True)
    assert kit.state().average == average_of(orders)
    (line,) = warnings_of(caplog)
    assert "goes from 0 to 40, and is another one" in line
    assert "over 40 orders" in line


@pytest.mark.kafka
@pytest.mark.parametrize("low", [100, 101, 150, 199, 200])
def test_records_that_expired_unread_are_counted(
    low: int, apache: ApacheBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """What went out of the log before anybody read it is a number of its own, and never "accounted for"."""
    kit, orders = Cut(broker=apache), take_orders(200)
    kit.send_orders(orders[:100])
    assert kit.report().conserved
    kit.send_orders(orders[100:])
    kit.cut(low)
    report = kit.report()
    gone = low - 100
    assert (report.expired, report.averaged, report.produced) == (gone, 200 - low, 100)
    assert report.conserved == (not gone)
    assert kit.state().average == average_of(orders[:100] + orders[low:])
    assert kit.offsets() == {0: 200}
    assert len(warnings_of(caplog)) == bool(gone)
    if gone:
        assert str(report).endswith(f": {gone} expired unread")
        assert report.as_dict()["expired"] == gone
    assert kit.report().expired == 0  # it is said once


@pytest.mark.kafka
@pytest.mark.parametrize("config", [{}, COOPERATIVE], ids=["eager", "cooperative"])
def test_what_expires_in_many_partitions_at_once_is_counted(
    config: dict[str, str], apache: ApacheBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """A group that has begun misses what expires in any partition, also in one of which it has read nothing yet."""
    kit, orders = Cut(4, broker=apache), take_orders(200)
    kit.connection = Connection(kit.connection.bootstrap, config)
    consumer = kit.consumer()
    with Background(consumer):
        wait_for(lambda: kit.offsets() == dict.fromkeys(range(4), 0))
    kit.send_orders(orders)
    admin = kit.connection.admin()
    for done in admin.delete_records([TopicPartition(kit.topic, number, 45) for number in range(4)]).values():
        done.result()
    report = kit.report()
    assert (report.averaged, report.expired, report.produced) == (20, 180, 200)
    assert kit.state().average == average_of(orders[180:])
    assert len(warnings_of(caplog)) == 4


@pytest.mark.kafka
def test_partitions_that_are_added_are_read_from_their_beginning(apache: ApacheBroker) -> None:
    """A consumer at work finds partitions that a topic is given, and accounts for all that is in them."""
    kit, orders = Cut(broker=apache), take_orders(40)
    kit.connection = Connection(kit.connection.bootstrap, {"topic.metadata.refresh.interval.ms": "500"})
    kit.send_orders(orders[:10])
    consumer = kit.consumer(ledger=Ledger())
    with Background(consumer):
        wait_for(lambda: kit.offsets() == {0: 10})
        kit.add_partitions(3)
        kit.send_orders(orders[10:])
        wait_for(lambda: kit.offsets() == {0: 20, 1: 10, 2: 10}, 60)
    report = account(consumer.ledger, kit.state(), kit.topic)
    assert (report.averaged, report.conserved) == (40, True)
    assert kit.state().average == average_of(orders)


@pytest.mark.kafka
def test_records_that_expire_under_a_waiting_consumer_are_counted(apache: ApacheBroker) -> None:
    """A log that is cut while its consumer waits for a retry costs what was not fetched yet, and no more."""
    kit, orders = Cut(broker=apache), take_orders(60)
    attempts = count()

    def fail_at_first(_order: Order, _attempt: int) -> None:
        if next(attempts) == 0:
            raise TimeoutError

    kit.send_orders(orders[:20])
    consumer = kit.consumer(fail_at_first, ledger=Ledger(), batch=10)
    with Background(consumer):
        wait_for(lambda: kit.left() == 0)
        kit.send_orders(orders[20:])
        wait_for(lambda: kit.left() == 0)
        kit.cut(60)
        kit.send_orders(orders[:5])
        wait_for(lambda: kit.left() == 0)
    report = account(consumer.ledger, kit.state(), kit.topic)
    assert (report.produced, report.averaged, report.expired) == (65, 65, 0)


@pytest.mark.kafka
@pytest.mark.parametrize("more", [0, 15, 60])
@pytest.mark.parametrize("config", [{}, COOPERATIVE], ids=["eager", "cooperative"])
def test_a_topic_made_anew_starts_a_fresh_average(
    more: int, config: dict[str, str], apache: ApacheBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """A topic that is deleted and made anew under its consumer is another log, however many records it has.

    If it soon has more than the old one, the client reads on until somebody looks at the topics' ids; then all again.
    """
    kit, old, new = Cut(broker=apache), take_orders(40), take_orders(60, seed=2)[:more]
    kit.connection = Connection(kit.connection.bootstrap, config)
    kit.send_orders(old)
    consumer = kit.consumer(ledger=Ledger())
    with Background(consumer):
        wait_for(lambda: consumer.settled and kit.left() == 0 and consumer.ledger.finished == 40)
        kit.make_anew(new)
        wait_for(lambda: consumer.ledger.closed and consumer.settled and kit.left() == 0)
    report = account(consumer.ledger, kit.state(), kit.topic)
    assert report.conserved
    assert report.averaged == 40 + more if more <= 40 else report.averaged >= 40 + more
    assert kit.state().average == average_of(new)
    (line,) = warnings_of(caplog)
    assert "its id is" in line


@pytest.mark.kafka
def test_a_topic_made_anew_while_nobody_consumed_starts_a_fresh_average(
    apache: ApacheBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """A commit of a topic that is gone is not gone on with, wherever its offset lies in the new one."""
    kit, new = Cut(broker=apache), take_orders(60, seed=2)
    kit.send_orders(take_orders(40))
    assert kit.report().conserved
    saved = kit.saved() or Saved()
    kit.make_anew(new)
    kit.commit(40, saved)  # the broker has dropped it with the topic; a tool has brought it back
    assert kit.state().average == RunningAverage()
    assert kit.report().averaged == 60
    assert kit.state().average == average_of(new)
    assert any("the topic was made anew" in line and "over 40 orders" in line for line in warnings_of(caplog))


@pytest.mark.kafka
def test_markers_are_no_orders(apache: ApacheBroker) -> None:
    """Offsets that transactions take are behind nobody: the lag is 0 at the end, and the commit is the log's end."""
    kit = Cut(broker=apache)
    producer = kit.connection.producer(transactional_id=kit.group)
    producer.init_transactions()
    orders = take_orders(30)
    for i in range(3):
        producer.begin_transaction()
        for order in orders[10 * i : 10 * i + 10]:
            producer.produce(kit.topic, ENCODE(order))
        producer.commit_transaction()
    producer.begin_transaction()
    producer.produce(kit.topic, ENCODE(orders[0]))
    producer.flush()
    producer.abort_transaction()
    consumer = kit.consumer(ledger=Ledger())
    with Background(consumer):
        wait_for(lambda: consumer.settled and kit.left() == 0 and set(consumer.member.lag().values()) == {0})
    assert kit.offsets() == {0: 35}
    assert kit.state().average == average_of(orders)
    assert account(consumer.ledger, kit.state(), kit.topic).conserved


@pytest.mark.kafka
def test_compaction_is_no_loss(apache: ApacheBroker) -> None:
    """Offsets that compaction took out of the middle and the end of a log are no orders, and no loss."""
    kit = Cut(broker=apache)
    kit.connection.delete_topics([kit.topic])
    eager = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"}
    kit.connection.create_topics({kit.topic: 1}, eager)
    orders = take_orders(20)
    kit.send([Record(ENCODE(order), b"same" if i % 2 else str(i).encode()) for i, order in enumerate(orders)])
    report = kit.report()
    assert (report.averaged, report.expired, report.conserved) == (20, 0, True)


# --- without a broker


@STEADY
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=8))
def test_what_expired_is_counted_once(gaps: list[tuple[int, int]]) -> None:
    """However often and however overlapping gaps are found, each offset in them counts once."""
    ledger = Ledger()
    for start, many in gaps:
        ledger.expire("orders", 0, range(start, start + many))
    assert ledger.expired == len({offset for start, many in gaps for offset in range(start, start + many)})


@STEADY
@given(st.sets(st.integers(0, 20)), st.integers(0, 25))
def test_a_partition_expires_what_it_did_not_have(done: set[int], low: int) -> None:
    """Of the offsets before the log's new beginning, exactly those expire that were not done with."""
    high = max(done, default=-1) + 1
    floor = next(offset for offset in count() if offset not in done)
    holes = tuple((offset - floor, 0) for offset in range(floor + 1, high) if offset not in done)
    part = Partition("orders", 0, floor, Saved(high=max(0, high - floor), holes=holes))
    gone = [offset for gap in part.expire(low) for offset in gap]
    assert gone == [offset for offset in range(low) if offset not in done and offset >= floor]
    assert part.expire(low) == []
    assert part.floor >= min(low, part.floor)


def test_a_new_log_has_an_account_of_its_own() -> None:
    """The same offsets of another log are other records: none is a double, and what was in flight has expired."""
    ledger, orders = Ledger(), take_orders(4)
    ledger.took("orders", 0, [0, 1, 2, 3])
    ledger.note(1.0, "orders", 0, [0, 1, 2], orders[:3])
    ledger.begin("orders", 0)
    ledger.took("orders", 0, [0, 1])
    ledger.note(2.0, "orders", 0, [0, 1], orders[:2])
    ledger.forget_from("orders", 0, 1)
    assert ledger.tallies["orders", 0].offsets(TAKEN) == [0]
    assert list(ledger.fate) == [AVERAGED, AVERAGED, AVERAGED, AVERAGED, 4]
    ledger.took("orders", 0, [1])
    ledger.note(3.0, "orders", 0, [1], orders[1:2])
    (closed,) = ledger.closed
    assert isinstance(closed[1], Tally)
    assert closed[1].offsets(FINISHED) == [0, 1, 2]
    assert ledger.expired == 1
