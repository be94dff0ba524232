"""Share groups on a real broker: deliveries counted by it, no back-off, and its own dead-letter topic."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from helpers import Kit, average_of, fate, take_orders, wait_for

from orderkit.account.audit import account, dead_letter_origins
from orderkit.brokers import ApacheBroker
from orderkit.brokers.dlq import use_broker_dlq
from orderkit.consuming.consumers import open_consumer
from orderkit.consuming.loop import Handler
from orderkit.consuming.share import ShareGroupConsumer, _complain
from orderkit.dead_letters import DeadLetterRecord, read_topic
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import RetryPolicy, Transient

FAULTS = Faults(5, transient_rate=0.3, permanent_rate=0.05)


def member(kit: Kit, handler: Handler, **settings: Any) -> ShareGroupConsumer:
    """Open a member of the kit's share group."""
    return ShareGroupConsumer(
        kit.connection,
        handler,
        group=kit.group,
        topic=kit.topic,
        dead_letters=kit.dead_letters,
        **settings,
    )


def broker_dlq(kit: Kit) -> str:
    """Give the kit's share group a dead-letter topic of the broker's own."""
    name = f"dlq.{kit.topic}"
    use_broker_dlq(kit.connection, kit.group, name, 1)
    return name


@pytest.mark.kafka
def test_a_share_group_gives_the_same_fates(apache: ApacheBroker) -> None:
    """The same handler and policy: the same orders are averaged and dead-lettered, after the same attempts."""
    kit, orders = Kit(2, apache), take_orders(100)
    kit.send_orders(orders)
    attempts: Counter[str] = Counter()

    def handler(order: Order, attempt: int) -> None:
        attempts[order["orderId"]] += 1
        assert attempt == attempts[order["orderId"]]
        FAULTS.strike(order, attempt)

    consumer = member(kit, handler)
    consumer.run(orders=100)
    good = [order for order in orders if fate(order, FAULTS)]
    state = consumer.state()
    assert state.average == average_of(good)
    letters = dead_letter_origins(kit.connection, kit.dead_letters, kit.group)
    assert len(letters) == state.dead == 100 - len(good) > 0
    report = account(consumer.ledger, state, kit.topic, letters=letters)
    assert report.conserved
    assert (report.lost, report.duplicated, report.in_flight) == (0, 0, 0)


@pytest.mark.kafka
def test_the_broker_s_own_dead_letter_topic(apache: ApacheBroker) -> None:
    """With KIP-1191 set up the consumer rejects, and the broker itself writes the dead letters, bytes included."""
    kit, orders = Kit(1, apache), take_orders(30)
    name = broker_dlq(kit)
    kit.send_orders(orders)
    consumer = member(kit, FAULTS.strike)
    assert consumer.broker_dlq == name
    consumer.run(orders=30)
    dead = [order["orderId"].encode() for order in orders if not fate(order, FAULTS)]
    assert dead
    wait_for(lambda: len(list(read_topic(kit.connection, name))) == len(dead))
    letters = list(read_topic(kit.connection, name))
    assert sorted(letter.key() or b"" for letter in letters) == sorted(dead)
    assert all("__dlq.errors." in str(letter.headers()) for letter in letters)
    read = list(map(DeadLetterRecord.of, letters))
    assert {(letter.dialect, letter.origin[0], letter.notes) for letter in read} == {("kip-1191", kit.topic, ())}
    assert kit.letters() == []


@pytest.mark.kafka
def test_a_released_record_comes_back_at_once(apache: ApacheBroker) -> None:
    """There is no back-off in a share group: three deliveries pass in a moment, whatever the policy says."""
    kit = Kit(1, apache)
    kit.send_orders(take_orders(1))

    def fail(_order: Order, _attempt: int) -> None:
        raise Transient("down")

    consumer = member(kit, fail)
    consumer.run(orders=1)
    assert list(consumer.ledger.attempt) == [1, 2, 3]
    assert consumer.ledger.at[2] - consumer.ledger.at[0] < 2.0
    (letter,) = kit.letters()
    assert letter.story["attempts"] == "3"


