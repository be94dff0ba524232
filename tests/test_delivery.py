"""When offsets are committed: at least once, at most once, exactly once, for the same handler."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from itertools import pairwise

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from helpers import (
    AT_ONCE,
    BROKERS,
    SHORT_SESSIONS,
    Background,
    Kit,
    Record,
    average_of,
    open_broker,
    shorten_probes,
    shorten_sessions,
    soon,
    take_orders,
    wait_for,
)

from orderkit.account.audit import account
from orderkit.brokers import ApacheBroker
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import Saved
from orderkit.dead_letters import read_topic
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka.configs import TOPIC, change_config
from orderkit.members.commits import saved_with
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import Permanent, RetryPolicy, Transient
from orderkit.retry.backoff import Backoff

FAULTS = Faults(3, transient_rate=0.2, permanent_rate=0.05)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let restarts, and new tries of refused letters, come after a fraction of a second."""
    shorten_sessions(monkeypatch)
    shorten_probes(monkeypatch)


def run_child(kit: Kit, handler: str, settings: str, run: str = "idle=2.0") -> int:
    """Run a consumer of the kit's group in a process of its own, and give its exit status."""
    code = f"""
        import os
        from orderkit.members import group
        from orderkit.consumer import RetryingConsumer
        from orderkit.kafka import Connection
        from orderkit.retry import Permanent, RetryPolicy, Transient
        from orderkit.retry.backoff import Backoff
        from orderkit.orders.faults import Faults

        group.EMBEDDED_SETTINGS = {SHORT_SESSIONS}
        brief = {{"session.timeout.ms": "2000", "heartbeat.interval.ms": "300"}}  # the next one need not wait so long
        AT_ONCE = RetryPolicy(backoff=Backoff("fixed", base=0.0))
        seen = []

        {textwrap.indent(textwrap.dedent(handler), " " * 8).strip()}

        RetryingConsumer(
            Connection({kit.connection.bootstrap!r}, brief), handler, group={kit.group!r}, topic={kit.topic!r},
            dead_letters={kit.dead_letters!r}, {settings}
        ).run({run})
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=60, check=False)
    return child.returncode


WAITING = "RetryPolicy(backoff=Backoff('fixed', base=0.2))"
DIES_AT = """
    def handler(order, attempt):
        seen.append(order)
        if order["orderId"] == {id!r}:
            os._exit(9)
"""


@pytest.mark.kafka
@pytest.mark.parametrize("mode", ["at-least-once", "at-most-once", "exactly-once"])
def test_all_modes_agree_while_nothing_crashes(mode: str, apache: ApacheBroker) -> None:
    """Without a crash, every mode averages, retries and dead-letters the same orders."""
    kit = Kit(2, apache)
    kit.send_orders(take_orders(2000))
    consumer = kit.consumer(FAULTS.strike, delivery=mode, policy=AT_ONCE)
    with Background(consumer):
        wait_for(lambda: consumer.ledger.finished == 2000)
        wait_for(kit.settled)
    kit.assert_all_accounted(FAULTS)
    assert account(consumer.ledger, kit.state(), kit.topic).conserved


@pytest.mark.kafka
def test_exactly_once_leaves_nothing_of_a_crash(apache: ApacheBroker) -> None:
    """What a killed consumer wrote in its last transaction is read by nobody, and done again by the next."""
    kit, orders = Kit(1, apache), take_orders(40)
    kit.send_orders(orders)
    handler = """
        def handler(order, attempt):
            seen.append(order)
            if len(seen) > 30:
                os._exit(9)
            if len(seen) % 10 == 5:
                raise Permanent("no")
    """
    settings = "delivery='exactly-once', instance='a', policy=AT_ONCE"
    assert run_child(kit, handler, settings) == 9
    assert kit.state().average.count == 0
    dead = {orders[i]["orderId"] for i in (4, 14, 24)}

    def again(order: Order, _attempt: int) -> None:
        if order["orderId"] in dead:
            raise Permanent("no")

    kit.consumer(again, delivery="exactly-once", instance="a", policy=AT_ONCE).run(orders=40)
    assert sorted(letter.story["offset"] for letter in kit.letters()) == ["14", "24", "4"]
    assert kit.state().average == average_of([order for order in orders if order["orderId"] not in dead])


@pytest.mark.kafka
@pytest.mark.parametrize("engine", ["topics", "key-parking"])
def test_exactly_once_tries_again_what_a_crash_interrupts(engine: str, apache: ApacheBroker) -> None:
    """Killed in its first transaction, and again while retries are open: each retry and dead letter is there once.

    Retry records, dead letters, offsets and average are one transaction, so whoever reads only what is committed
    finds every failed attempt exactly once, and the average exact.
    """
    kit, orders = Kit(1, apache), take_orders(60)
    kit.send_orders(orders)
    settings = f"engine={engine!r}, delivery='exactly-once', instance='a', policy={WAITING}"
    for dies in ("len(seen) > 40", "attempt == 2"):
        handler = f"""
            def handler(order, attempt):
                seen.append(order)
                if {dies}:
                    os._exit(9)
                Faults(3, transient_rate=0.2, permanent_rate=0.05).strike(order, attempt)
        """
        assert run_child(kit, handler, settings) == 9
    saved = kit.state()
    assert 0 < saved.average.count < 60 - saved.dead  # a retry was open
    policy = RetryPolicy(backoff=Backoff("fixed", base=0.2))
    with Background(kit.consumer(FAULTS.strike, engine=engine, delivery="exactly-once", instance="a", policy=policy)):
        wait_for(lambda: all_done(kit, 60))
    kit.assert_all_accounted(FAULTS)
    if engine == "topics":
        for number in (1, 2):
            topic = f"{kit.topic}.{kit.group}.retry.{number}"
            found = [dict(message.headers() or ()) for message in read_topic(kit.connection, topic)]
            retried = [int(headers["orderkit.retry.offset"] or -1) for headers in found]
            failing = [i for i, order in enumerate(orders) if failures(order) >= number]
            assert sorted(retried) == sorted(failing) != []


def all_done(kit: Kit, many: int) -> bool:
    """Say whether the commits tell of so many orders' fates."""
    state = kit.state()
    return state.average.count + state.dead == many


