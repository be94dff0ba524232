"""Brokers that give no transactions, and groups that went on in the middle of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AclOperation, ResourceType  # type: ignore[attr-defined]
from helpers import AT_ONCE, Background, Kit, take_orders, wait_for, within
from rights import AUTHORIZER, Rights

from orderkit.account.tally import UNDONE
from orderkit.brokers import ApacheBroker
from orderkit.delivery import exactly_once
from orderkit.errors import OrderkitError
from orderkit.kafka import transactions
from orderkit.orders.faults import Faults
from orderkit.replay.job import Replay

pytestmark = pytest.mark.kafka

SETTINGS = {
    **AUTHORIZER,
    "allow.everyone.if.no.acl.found": "true",
    "transaction.state.log.replication.factor": "3",  # what Kafka has by default, and one broker cannot give
}
BOBS = "bobs.group"  # its transactional ids are for bob alone


@pytest.fixture(scope="module")
def without(apache: ApacheBroker) -> Iterator[ApacheBroker]:
    """Give a broker that has no place for transactions, and keeps two transactional ids for bob."""
    assert apache
    with ApacheBroker(properties=SETTINGS) as broker:
        rights = Rights(broker)
        for name in ("a", "0"):  # the consumer's below, and the first partition's in a replay
            rights.grant(ResourceType.TRANSACTIONAL_ID, f"{BOBS}.{name}", AclOperation.ALL)
        yield broker


def consume(kit: Kit, group: str) -> object:
    """Open a consumer of that group, which begins its first transaction."""
    kit.group = group
    return kit.consumer(delivery="exactly-once", instance="a")


def replay(kit: Kit, group: str) -> object:
    """Replay in transactions, with offsets of that group."""
    return Replay(kit.connection, kit.dead_letters, to=kit.topic, group=group, exactly_once=True).run()


@pytest.mark.parametrize("begin", [consume, replay])
@pytest.mark.parametrize(
    ("group", "advice"),
    [
        ("group", "need transaction.state.log.replication.factor=1 and transaction.state.log.min.isr=1."),
        (BOBS, "Ask for WRITE and DESCRIBE on transactional ids that begin with 'bobs.group.'."),
    ],
)
def test_a_broker_without_transactions_is_named_with_its_remedy(
    begin: Callable[[Kit, str], object], group: str, advice: str, without: ApacheBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No place for them, or no right to them: one line says which, and what to ask for."""
    monkeypatch.setattr(transactions, "PATIENCE", 1.0)
    monkeypatch.setattr(exactly_once, "PATIENCE", 1.0)
    with pytest.raises(OrderkitError) as caught:
        begin(Kit(1, without), group)
    assert str(caught.value).startswith("The broker gives no transactions: ")
    assert str(caught.value).endswith(advice)


WAITING = """
import sys
from orderkit.cli import main
from orderkit.delivery import exactly_once
insist = exactly_once.insist
exactly_once.insist = lambda *args, **more: print("begun", flush=True) or insist(*args, **more)
main(sys.argv[1:])
"""


def test_ctrl_c_is_heard_while_transactions_are_waited_for(without: ApacheBroker) -> None:
    """The wait takes half a minute; Ctrl-C ends it within seconds, with 130 and one line."""
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, "consume", "--delivery", "exactly-once"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": without.bootstrap},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        with within(10):
            _, told = process.communicate()
    assert (process.returncode, told.strip()) == (130, "orderkit: interrupted.")


class Outdated(Consumer):
    """Tells the next transaction, once, what it is given to tell of the group; else the truth."""

    last: object = None
    told = 0

    def consumer_group_metadata(self) -> object:
        if self.last is None:
            return super().consumer_group_metadata()
        told, self.last = self.last, None
        self.told += 1
        return told


def test_a_group_that_went_on_in_the_middle_of_a_transaction_undoes_it(
    apache: ApacheBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction with what the member knew before a rebalance is refused and done again: nothing lost or doubled."""
    monkeypatch.setattr("orderkit.kafka.connection.Consumer", Outdated)
    kit, orders, faults = Kit(2, apache), take_orders(200), Faults(3, transient_rate=0.2, permanent_rate=0.05)
    kit.send_orders(orders[:100])
    first = kit.consumer(faults.strike, delivery="exactly-once", policy=AT_ONCE)
    client = first.member.client
    assert isinstance(client, Outdated)
    with Background(first):
        wait_for(kit.settled)
        before = Consumer.consumer_group_metadata(client)
        second = kit.consumer(faults.strike, delivery="exactly-once", policy=AT_ONCE)
        with Background(second):
            wait_for(lambda: len(first.member.parts) == len(second.member.parts) == 1)
            kit.send_orders(orders[100:150])
            wait_for(kit.settled)
            client.last = before
            kit.send_orders(orders[150:])
            wait_for(kit.settled)
    assert client.told == 1
    assert first.ledger.counts[UNDONE] > 0
    kit.assert_all_accounted(faults)