@pytest.mark.kafka
def test_a_broken_handler_gives_all_back(apache: ApacheBroker) -> None:
    """A fatal failure stops the consumer; its records are delivered to the next one, and none is lost."""
    kit, orders = Kit(1, apache), take_orders(10)
    kit.send_orders(orders)

    def broken(_order: Order, _attempt: int) -> None:
        raise NotImplementedError("todo")

    with pytest.raises(OrderkitError, match="todo"):
        member(kit, broken).run(orders=10)
    good = member(kit, lambda _order, _attempt: None)
    good.run(orders=10)
    assert good.state().average == average_of(orders)


@pytest.mark.kafka
def test_more_attempts_than_kafka_counts_are_refused(apache: ApacheBroker) -> None:
    """Kafka counts at most ten deliveries."""
    with pytest.raises(UsageError, match="2 to 10"):
        member(Kit(1, apache), lambda _order, _attempt: None, policy=RetryPolicy(max_attempts=10))


@pytest.mark.kafka
def test_a_broker_dlq_has_kafka_s_prefix(apache: ApacheBroker) -> None:
    """Kafka takes no dead-letter topic of a share group that is not called `dlq.` something."""
    with pytest.raises(UsageError, match="to be called dlq"):
        use_broker_dlq(apache.connection, "g", "orders-dlq", 1)


def broker_that_says(answer: dict[str, str] | KafkaException) -> Connection:
    """Give a cluster whose broker answers so when it is asked for a group's configs."""
    asked: Future[object] = Future()
    if isinstance(answer, KafkaException):
        asked.set_exception(answer)
    else:
        asked.set_result({name: SimpleNamespace(value=value) for name, value in answer.items()})

    class Told(Connection):
        is_embedded = False

        def admin(self) -> Any:
            return SimpleNamespace(describe_configs=lambda _resources, **_options: {None: asked})

        def partitions(self, topic: str, option: str = "--topic") -> list[int]:
            return [0] if topic and option else []

    return Told("old:9092")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"share.auto.offset.reset": "latest"},
        {"share.auto.offset.reset": "latest", "share.delivery.count.limit": "5"},
        KafkaException(KafkaError(KafkaError.UNSUPPORTED_VERSION)),
        KafkaException(KafkaError(KafkaError.INVALID_REQUEST, "Unsupported resource type")),
    ],
)
def test_a_broker_too_old_is_answered_with_the_version_it_takes(answer: dict[str, str] | KafkaException) -> None:
    """Without a group's dead-letter configs, or without groups at all, one line names the Kafka that has them."""
    broker = broker_that_says(answer)
    for use in (
        lambda: ShareGroupConsumer(broker, group="g"),
        lambda: use_broker_dlq(broker, "g", "dlq.orders", 1),
    ):
        with pytest.raises(OrderkitError, match=r"^[^\n]*Kafka 4\.4 or newer[^\n]*$"):
            use()


def test_a_broker_that_denies_the_group_is_not_called_old() -> None:
    """The version is named only where it may be the reason."""
    broker = broker_that_says(KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)))
    with pytest.raises(OrderkitError, match="cannot be set up") as told:
        ShareGroupConsumer(broker, group="g")
    assert "4.4" not in str(told.value)


@pytest.mark.parametrize("code", [KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE])
def test_a_poll_that_is_not_understood_names_the_version(code: int) -> None:
    """A broker that knows no share groups answers the first poll with that; the consumer ends with one line."""
    with pytest.raises(OrderkitError, match=r"no share groups.*Kafka 4\.4 or newer"):
        _complain(KafkaError(code))


def test_the_embedded_broker_has_no_share_groups() -> None:
    """The kit says so in one line."""
    kit = Kit()
    with pytest.raises(UsageError, match="real broker"):
        open_consumer(kit.connection, engine="share", group=kit.group, topic=kit.topic)