def failures(order: Order) -> int:
    """Count the attempts, from the first on, that fail for the moment."""
    for attempt in range(1, 4):
        try:
            FAULTS.strike(order, attempt)
        except Transient:
            continue
        except Permanent:
            pass
        return attempt - 1
    return 3


@pytest.mark.kafka
def test_exactly_once_waits_for_a_refused_dead_letter(apache: ApacheBroker) -> None:
    """While the dead-letter topic refuses, transactions are undone and the offset stays; then all goes on by itself."""
    kit, orders = Kit(1, apache), take_orders(20)
    big = [Record(b"\xff" * 3000)]
    admin = kit.connection.admin()
    change_config(admin, TOPIC, kit.dead_letters, {"max.message.bytes": "1000"})
    kit.send_orders(orders)
    kit.send(big)
    consumer = kit.consumer(delivery="exactly-once", policy=AT_ONCE)
    with Background(consumer):
        wait_for(lambda: consumer.letters.trouble)
        assert kit.offsets().get(0, 0) <= 20
        change_config(admin, TOPIC, kit.dead_letters, {"max.message.bytes": "1000000"})
        wait_for(kit.settled)
    assert len(kit.letters()) == 1
    assert kit.state().average == average_of(orders)
    assert account(consumer.ledger, kit.state(), kit.topic).conserved


@pytest.mark.kafka
def test_exactly_once_outlives_a_restart_of_the_broker(apache: ApacheBroker) -> None:
    """The broker is stopped in the middle of a transaction and comes back: the consumer goes on by itself."""
    assert apache  # the session's broker decides whether there can be one at all

    def slow(_order: Order, _attempt: int) -> None:
        time.sleep(0.002)

    with ApacheBroker({}) as broker:
        kit, orders = Kit(2, broker), take_orders(600)
        kit.send_orders(orders)
        consumer = kit.consumer(slow, delivery="exactly-once", policy=AT_ONCE)
        with Background(consumer):
            wait_for(lambda: consumer.ledger.finished > 100)
            broker.down()
            broker.up()
            wait_for(kit.settled, 60)
        assert kit.state().average == average_of(orders)


class Deaf(Producer):
    """Commits transactions, and does not hear the answer to the third."""

    commits = 0

    def commit_transaction(self, *patience: float) -> None:
        super().commit_transaction(*patience)
        self.commits += 1
        if self.commits == 3:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.mark.kafka
