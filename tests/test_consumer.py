"""The retrying consumer: attempts, order, classification, stops and restarts."""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, TopicPartition
from helpers import (
    AT_ONCE,
    BROKERS,
    SOON,
    Background,
    Kit,
    Record,
    average_of,
    open_broker,
    shared,
    shorten_sessions,
    slowed,
    soon,
    take_orders,
    wait_for,
    within,
)

from orderkit.account.audit import account
from orderkit.account.tally import RETRY
from orderkit.consumer import RetryingConsumer
from orderkit.consuming.partition import Partition
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import Fatal, Permanent, RetryPolicy, Transient
from orderkit.retry.backoff import Backoff

NODE = json.loads((Path(__file__).parent / "fixtures" / "kafkajs_orders.json").read_text("utf-8"))


@pytest.fixture(autouse=True)
def _short_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let restarts take a fifth of a second instead of a whole one."""
    shorten_sessions(monkeypatch)


def after(consumer: RetryingConsumer, attempts: int) -> Callable[[], bool]:
    """Say when a consumer has made so many attempts."""
    return lambda: consumer.ledger.finished + consumer.ledger.retries >= attempts


class Calls:
    """A handler that remembers its calls and fails the first `times` attempts of the orders it is told to."""

    def __init__(self, times: int = 0, ids: set[str] | None = None, error: type[Exception] = Transient) -> None:
        self.times, self.ids, self.error = times, ids, error
        self.seen: list[tuple[str, int]] = []
        self.at: defaultdict[str, list[float]] = defaultdict(list)

    def __call__(self, order: Order, attempt: int) -> None:
        self.seen.append((order["orderId"], attempt))
        self.at[order["orderId"]].append(time.monotonic())
        if attempt <= self.times and (self.ids is None or order["orderId"] in self.ids):
            raise self.error("not now")


@pytest.mark.parametrize("base", [0.0, 0.01])
def test_an_order_has_three_attempts_and_no_more(base: float) -> None:
    """An order that always fails is handled as attempt 1, 2 and 3, then dead-lettered."""
    handler = Calls(times=99)
    kit = Kit()
    kit.send_orders(take_orders(4))
    consumer = kit.consumer(handler, policy=RetryPolicy(backoff=Backoff("fixed", base)))
    consumer.run(orders=4)
    assert handler.seen == [(str(i), attempt) for i in range(1, 5) for attempt in (1, 2, 3)]
    assert [letter.story["attempts"] for letter in kit.letters()] == ["3"] * 4
    assert consumer.ledger.retries == 8


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_policy_sets_the_number_of_attempts(most: int) -> None:
    """`max_attempts` counts deliveries, the first one included."""
    handler = Calls(times=99)
    kit = Kit()
    kit.send_orders(take_orders(1))
    policy = RetryPolicy(max_attempts=most, backoff=AT_ONCE.backoff)
    kit.consumer(handler, policy=policy).run(orders=1)
    assert [attempt for _, attempt in handler.seen] == list(range(1, most + 1))


def test_an_order_that_recovers_is_averaged_once() -> None:
    """An order that fails twice and then succeeds is in the average, and in no dead-letter topic."""
    handler, orders = Calls(times=2), take_orders(20)
    kit = Kit()
    kit.send_orders(orders)
    kit.consumer(handler, policy=SOON).run(orders=20)
    assert kit.letters() == []
    assert kit.state().average == average_of(orders)


@pytest.mark.parametrize("kind", ["exponential", "equal-jitter"])
def test_a_retry_never_comes_early(kind: str) -> None:
    """Between two attempts lies at least the back-off that the ledger names, and in 12 of 16 cases hardly more."""
    handler = Calls(times=2)
    kit = Kit(4)
    kit.send_orders(take_orders(8))
    policy = RetryPolicy(backoff=Backoff(kind, base=0.1))
    consumer = kit.consumer(handler, policy=policy, seed=3)
    consumer.run(orders=8)
    ledger = consumer.ledger
    waits = {
        (str(ledger.order_id[i]), ledger.attempt[i]): ledger.wait[i]
        for i in range(len(ledger))
        if ledger.fate[i] == RETRY
    }
    assert len(waits) == 16
    assert min(waits.values()) >= 0.05
    at = handler.at
    late = sorted(at[name][attempt] - at[name][attempt - 1] - wait for (name, attempt), wait in waits.items())
    assert late[0] >= 0
    assert late[11] < 0.1  # a busy machine may take its time over a few


def test_order_inside_a_failing_partition_is_kept() -> None:
    """No order of a partition is finished before the one ahead of it."""
    kit = Kit(4)
    kit.send_orders(take_orders(120))
    faults = Faults(5, transient_rate=0.3)
    consumer = kit.consumer(faults.strike, policy=SOON)
    consumer.run(orders=120)
    ends: defaultdict[int, list[int]] = defaultdict(list)
    for partition, offset, fate in zip(
        consumer.ledger.partition, consumer.ledger.offset, consumer.ledger.fate, strict=True
    ):
        if fate != RETRY:
            ends[partition].append(offset)
    assert dict(ends) == {partition: list(range(30)) for partition in range(4)}


def test_other_partitions_flow_while_one_waits() -> None:
    """A partition in a long back-off does not hold up the others, and its own later orders wait."""
    handler = Calls(times=9, ids={"1"})
    kit = Kit(4)
    kit.send_orders(take_orders(200))
    consumer = kit.consumer(handler, policy=RetryPolicy(backoff=Backoff("fixed", 30.0)))
    consumer.run(until=soon(lambda: consumer.ledger.finished >= 150 and handler.seen.count(("1", 1))))
    assert kit.offsets() == {0: 0, 1: 50, 2: 50, 3: 50}
    first_partition = [name for name, _ in handler.seen if int(name) % 4 == 1]
    assert first_partition == ["1"]


def test_a_back_off_of_zero_retries_at_once() -> None:
    """With no back-off the three attempts follow each other, with no other order and no poll in between."""
    handler = Calls(times=2, ids={"2"})
    kit = Kit()
    kit.send_orders(take_orders(3))
    kit.consumer(handler, policy=AT_ONCE).run(orders=3)
    assert handler.seen == [("1", 1), ("2", 1), ("2", 2), ("2", 3), ("3", 1)]


def test_a_permanent_failure_has_one_attempt() -> None:
    """Bad data is dead-lettered after its first attempt."""
    handler = Calls(times=9, ids={"2"}, error=Permanent)
    kit = Kit()
    kit.send_orders(take_orders(3))
    consumer = kit.consumer(handler)
    consumer.run(orders=3)
    (letter,) = kit.letters()
    assert Counter(handler.seen) == Counter([("1", 1), ("2", 1), ("3", 1)])
    assert (letter.story["attempts"], letter.story["reason"]) == ("1", "permanent")
    assert consumer.ledger.retries == 0


def test_poison_never_reaches_the_handler() -> None:
    """Bytes that are no order are dead-lettered unhandled, after one attempt."""
    handler, orders = Calls(), take_orders(2)
    kit = Kit()
    kit.send([Record(b"\xff\xfe not avro", b"k")])
    kit.send_orders(orders)
    kit.consumer(handler).run(orders=3)
    (letter,) = kit.letters()
    assert [name for name, _ in handler.seen] == ["1", "2"]
    assert (letter.story["attempts"], letter.story["reason"]) == ("1", "poison")


@pytest.mark.parametrize("error", [Fatal, TypeError])
def test_a_bug_stops_the_consumer_with_the_offset_kept(error: type[Exception]) -> None:
    """A broken handler ends the run in one line; the mended one goes on at the same order, nothing lost."""
    orders = take_orders(10)
    kit = Kit()
    kit.send_orders(orders)
    with pytest.raises(OrderkitError) as told:
        kit.consumer(Calls(times=9, ids={"5"}, error=error)).run(orders=10)
    assert "\n" not in str(told.value)
    assert f"{kit.topic}[0]@4" in str(told.value)
    assert isinstance(told.value.__cause__, error)
    assert kit.offsets() == {0: 4}
    mended = Calls()
    kit.consumer(mended).run(orders=6)
    assert mended.seen == [(str(i), 1) for i in range(5, 11)]
    assert kit.letters() == []
    assert kit.state().average == average_of(orders)


def test_spent_attempts_may_be_skipped() -> None:
    """With `when_spent="skip"` an order that stays broken is left out of average and dead letters, and counted."""
    orders = take_orders(5)
    kit = Kit()
    kit.send_orders(orders)
    policy = RetryPolicy(backoff=AT_ONCE.backoff, when_spent="skip")
    kit.consumer(Calls(times=9, ids={"3"}), policy=policy).run(orders=5)
    state = kit.state()
    assert kit.letters() == []
    assert (state.skipped, state.dead, state.offsets) == (1, 0, {0: 5})
    assert state.average == average_of([order for order in orders if order["orderId"] != "3"])


def test_spent_attempts_may_stop_the_consumer() -> None:
    """With `when_spent="stop"` an order that stays broken ends the run, and is the next one's first."""
    kit = Kit()
    kit.send_orders(take_orders(5))
    policy = RetryPolicy(backoff=AT_ONCE.backoff, when_spent="stop")
    with pytest.raises(OrderkitError, match=r"\[0\]@2 has no attempt left: .* The offset is kept"):
        kit.consumer(Calls(times=9, ids={"3"}), policy=policy).run(orders=5)
    assert kit.offsets() == {0: 2}


