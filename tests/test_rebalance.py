"""Several members of one group: partitions change hands, and every order still has one fate.

The embedded broker refuses commits from the moment a rebalance begins, a real one takes them until it is over. What a
member had not committed by then is delivered again, so on the embedded broker a dead letter may be written twice; its
order is still committed, and counted, once.
"""

from __future__ import annotations

import random
import time

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from helpers import (
    BROKERS,
    SOON,
    Background,
    Kit,
    average_of,
    open_broker,
    shared,
    shorten_probes,
    slowed,
    soon,
    take_orders,
    wait_for,
)

from orderkit.account.tally import AVERAGED
from orderkit.consumer import RetryingConsumer
from orderkit.kafka import Connection
from orderkit.members.commits import to_offsets
from orderkit.members.group import GroupMember
from orderkit.members.patience import leave_group
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import Permanent

PARTITIONS = 4


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let refused letters be offered again after a fraction of a second."""
    shorten_probes(monkeypatch)


def partitions_of(consumer: RetryingConsumer) -> set[int]:
    """Say which partitions a member has."""
    return {partition for _, partition in list(consumer.member.parts)}


def shared_out(*members: RetryingConsumer) -> bool:
    """Say whether the members have all partitions between them, and each has some."""
    have = [partitions_of(member) for member in members]
    return all(have) and sum(map(len, have)) == PARTITIONS == len(set().union(*have))


def all_refused(member: RetryingConsumer) -> bool:
    """Say whether a letter of each of the member's partitions was refused: the partition waits with it."""
    parts = list(member.member.parts.values())
    return bool(parts) and all(part.refused for part in parts)


@pytest.mark.parametrize("name", BROKERS)
def test_a_member_joins_and_another_leaves(name: str, request: pytest.FixtureRequest) -> None:
    """Through a join and a leave, with retries waiting, the merged average is exact and no order has two fates."""
    kit, faults = Kit(PARTITIONS, open_broker(name, request)), Faults(21, transient_rate=0.3, permanent_rate=0.05)
    orders = take_orders(800, seed=21)

    def handler(order: Order, attempt: int) -> None:
        time.sleep(0.001)  # the handler's own work, so that there is a middle to join in
        faults.strike(order, attempt)

    kit.send_orders(orders[:400])
    first = kit.consumer(handler, policy=SOON, batch=20)
    with Background(first) as leaving:
        wait_for(lambda: first.ledger.finished > 100)
        second = kit.consumer(handler, policy=SOON, batch=20)
        with Background(second):
            wait_for(lambda: shared_out(first, second))
            kit.send_orders(orders[400:])
            before = first.ledger.finished, second.ledger.finished
            wait_for(lambda: first.ledger.finished > before[0] and second.ledger.finished > before[1])
            leaving.stop()
            wait_for(lambda: len(partitions_of(second)) == PARTITIONS)
            wait_for(kit.settled, 40)
    kit.assert_all_accounted(faults, again=name == "embedded")
    assert first.ledger.finished + second.ledger.finished == 800
    assert first.ledger.counts[AVERAGED] + second.ledger.counts[AVERAGED] == kit.state().average.count


def test_what_was_refused_is_not_taken_for_done_when_another_has_done_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is refused in a rebalance is known to be, before the partition's next owner commits the same."""
    kit, orders = Kit(2, shared()), take_orders(600, seed=22)
    more = [orders[at : at + 20] for at in range(580, 0, -20)]
    join = GroupMember._on_assign

    def join_late(member: GroupMember, client: Consumer, offsets: list[TopicPartition]) -> None:
        if len(members) == 2 and member is members[0].member:
            wait_for(lambda: members[1].ledger.finished and members[1].member.settled)
        join(member, client, offsets)

    def handler(_order: Order, _attempt: int) -> None:
        time.sleep(0.003)
        if more and members[0].ledger.finished % 10 == 0:
            kit.send_orders(more.pop())  # a few at a time, so that both partitions are being worked on

    monkeypatch.setattr(GroupMember, "_on_assign", join_late)
    kit.send_orders(orders[:20])
    members = [kit.consumer(handler, batch=10)]
    with Background(members[0]):
        wait_for(lambda: members[0].ledger.finished > 60)
        members.append(kit.consumer(batch=10))
        with Background(members[1]):
            wait_for(lambda: not more)
            wait_for(lambda: kit.settled() and sum(member.ledger.finished for member in members) >= 600)
    assert sum(member.ledger.finished for member in members) == 600