def test_a_transaction_whose_end_nobody_heard_is_not_done_again(
    apache: ApacheBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the broker has committed and the answer is lost, the group's offsets say so: each dead letter comes once."""
    monkeypatch.setattr("orderkit.kafka.connection.Producer", Deaf)
    kit, orders = Kit(2, apache), take_orders(300)
    kit.send_orders(orders)
    handled: list[str] = []

    def handler(order: Order, attempt: int) -> None:
        handled.append(order["orderId"])
        time.sleep(0.002)  # some transactions' worth of work
        FAULTS.strike(order, attempt)

    consumer = kit.consumer(handler, delivery="exactly-once", policy=AT_ONCE)
    first = consumer.letters.producer
    with Background(consumer):
        # The third commit may be the last, and all is settled before its answer is lost.
        wait_for(lambda: kit.settled() and consumer.letters.producer is not first)
    kit.assert_all_accounted(FAULTS)
    assert len(handled) == 300 + consumer.ledger.retries
    assert account(consumer.ledger, kit.state(), kit.topic).conserved


@pytest.mark.kafka
def test_an_older_consumer_is_fenced(apache: ApacheBroker) -> None:
    """Of two consumers with one transactional id the older one stops with a clear line, and commits nothing more."""
    kit, orders = Kit(1, apache), take_orders(20)
    kit.send_orders(orders[:10])
    old = kit.consumer(delivery="exactly-once", instance="a")
    started = Background(old).start()
    wait_for(kit.settled)
    new = kit.consumer(delivery="exactly-once", instance="a")  # opens its transactions: the older one is out
    kit.send_orders(orders[10:])
    wait_for(lambda: started.stopped)
    assert isinstance(started.error, OrderkitError)
    assert "cannot go on" in str(started.error)
    assert kit.state().average.count == 10
    new.run(orders=10)
    assert kit.state().average == average_of(orders)


def test_exactly_once_is_refused_where_it_would_be_a_fiction() -> None:
    """The embedded broker takes transactions and enforces nothing; the kit says so."""
    with pytest.raises(UsageError, match="needs a real broker"):
        Kit().consumer(delivery="exactly-once")


def test_an_unknown_mode_is_named() -> None:
    """A misspelt delivery mode is answered with those there are."""
    with pytest.raises(UsageError, match="at-least-once, at-most-once, exactly-once"):
        Kit().consumer(delivery="once")


@pytest.mark.parametrize("name", BROKERS)
def test_at_most_once_loses_what_a_crash_interrupts(name: str, request: pytest.FixtureRequest) -> None:
    """A batch is committed before the handler sees it: after a crash no order comes twice, and the rest is gone."""
    kit, orders = Kit(1, open_broker(name, request)), take_orders(30)
    kit.send_orders(orders)
    settings = "delivery='at-most-once', batch=10"
    assert run_child(kit, DIES_AT.format(id=orders[14]["orderId"]), settings) == 9
    assert (kit.state().ahead, kit.state().lost) == (10, 0)  # nobody knows yet that they are lost
    consumer = kit.consumer(delivery="at-most-once")
    consumer.run(orders=10)
    assert consumer.ledger.finished == 10
    assert list(consumer.ledger.offset) == list(range(20, 30))
    state = kit.state()
    assert state.average == average_of([*orders[:10], *orders[20:]])
    assert (state.ahead, state.lost) == (0, 10)
    report = account(consumer.ledger, state, kit.topic)
    assert (report.lost, report.lost_to_crashes, report.conserved) == (0, 10, True)
    assert report.as_dict()["lost_to_crashes"] == 10
    assert "over 20 orders (crashes cost the group up to 10 more: committed first, and never finished)" in str(report)


def test_what_crashes_cost_adds_up_whoever_comes_next() -> None:
    """Each crash adds what was committed ahead of it, a member of another mode carries the sum on, and all add up."""
    kit, orders = Kit(1), take_orders(40)
    kit.send_orders(orders)
    for dies in (4, 17):
        dead_at = DIES_AT.format(id=orders[dies]["orderId"])
        assert run_child(kit, dead_at, "delivery='at-most-once', batch=10") == 9
    kit.consumer(batch=10).run(orders=10)
    kit.consumer(delivery="at-most-once", batch=10).run(orders=10)
    state = kit.state()
    assert (state.lost, state.ahead, state.average.count) == (20, 0, 20)
    assert state.average == average_of(orders[20:])


def test_at_most_once_counts_what_it_may_not_work_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records whose commit is not answered are not worked on; the next commit passes them, and says so."""
    kit, orders = Kit(1), take_orders(30)
    kit.send_orders(orders)
    consumer = kit.consumer(delivery="at-most-once", batch=10)
    commit, calls = consumer.member.commits.now, iter([False])
    monkeypatch.setattr(
        consumer.member.commits, "now", lambda *told, **more: next(calls, None) is None and commit(*told, **more)
    )
    consumer.run(orders=20)
    state = kit.state()
    assert (state.lost, state.average) == (10, average_of(orders[10:]))


def test_a_letter_on_its_way_at_the_end_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most once no commit waits for a dead letter: one that is not acknowledged in time counts as lost, too."""
    kit = Kit(1)
    kit.send_orders(take_orders(3))
    consumer = kit.consumer(lambda *_: fail(), delivery="at-most-once", policy=AT_ONCE)
    for waits in ("drain", "serve"):  # as if the time was up
        monkeypatch.setattr(consumer.letters, waits, lambda *_: None)
    consumer.run(orders=3)
    assert (kit.state().dead, kit.state().lost) == (3, 3)


def fail() -> None:
    """Refuse an order for good."""
    raise Permanent("no")


def test_at_most_once_gives_back_what_the_handler_has_not_seen() -> None:
    """A clean stop in the middle of a batch loses nothing, in this mode too."""
    kit, orders = Kit(), take_orders(50)
    kit.send_orders(orders)
    first = kit.consumer(delivery="at-most-once")
    first.run(orders=20)
    assert first.ledger.finished == 20
    kit.consumer(delivery="at-most-once").run(orders=30)
    assert kit.state().average == average_of(orders)


@pytest.mark.parametrize(
    ("mode", "name", "engine"),
    [
        ("at-least-once", "embedded", "pause"),
        pytest.param("at-least-once", "embedded", "topics", marks=pytest.mark.campaign),
        pytest.param("at-least-once", "embedded", "key-parking", marks=pytest.mark.campaign),
        pytest.param("at-least-once", "apache", "pause", marks=[pytest.mark.campaign, pytest.mark.kafka]),
        pytest.param("exactly-once", "apache", "pause", marks=pytest.mark.kafka),
    ],
)
def test_an_order_that_kills_is_dead_lettered_in_its_turn(
    mode: str, name: str, engine: str, request: pytest.FixtureRequest
) -> None:
    """Each kill counts as an attempt: after exactly three starts the order is a dead letter, and the group past it."""
    kit, orders = Kit(1, open_broker(name, request)), take_orders(30)
    kit.send_orders(orders)
    handler = DIES_AT.format(id=orders[11]["orderId"])
    settings = f"delivery={mode!r}, engine={engine!r}, instance='a', policy=AT_ONCE"
    starts = [run_child(kit, handler, settings) for _ in range(4)]
    assert starts == [9, 9, 9, 0]
    (letter,) = kit.letters()
    assert (letter.story["offset"], letter.story["attempts"]) == ("11", "3")
    assert kit.state().average == average_of(orders[:11] + orders[12:])


@pytest.mark.parametrize(
    ("mode", "name"), [("at-least-once", "embedded"), pytest.param("exactly-once", "apache", marks=pytest.mark.kafka)]
)
def test_nobody_is_blamed_for_a_death_in_another_partition(
    mode: str, name: str, request: pytest.FixtureRequest
) -> None:
    """After deaths, at each attempt that may be the last the commits name the order that is tried, and no other."""
    kit, orders = Kit(2, open_broker(name, request)), take_orders(40)
    kit.send_orders(orders)
    client = kit.connection.consumer(kit.group)
    after_deaths = Saved(at_work=1, deaths=2).to_text(0)
    parts = [TopicPartition(kit.topic, number, 0, after_deaths) for number in (0, 1)]
    client.commit(offsets=parts, asynchronous=False)
    named: list[list[str]] = []

    def handler(order: Order, _attempt: int) -> None:
        commits = [(one, saved_with(one)) for one in client.committed(parts, timeout=5)]
        tried = [(one.partition, one.offset + saved.trying - 1) for one, saved in commits if saved and saved.trying]
        named.append([orders[2 * offset + partition]["orderId"] for partition, offset in tried])
        assert named[-1] == [order["orderId"]]

    kit.consumer(handler, delivery=mode).run(orders=40)
    client.close()
    assert len(named) == 40
    assert kit.state().average == average_of(orders)


def test_an_order_that_kills_in_a_retry_topic_is_a_dead_letter() -> None:
    """What the commit knows of a kill is not forgotten for the header, and the header's attempts count on."""
    kit, orders = Kit(1), take_orders(30)
    kit.send_orders(orders)
    handler = f"""
        def handler(order, attempt):
            if order["orderId"] == {orders[11]["orderId"]!r}:
                if attempt > 1:
                    os._exit(9)
                raise Transient("not yet")
    """
    settings = "engine='topics', policy=RetryPolicy(2, Backoff('fixed', base=0.5))"
    assert [run_child(kit, handler, settings) for _ in range(3)] == [9, 9, 0]
    (letter,) = kit.letters()
    assert (letter.story["offset"], letter.story["attempts"]) == ("11", "2")
    assert kit.state().average == average_of(orders[:11] + orders[12:])


def test_rewinding_puts_every_record_since_the_commit_back() -> None:
    """A partition that is undone starts again from its last commit, with the records it has at hand."""
    kit = Kit()
    kit.send_orders(take_orders(20))
    consumer = kit.consumer()
    consumer.member._keep = True
    consumer._until = float("inf")  # as in a turn that never commits
    while consumer.ledger.finished < 20:
        for part, messages in consumer.member.fetch(0.1):
            consumer._take(part, messages)
    (part,) = consumer.member.parts.values()
    again = consumer.member.rewind(part)
    assert (again.next, again.average.count) == (0, 0)
    assert again.backlog.offsets == list(range(20))
    assert consumer.ledger.finished == 0
    consumer.close()


def test_a_retry_that_is_undone_keeps_its_attempts_and_its_time() -> None:
    """When a transaction is undone, what waits in a retry topic is not begun anew, nor tried before it is due."""
    kit, orders = Kit(), take_orders(6)
    kit.send_orders(orders)
    seen: list[tuple[str, int, float]] = []

    def handler(order: Order, attempt: int) -> None:
        seen.append((order["orderId"], attempt, time.monotonic()))
        if attempt < 3:
            raise Transient("not yet")

    policy = RetryPolicy(backoff=Backoff("fixed", base=0.6))
    consumer = kit.consumer(handler, engine="topics", policy=policy)
    consumer.member._keep = True

    def waiting() -> list[Partition]:
        return [part for part in consumer.member.parts.values() if part.topic != kit.topic and len(part.backlog) == 6]

    met = soon(waiting)
    while not met():
        consumer.turn()
    for part in waiting():
        consumer.member.hold(consumer.member.rewind(part), time.monotonic())
    met = soon(lambda: consumer.ledger.finished == 6)
    while not met():
        consumer.turn()
    consumer.close()
    for order in orders:
        tries = [(attempt, at) for name, attempt, at in seen if name == order["orderId"]]
        assert [attempt for attempt, _ in tries] == [1, 2, 3]
        assert all(later - earlier >= 0.6 for (_, earlier), (_, later) in pairwise(tries))


def test_a_transaction_undone_between_two_partitions_loses_no_record() -> None:
    """What was fetched for a partition goes to its successor when the one before it in the fetch undoes everything."""
    kit, orders = Kit(2), take_orders(40)
    kit.send_orders(orders)
    consumer = kit.consumer()
    consumer.member._keep = True
    taken, fetch = consumer.delivery.taken, consumer.member.fetch
    undone: list[Partition] = []
    fetched: list[tuple[Partition, list[Message]]] = []

    def undo_once(part: Partition) -> bool:
        if not undone:
            undone.append(part)
            for one in list(consumer.member.parts.values()):
                if (again := consumer.member.rewind(one)).backlog:
                    consumer.member.hold(again, time.monotonic())
            return False
        return taken(part)

    def fetch_both(wait: float) -> list[tuple[Partition, list[Message]]]:
        if undone:
            return fetch(wait)
        while len(dict(fetched)) < 2:
            fetched.extend(fetch(wait))
        return fetched

    consumer.delivery.taken, consumer.member.fetch = undo_once, fetch_both  # type: ignore[method-assign]
    # A fetch goes on behind what the one before it brought. Here that is not taken yet, and the log has an end.
    consumer.member._logs.move_on = lambda *_: []  # type: ignore[method-assign]
    consumer.run(orders=40, idle=5)
    assert undone
    assert kit.state().average == average_of(orders)