def test_attempts_survive_a_restart() -> None:
    """A consumer stopped during a back-off leaves the attempts in its commit; the next one goes on from there."""
    first, second, orders = Calls(times=9), Calls(times=2), take_orders(3)
    kit = Kit()
    kit.send_orders(orders)
    waiting = RetryPolicy(backoff=Backoff("fixed", base=30.0))
    consumer = kit.consumer(first, policy=waiting)
    consumer.run(until=soon(lambda: first.seen))
    state = kit.saved()
    assert state is not None
    assert state.attempts == 1
    kit.consumer(second, policy=AT_ONCE).run(orders=3)
    assert kit.state().average == average_of(orders)
    assert first.seen == [("1", 1)]
    assert second.seen[:3] == [("1", 2), ("1", 3), ("2", 1)]


def test_saved_attempts_belong_to_one_record_only() -> None:
    """Attempts in a commit are counted for the record at its offset, never for a later one."""
    handler = Calls(times=9)
    kit = Kit()
    kit.send_orders(take_orders(2))
    policy = RetryPolicy(max_attempts=2, backoff=AT_ONCE.backoff)
    kit.consumer(handler, policy=policy).run(orders=1)
    kit.consumer(handler, policy=policy).run(orders=1)
    assert handler.seen == [("1", 1), ("1", 2), ("2", 1), ("2", 2)]