@pytest.mark.parametrize("name", BROKERS)
def test_members_that_come_and_go_at_random(name: str, request: pytest.FixtureRequest) -> None:
    """Whatever the moments of joining and leaving, the committed average is exact and dead letters are single."""
    chance, faults = random.Random(4), Faults(4, transient_rate=0.3, permanent_rate=0.05)
    kit = Kit(PARTITIONS, open_broker(name, request))
    kit.send_orders(take_orders(400, seed=4))

    def handler(order: Order, attempt: int) -> None:
        time.sleep(0.002)  # the handler's own work
        faults.strike(order, attempt)

    members = [Background(kit.consumer(handler, policy=SOON, batch=10)).start()]
    for _ in range(2):
        members.append(Background(kit.consumer(handler, policy=SOON, batch=10)).start())
        done = sum(member.consumer.ledger.finished for member in members)
        aim = min(300, done + chance.randint(10, 80))
        wait_for(lambda aim=aim: sum(m.consumer.ledger.finished for m in members) >= aim)  # type: ignore[misc]
        chance.choice([member for member in members if not member.stopped][:-1] or members[:1]).stop()
    last = kit.consumer(faults.strike, policy=SOON)
    for member in members:
        member.stop()
    last.run(until=soon(kit.settled))
    kit.assert_all_accounted(faults, again=name == "embedded")


def test_a_back_off_goes_with_its_partition() -> None:
    """An order that waits for its next attempt when its partition changes hands does not start again at attempt 1."""
    seen: list[int] = []

    def handler(order: Order, attempt: int) -> None:
        if order["orderId"] == "1":
            seen.append(attempt)
            raise TimeoutError

    kit = Kit()
    kit.send_orders(take_orders(3))
    with Background(kit.consumer(handler, policy=SOON)) as work:
        wait_for(lambda: seen)
        work.stop()
    kit.consumer(handler, policy=SOON).run(until=soon(kit.settled))
    assert seen == [1, 2, 3]
    (letter,) = kit.letters()
    assert letter.story["attempts"] == "3"
    assert kit.state().average == average_of(take_orders(3)[1:])


def test_a_member_that_hangs_does_not_spoil_the_average() -> None:
    """A handler longer than `max.poll.interval.ms` loses its partition; what it then commits is refused."""
    kit, orders = Kit(), take_orders(40)
    kit.send_orders(orders)
    connection = Connection(kit.connection.bootstrap, {"max.poll.interval.ms": "2000"})
    hung: list[int] = []

    def hang(order: Order, attempt: int) -> None:
        if order["orderId"] == "10" and not hung:  # once: the group may give it the partition again
            hung.append(attempt)
            time.sleep(3.0)  # longer than the member may be silent

    with Background(kit.consumer(hang, connection=connection)):
        wait_for(lambda: hung)
        with Background(kit.consumer()):
            wait_for(kit.settled)
    assert kit.offsets() == {0: 40}
    assert kit.state().average == average_of(orders)


