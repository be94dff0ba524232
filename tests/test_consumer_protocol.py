"""The group protocol of KIP-848, `group.protocol=consumer`, works wherever the classic one does."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import AT_ONCE, Background, Kit, average_of, shared, take_orders, wait_for, within
from test_cli import orderkit

from orderkit.account.tally import AVERAGED
from orderkit.brokers import ApacheBroker
from orderkit.kafka import Connection
from orderkit.orders.faults import Faults
from orderkit.replay.job import Replay
from orderkit.run import Run

pytestmark = pytest.mark.kafka

CONSUMER = {"group.protocol": "consumer"}
FAULTS = Faults(5, transient_rate=0.2, permanent_rate=0.1)


@pytest.fixture
def kit(apache: ApacheBroker) -> Kit:
    """Give topics on the real broker, and connections that speak the new protocol."""
    kit = Kit(4, apache)
    kit.connection = Connection(kit.connection.bootstrap, CONSUMER)
    return kit


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once", "exactly-once"])
@pytest.mark.parametrize("engine", ["pause", "topics", "key-parking"])
def test_every_order_is_accounted_for(kit: Kit, delivery: str, engine: str) -> None:
    """Each delivery mode and each engine ends with every order averaged or dead, and everything committed."""
    kit.send_orders(take_orders(120))
    consumer = kit.consumer(FAULTS.strike, delivery=delivery, engine=engine, policy=AT_ONCE)
    with Background(consumer):
        wait_for(lambda: consumer.ledger.finished >= 120 and consumer.settled)
    kit.assert_all_accounted(FAULTS)


def test_a_run_is_conserved(apache: ApacheBroker) -> None:
    """A whole run, producer included, accounts for every order."""
    run = Run(Connection(apache.bootstrap, CONSUMER), orders=200, faults=FAULTS, policy=AT_ONCE)
    report = run.start().wait(60).report()
    assert report.conserved
    assert report.averaged + report.dead == 200


def test_the_average_goes_on_after_a_restart(kit: Kit) -> None:
    """A second start goes on from the first one's average, and both together have each order once."""
    orders = take_orders(60)
    for some in (orders[:25], orders[25:]):
        kit.send_orders(some)
        kit.consumer().run(orders=len(some))
    assert kit.state().average == average_of(orders)


@pytest.mark.parametrize("instance", ["", "me"], ids=["dynamic", "static"])
def test_a_member_leaves_its_group_at_once(kit: Kit, instance: str) -> None:
    """A stopped member does not wait for what the client never says; the next one has the partitions soon."""
    kit.send_orders(take_orders(8))
    kit.connection = Connection(kit.connection.bootstrap, {**CONSUMER, "group.instance.id": instance})
    consumer = kit.consumer()
    with Background(consumer):
        wait_for(lambda: consumer.ledger.finished == 8)
        with within(2):
            consumer.stop()
            wait_for(lambda: not consumer.member.parts)
    kit.send_orders(take_orders(8, seed=2))
    with within(10):
        kit.consumer().run(orders=8)
    assert kit.state().average.count == 16


def test_members_come_and_go_and_no_order_counts_twice(kit: Kit) -> None:
    """Two members share the partitions, one leaves, the other goes on: the average has each order once."""
    waves = [take_orders(100, seed) for seed in (1, 2, 3)]
    first = kit.consumer(batch=20)
    with Background(first):
        wait_for(lambda: len(first.member.parts) == 4)
        kit.send_orders(waves[0])
        second = kit.consumer(batch=20)
        with Background(second):
            wait_for(lambda: len(second.member.parts) == len(first.member.parts) == 2)
            kit.send_orders(waves[1])
            wait_for(lambda: second.ledger.finished > 0)
        kit.send_orders(waves[2])
        wait_for(kit.settled, 40)
    assert kit.state().average == average_of([order for wave in waves for order in wave])


def test_both_protocols_share_a_group(kit: Kit) -> None:
    """A member of the old protocol and one of the new share a group's partitions, as Kafka's upgrade path has it."""
    orders = take_orders(100)
    plain = Connection(kit.connection.bootstrap)
    new = kit.consumer()
    with Background(new):
        wait_for(lambda: len(new.member.parts) == 4)
        old = kit.consumer(connection=plain)
        with Background(old):
            wait_for(lambda: len(old.member.parts) == len(new.member.parts) == 2, 40)
            kit.send_orders(orders)
            wait_for(kit.settled)
    assert kit.state().average == average_of(orders)


@pytest.mark.parametrize("exactly_once", [False, True])
def test_a_replay_keeps_its_offsets(kit: Kit, exactly_once: bool) -> None:
    """Dead letters go back once, and the replay's group knows how far it is."""
    faults = Faults(1, permanent_rate=1.0)
    kit.send_orders(take_orders(10))
    kit.consumer(faults.strike).run(orders=10)
    for expected in (10, 0):
        replay = Replay(kit.connection, kit.dead_letters, to=kit.topic, exactly_once=exactly_once)
        assert replay.run().written == expected


def test_the_command_line_has_it_in_a_file(kit: Kit, tmp_path: Path) -> None:
    """`consume`, `average` and `topics list` work with a properties file that says so."""
    file = tmp_path / "client.properties"
    file.write_text("group.protocol = consumer\r\n")
    kit.send_orders(take_orders(5))
    options = ["--command-config", str(file), "--bootstrap-server", kit.connection.bootstrap]
    named = ["--group", kit.group, "--topic", kit.topic, "--dlq-topic", kit.dead_letters]
    done = orderkit("consume", "--orders", "5", *named, *options)
    assert done.returncode == 0, done.stderr
    assert "over 5 orders" in orderkit("average", *named, *options).stdout
    assert kit.topic in orderkit("topics", "list", *options).stdout


def test_the_embedded_broker_takes_it_or_says_so() -> None:
    """Librdkafka's mock knows the new protocol, too; its own time-outs do not get in the way."""
    kit = Kit(1, shared())
    kit.connection = Connection(kit.connection.bootstrap, CONSUMER)
    kit.send_orders(take_orders(5))
    consumer = kit.consumer()
    consumer.run(orders=5)
    assert consumer.ledger.counts[AVERAGED] == 5