@pytest.mark.parametrize("name", BROKERS)
def test_ten_restarts_lose_and_double_nothing(name: str, request: pytest.FixtureRequest) -> None:
    """Stopped and started at ten random places, a consumer ends with the exact average and each dead letter once."""
    chance, faults = random.Random(11), Faults(11, transient_rate=0.3, permanent_rate=0.03)
    kit = Kit(4, open_broker(name, request))
    kit.send_orders(take_orders(600, seed=11))
    for _ in range(10):
        stop_after, batch = chance.randint(0, 60), chance.choice([5, 50, 1000])
        consumer = kit.consumer(faults.strike, policy=SOON, batch=batch)
        consumer.run(until=soon(after(consumer, stop_after)))
    kit.consumer(faults.strike, policy=SOON).run(orders=kit.left())
    kit.assert_all_accounted(faults)


def test_a_commit_under_way_at_the_end_is_not_taken_for_the_last() -> None:
    """A late answer to an earlier commit does not void what a later commit has settled."""
    orders = take_orders(5)
    kit = Kit()
    kit.send_orders(orders)
    consumer = kit.consumer(batch=1)
    while consumer.ledger.finished < 1:
        consumer.turn()
    with slowed(100):
        while consumer.ledger.finished < 5:
            consumer.turn()
        consumer.close()
    report = account(consumer.ledger, kit.state(), kit.topic)
    assert (report.averaged, report.lost, report.in_flight) == (5, 0, 0)
    assert consumer.ledger.retries == 0


