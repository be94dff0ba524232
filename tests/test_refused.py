"""A group that does not let a member in is named with its protocol and the way out; none is waited for in silence."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, KafkaError
from helpers import Kit, take_orders, wait_for, within

from orderkit.brokers import ApacheBroker
from orderkit.consuming.share import ShareGroupConsumer
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.members.refused import FOR_GOOD, OTHERS, Refusals

NOWHERE = Connection("127.0.0.1:1")
CONSUMER = {"group.protocol": "consumer"}


@pytest.fixture
def kit(apache: ApacheBroker) -> Kit:
    """Give topics on the real broker, and a group that nobody has."""
    return Kit(2, apache)


@contextmanager
def member(kit: Kit, **config: str) -> Iterator[None]:
    """Have another client in the kit's group; settings are librdkafka's, with `_` for `.`."""
    named = {name.replace("_", "."): value for name, value in config.items()}
    client = Consumer({"bootstrap.servers": kit.connection.bootstrap, "group.id": kit.group, "log_level": 0, **named})
    client.subscribe([kit.topic])
    done = threading.Event()

    def poll() -> None:
        while not done.is_set():
            client.poll(timeout=0.1)
        client.close()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    admin = kit.connection.admin()

    def is_in() -> bool:
        groups = admin.list_consumer_groups().result(10).valid
        return any(group.group_id == kit.group and group.state.name == "STABLE" for group in groups)

    try:
        wait_for(is_in)
        yield
    finally:
        done.set()
        thread.join(20)


def refusal(kit: Kit, **config: str) -> str:
    """Let a consumer join, give the line that it ends with."""
    named = {name.replace("_", "."): value for name, value in config.items()}
    kit.connection = Connection(kit.connection.bootstrap, named)
    with within(15), pytest.raises(OrderkitError) as caught:
        kit.consumer().run(idle=5)
    told = str(caught.value)
    assert len(told.splitlines()) == 1
    assert kit.group in told
    return told


@pytest.mark.kafka
@pytest.mark.parametrize(("theirs", "ours"), [("cooperative-sticky", "range"), ("range", "cooperative-sticky")])
def test_a_group_of_another_assignor_is_named_with_it(kit: Kit, theirs: str, ours: str) -> None:
    """Members with another assignor hold the group: after some seconds the line says which, and how to join them."""
    with member(kit, partition_assignment_strategy=theirs):
        told = refusal(kit, partition_assignment_strategy=ours)
    assert f"partition.assignment.strategy={theirs}" in told
    assert "--group" in told


@pytest.mark.kafka
@pytest.mark.parametrize("config", [{}, {"group_instance_id": "me"}], ids=["other", "same"])
def test_a_static_member_s_place_is_not_waited_for(kit: Kit, config: dict[str, str]) -> None:
    """Under the consumer protocol a second member of one instance id is refused at once, by that name; others join."""
    with member(kit, group_protocol="consumer", **config):
        if config:
            assert "group.instance.id" in refusal(kit, group_protocol="consumer", **config)
        else:
            kit.connection = Connection(kit.connection.bootstrap, CONSUMER)
            kit.consumer().run(idle=0.1)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"session_timeout_ms": "100"}, "session.timeout.ms"),
        ({"group_protocol": "consumer", "group_remote_assignor": "none-such"}, "group.remote.assignor"),
    ],
)
def test_what_the_group_will_never_take_is_said_at_once(kit: Kit, config: dict[str, str], told: str) -> None:
    """A setting that only the broker can refuse ends the consumer in one line with its name."""
    with within(10):
        assert told in refusal(kit, **config)


@pytest.mark.kafka
@pytest.mark.parametrize("config", [{}, CONSUMER], ids=["classic", "consumer"])
def test_a_share_consumer_cannot_join_another_kind_of_group(kit: Kit, config: dict[str, str]) -> None:
    """The name of a consumer group is taken: the line says by whom, and does not advise a consumer's settings."""
    with member(kit, **{name.replace(".", "_"): value for name, value in config.items()}):
        consumer = ShareGroupConsumer(
            kit.connection, group=kit.group, topic=kit.topic, dead_letters=kit.dead_letters
        )  # fmt: skip
        with within(15), pytest.raises(OrderkitError, match=kit.group) as caught:
            consumer.run(idle=60)
    assert "in --command-config" not in str(caught.value)


@pytest.mark.kafka
@pytest.mark.parametrize("config", [{}, {"group_protocol": "consumer"}], ids=["classic", "consumer"])
def test_a_share_group_s_name_is_taken_for_a_consumer(kit: Kit, config: dict[str, str]) -> None:
    """A share group holds its name against consumers of both protocols, and the line says what kind it is."""
    kit.send_orders(take_orders(1))
    sharer = ShareGroupConsumer(kit.connection, group=kit.group, topic=kit.topic, dead_letters=kit.dead_letters)
    thread = threading.Thread(target=sharer.run, kwargs={"idle": 60}, daemon=True)
    thread.start()
    try:
        wait_for(lambda: sharer.ledger.finished)
        assert "share group" in refusal(kit, **config)
    finally:
        sharer.stop()
        thread.join(20)


def test_a_group_that_lets_go_in_time_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals for a moment, and again much later, are two moments: a dead member's session ends by itself."""
    now = 100.0
    monkeypatch.setattr("orderkit.members.refused.time.monotonic", lambda: now)
    refusals = Refusals(NOWHERE, f"group.{uuid.uuid4().hex}")
    for step in (0.0, 2.0, 3.0, 60.0, 2.0, 2.0):
        now += step
        refusals.complain(KafkaError(KafkaError.INCONSISTENT_GROUP_PROTOCOL))
    now += 5.0
    with pytest.raises(OrderkitError, match="is held by"):
        refusals.complain(KafkaError(KafkaError.INCONSISTENT_GROUP_PROTOCOL))


@pytest.mark.parametrize("code", [*FOR_GOOD, KafkaError._FATAL])
def test_a_refusal_for_good_ends_the_member(code: int) -> None:
    """What waiting does not mend is one line at once, whatever wraps it."""
    with pytest.raises(OrderkitError):
        Refusals(NOWHERE, "g").complain(KafkaError(code))
    inner = KafkaError(code).str()
    with pytest.raises(OrderkitError) as caught:
        Refusals(NOWHERE, "g").complain(KafkaError(KafkaError._FATAL, f"Fatal error: {inner}: told twice: {inner}"))
    assert FOR_GOOD.get(code, "") in str(caught.value)
    assert not OTHERS & set(FOR_GOOD)