def test_a_member_begins_where_its_average_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that comes in while a partition is assigned moves neither: no order is passed over."""
    kit, orders = Kit(), take_orders(40)
    kit.send_orders(orders)
    consumer = kit.consumer()
    read = consumer.member.offsets.read

    def commit_meanwhile(offsets: list[TopicPartition], patience: float = float("inf")) -> list[TopicPartition]:
        found = read(offsets, patience)
        if patience == float("inf"):  # the question that an assignment asks
            late = [TopicPartition(offset.topic, offset.partition, 10) for offset in offsets]
            consumer.member.client.commit(offsets=late, asynchronous=False)
        return found

    monkeypatch.setattr(consumer.member.offsets, "read", commit_meanwhile)
    with Background(consumer):
        wait_for(kit.settled)
    assert kit.state().average == average_of(orders)


def test_partitions_may_move_one_by_one() -> None:
    """Members that keep most of their partitions in a rebalance account for every order, too (KIP-429)."""
    kit, orders = Kit(PARTITIONS), take_orders(400)
    connection = Connection(kit.connection.bootstrap, {"partition.assignment.strategy": "cooperative-sticky"})
    kit.send_orders(orders[:200])
    first = kit.consumer(connection=connection)
    with Background(first):
        wait_for(kit.settled)
        second = kit.consumer(connection=connection)  # it joins at once, and is given what it does not read
        with Background(second):
            wait_for(lambda: shared_out(first, second))
            kit.send_orders(orders[200:])
            wait_for(kit.settled)
    assert kit.state().average == average_of(orders)


def test_a_member_that_leaves_answers_every_rebalance_first() -> None:
    """A rebalance that is answered while the client closes may stand still for ever, and the interpreter with it."""
    kit = Kit()
    told: list[str] = []

    class Told(Consumer):
        def close(self) -> None:
            told.append("closed")
            super().close()

    def join() -> Consumer:
        client = Told(
            {
                "bootstrap.servers": kit.connection.bootstrap,
                "group.id": kit.group,
                "session.timeout.ms": 2000,
                "heartbeat.interval.ms": 100,
            }
        )
        client.subscribe(
            [kit.topic],
            on_assign=lambda *_: told.append("assign"),
            on_revoke=lambda *_: told.append("revoke"),
            on_lost=lambda *_: told.append("lost"),
        )
        return client

    first = join()
    wait_for(lambda: first.poll(0.1) or first.assignment())
    second = join()
    wait_for(second.memberid)  # from now on the first one may be asked for its partition
    leave_group(first, lambda: "revoke" in told)
    assert told == ["assign", "revoke", "closed"]
    leave_group(second, lambda: True)


def test_dead_letters_of_a_lost_partition_are_not_offered_again() -> None:
    """Letters refused before a partition moved on are written by its new owner, once."""
    kit, orders = Kit(PARTITIONS), take_orders(40)

    def refuse_all(_order: Order, _attempt: int) -> None:
        raise Permanent("no")

    kit.send_orders(orders)
    shared().refuse(kit.dead_letters)
    first = kit.consumer(refuse_all)
    with Background(first):
        wait_for(lambda: all_refused(first))
        second = kit.consumer(refuse_all)
        with Background(second):
            wait_for(lambda: shared_out(first, second) and all_refused(first) and all_refused(second))
            shared().accept(kit.dead_letters)
            wait_for(kit.settled)
    assert sorted(letter.origin for letter in kit.letters()) == [
        (kit.topic, partition, offset) for partition in range(PARTITIONS) for offset in range(10)
    ]
    assert (kit.state().dead, kit.state().average.count) == (40, 0)


@pytest.mark.parametrize("answer", ["none yet", "connection lost"])
def test_a_commit_whose_answer_is_lost_with_the_partition_counts(answer: str) -> None:
    """A partition is lost, and with it the answer to a commit that went through: the ledger keeps what it settled."""
    kit = Kit()
    kit.send_orders(take_orders(5))
    consumer = kit.consumer()
    while not consumer.member.parts:
        consumer.turn()
    member = consumer.member
    with slowed(100):
        while consumer.ledger.finished < 5 or member.commits._waiting:
            consumer.turn()  # the last turn sends the commit, and does not wait for its answer
        if answer == "connection lost":
            member.commits.answered(KafkaError(KafkaError._TRANSPORT), [])
        member._on_lost(member.client, [TopicPartition(kit.topic, 0)])
        consumer.close()
    wait_for(kit.settled)
    assert consumer.ledger.counts[AVERAGED] == kit.state().average.count == 5


@pytest.mark.parametrize("then", ["assigned again", "leaves"])
def test_a_commit_that_arrives_after_its_partition_was_lost_counts(then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit may be on its way still when a partition is lost: the ledger takes nothing back before it is known."""
    kit = Kit()
    kit.send_orders(take_orders(5))
    consumer = kit.consumer()
    member = consumer.member
    while not member.parts:
        consumer.turn()
    commits = member.commits
    monkeypatch.setattr(
        commits, "start", lambda ready: commits._sent.update({part.key: (part, p) for part, p in ready})
    )
    while consumer.ledger.finished < 5:
        consumer.turn()
    member._on_lost(member.client, [TopicPartition(kit.topic, 0)])
    member.client.commit(offsets=to_offsets(commits._sent.values()), asynchronous=False)
    commits.answered(KafkaError(KafkaError._TRANSPORT), [])
    if then == "assigned again":
        member._on_assign(member.client, [TopicPartition(kit.topic, 0)])
        assert member.parts[kit.topic, 0].committed == 5
        assert consumer.ledger.finished == 5
    consumer.close()
    assert consumer.ledger.counts[AVERAGED] == kit.state().average.count == 5