def test_a_failed_commit_at_the_end_does_not_go_back() -> None:
    """An earlier commit that failed is not repeated over a later one that went through."""
    orders = take_orders(5)
    kit = Kit()
    kit.send_orders(orders)
    consumer = kit.consumer(Calls(times=9, ids={"3"}, error=Permanent), batch=1)
    while consumer.ledger.finished < 1:
        consumer.turn()
    with slowed(100):
        shared().fail_next(1, "TOPIC_AUTHORIZATION_FAILED", "OffsetCommit")
        while consumer.ledger.finished < 5:
            consumer.turn()
        consumer.close()
    assert kit.offsets() == {0: 5}
    assert len(kit.letters()) == 1


@pytest.mark.parametrize("error", ["NOT_COORDINATOR", "COORDINATOR_LOAD_IN_PROGRESS", "TOPIC_AUTHORIZATION_FAILED"])
def test_refused_commits_are_repeated(error: str) -> None:
    """Commits that fail are tried again; the average is exact in the end."""
    orders = take_orders(100)
    kit = Kit(4)
    kit.send_orders(orders)
    shared().fail_next(3, error, "OffsetCommit")
    kit.consumer(batch=10).run(orders=100)
    assert kit.offsets() == {0: 25, 1: 25, 2: 25, 3: 25}
    assert kit.state().average == average_of(orders)


def test_stop_ends_a_slow_batch_soon_and_loses_nothing() -> None:
    """`stop()` in the middle of a large batch of a slow handler ends it within about a second; the rest comes next."""
    orders, handler = take_orders(400), Calls()

    def slow(order: Order, attempt: int) -> None:
        handler(order, attempt)
        time.sleep(0.02)

    kit = Kit()
    kit.send_orders(orders)
    consumer = kit.consumer(slow)
    with Background(consumer) as work:
        wait_for(lambda: len(handler.seen) >= 5)
        with within(1.5):
            work.stop()
    done = consumer.ledger.finished
    assert 5 <= done < 400
    assert kit.offsets() == {0: done}
    kit.consumer().run(orders=400 - done)
    assert kit.state().average == average_of(orders)


def test_a_slow_handler_keeps_its_partition() -> None:
    """Work that takes longer than `max.poll.interval.ms` in all is done in slices, with polls in between."""
    orders = take_orders(45)
    kit = Kit()
    kit.send_orders(orders)
    connection = Connection(kit.connection.bootstrap, {"max.poll.interval.ms": "1300"})
    handler = Calls()

    def slow(order: Order, attempt: int) -> None:
        handler(order, attempt)
        time.sleep(0.04)

    consumer = kit.consumer(slow, connection=connection, slice=0.2)
    consumer.run(orders=45)
    assert consumer.member.rebalances == 1
    assert handler.seen == [(order["orderId"], 1) for order in orders]
    assert kit.state().average == average_of(orders)


def test_a_run_ends_after_the_orders_it_was_asked_for() -> None:
    """`orders=N` handles N records and not one more, however large the batch."""
    handler = Calls()
    kit = Kit()
    kit.send_orders(take_orders(10))
    kit.consumer(handler).run(orders=4)
    kit.consumer(handler).run(orders=6)
    assert handler.seen == [(str(i), 1) for i in range(1, 11)]


def test_an_idle_run_ends_but_not_while_a_retry_waits() -> None:
    """`idle` counts from the last work on, and never during a back-off."""
    handler = Calls(times=1, ids={"2"})
    kit = Kit()
    kit.send_orders(take_orders(2))
    policy = RetryPolicy(backoff=Backoff("fixed", base=0.6))
    kit.consumer(handler, policy=policy).run(idle=0.2)
    assert kit.offsets() == {0: 2}
    assert handler.seen == [("1", 1), ("2", 1), ("2", 2)]


@pytest.mark.parametrize("missing", ["topic", "dead_letters"])
def test_a_missing_topic_is_said_at_the_start(missing: str) -> None:
    """A consumer without its topic says in one line which one and what to do."""
    kit = Kit()
    topics: dict[str, Any] = {"topic": kit.topic, "dead_letters": kit.dead_letters, missing: "nowhere"}
    with pytest.raises(OrderkitError, match=r"'nowhere' does not exist") as told:
        RetryingConsumer(kit.connection, **topics)
    assert "\n" not in str(told.value)
    assert "topics create" in str(told.value)


def test_an_unreachable_broker_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer without a broker says in one line where it looked and what to do."""
    metadata = Connection.metadata
    monkeypatch.setattr(Connection, "metadata", lambda self: metadata(self, 0.5))
    with pytest.raises(OrderkitError, match=r"No Kafka broker answers at localhost:1\.") as told:
        RetryingConsumer(Connection("localhost:1"))
    assert "\n" not in str(told.value)


def test_offsets_of_another_program_are_taken_up(caplog: pytest.LogCaptureFixture) -> None:
    """A group committed without an average goes on at its offset, with a warning, and averages from there."""
    orders = take_orders(6)
    kit = Kit()
    kit.send_orders(orders)
    other = kit.connection.consumer(kit.group)
    other.commit(offsets=[TopicPartition(kit.topic, 0, 2)], asynchronous=False)
    other.close()
    kit.consumer().run(orders=4)
    assert kit.state().average == average_of(orders[2:])
    assert f"{kit.topic}[0] was committed at 2 without an average, by another program" in caplog.text


def test_orders_of_a_node_program_are_read_exactly() -> None:
    """Records written by kafkajs and avsc give the very orders that avsc reads, and their exact average."""
    got: list[Order] = []
    kit = Kit(4)
    kit.send(
        [Record(bytes.fromhex(one["value"]), bytes.fromhex(one["key"]), partition=i % 4) for i, one in enumerate(NODE)],
    )
    kit.consumer(lambda order, _: got.append(order)).run(orders=len(NODE))
    state = kit.state()
    assert kit.letters() == []
    wanted: list[Order] = [one["order"] for one in NODE]
    assert sorted(got, key=lambda order: order["orderId"]) == sorted(wanted, key=lambda order: order["orderId"])
    assert state.average == average_of(wanted)


def test_idle_time_counts_from_the_assignment() -> None:
    """A member that had to wait long for its partitions still gives them the whole idle time to bring something."""
    kit = Kit(1)
    kit.send_orders(take_orders(5))
    kit.consumer().run(orders=1)
    consumer = kit.consumer()  # joins when the group has given the first one up, after a second or so
    fetched: list[list[tuple[Partition, list[Message]]]] = []
    fetch = consumer.member.fetch

    def fetch_late(wait: float) -> list[tuple[Partition, list[Message]]]:
        fetched.append(fetch(min(wait, 0.05)))
        return fetched[-3] if len(fetched) > 2 else []

    consumer.member.fetch = fetch_late  # type: ignore[method-assign]  # as from a slow broker
    consumer.run(idle=0.15)
    assert consumer.ledger.finished == 4
