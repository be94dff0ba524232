"""Names and numbers are held against Kafka's rules before the client sees them: it ends the process over some."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderkit.account.state import group_state
from orderkit.brokers import EmbeddedBroker
from orderkit.consumer import RetryingConsumer
from orderkit.errors import UsageError
from orderkit.kafka import Connection
from orderkit.kafka.names import check_address, check_count, check_group, check_seconds, check_text, check_topic
from orderkit.producer import OrderProducer
from orderkit.run import Run

NOWHERE = Connection("127.0.0.1:1")
NO_TEXT: list[Any] = ["", None, 3, b"orders", ["orders"], "a\0b", "\udcff", "g" * 40_000]
NO_TOPIC: list[Any] = [*NO_TEXT, "a b", "a/b", "ä", "a\n", ".", "..", "^a", "a" * 250, "dlq:1"]


def is_taken(check: Callable[[], object]) -> bool:
    """Say whether a check lets its value through; one line says why not."""
    try:
        check()
    except UsageError as error:
        if len(str(error).splitlines()) != 1:
            raise
        return False
    return True


@pytest.mark.parametrize("name", ["a", "a.b_c-D9", "a" * 249, "...", "__x"])
def test_a_topic_s_legal_names(name: str) -> None:
    """Kafka's own characters, up to 249 of them, are a topic's name."""
    assert check_topic(name) == name


@given(st.text())
def test_a_topic_s_name_is_legal_exactly_by_kafka_s_rule(name: str) -> None:
    """What `Topic.validate` of Kafka allows goes through, and nothing else does."""
    legal = re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", name, re.ASCII) and name not in {".", ".."}
    assert is_taken(lambda: check_topic(name)) == bool(legal)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_text_is_a_group(name: str) -> None:
    """A group's name has no rules but those of text: spaces, slashes and umlauts are fine."""
    assert check_group(name) == name


@pytest.mark.parametrize("name", NO_TEXT)
@pytest.mark.parametrize(
    "use",
    [
        NOWHERE.consumer,
        NOWHERE.share_consumer,
        lambda name: RetryingConsumer(NOWHERE, group=name),
    ],
    ids=["client", "share", "consumer"],
)
def test_no_client_is_opened_for_what_is_no_group(use: Callable[[Any], object], name: object) -> None:
    """An empty group, which ends the process in the client, is refused like all that is no text: in one line."""
    with pytest.raises(UsageError) as caught:
        use(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", NO_TOPIC)
@pytest.mark.parametrize(
    "use",
    [
        NOWHERE.partitions,
        NOWHERE.watermarks,
        lambda name: NOWHERE.delete_topics([name]),
        lambda name: RetryingConsumer(NOWHERE, topic=name),
        lambda name: RetryingConsumer(NOWHERE, dead_letters=name),
        lambda name: OrderProducer(NOWHERE, name),
    ],
    ids=["partitions", "watermarks", "delete", "topic", "dead-letters", "producer"],
)
def test_what_is_no_topic_is_refused_before_a_broker_is_asked(use: Callable[[Any], object], name: object) -> None:
    """An illegal topic's name is one line that does not advise to create it; no broker is needed to know."""
    with pytest.raises(UsageError) as caught:
        use(name)
    assert len(str(caught.value).splitlines()) == 1
    assert "topics create" not in str(caught.value)


@pytest.mark.parametrize("partitions", [0, -1, 100_001, 2**40, "1", 1.5, None, True])
def test_a_number_of_partitions_is_checked(partitions: Any) -> None:
    """What is no number of partitions reaches neither broker."""
    with pytest.raises(UsageError):
        NOWHERE.create_topics({"orders": partitions})
    if partitions is not True:
        with EmbeddedBroker({}) as broker, pytest.raises(UsageError):
            broker.create_topics({"orders": partitions})


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), 1e12, None, "3"])
def test_a_time_that_nobody_can_wait_is_refused(timeout: Any) -> None:
    """Negative, endless and unreadable times are one line, not the client's own reading of them."""
    with pytest.raises(UsageError):
        NOWHERE.metadata(timeout)


@pytest.mark.parametrize("batch", [0, -5, 1_000_001, 10**30, "7", None])
def test_a_batch_that_the_client_cannot_take_is_refused(batch: Any) -> None:
    """The number of records in a batch is what one call of the client can return."""
    with pytest.raises(UsageError, match="batch"):
        RetryingConsumer(NOWHERE, batch=batch)


@pytest.mark.parametrize("name", ["a b", "a/b", "ä", "a\n", "a\0b", "\udcff", "x" * 250])
def test_a_run_s_name_makes_topics(name: str) -> None:
    """A run whose name cannot be part of a topic's name is refused."""
    with EmbeddedBroker({}) as broker, pytest.raises(UsageError):
        Run(broker, name=name)


def test_a_retry_topic_s_name_is_the_group_s_fault() -> None:
    """A group whose name cannot be part of a retry topic's name is told so, with the option to change."""
    with EmbeddedBroker() as broker, pytest.raises(UsageError, match=r"retry topic .* --group"):
        RetryingConsumer(broker.connection, group="my group", engine="topics")


@pytest.mark.parametrize("group", ["my group", "g" * 300, "ä/ö"])
def test_a_group_with_an_odd_name_works(group: str) -> None:
    """Names that only topics may not have are good for a group."""
    with EmbeddedBroker() as broker:
        RetryingConsumer(broker.connection, group=group).run(idle=0.1)
        assert group_state(broker.connection, group, "orders").average.count == 0


@pytest.mark.parametrize("address", [None, "", 9092, "a:65536", "a:1,,b:2", "PLAINTEXT://a:1", "a\0b:1", b"a:1"])
def test_a_connection_s_address_is_checked(address: Any) -> None:
    """What is no address is refused where the connection is made, in Python too."""
    with pytest.raises(UsageError, match="HOST:PORT"):
        Connection(address)


@pytest.mark.parametrize(
    "config", [{"client.id": None}, {"client.id": "a\0b"}, {3: "x"}, {"": "x"}, {"client.id": object()}, ["a"], "a=b"]
)
def test_a_connection_s_settings_are_checked(config: Any) -> None:
    """Settings that are no text and no number are named, and no value is shown."""
    with pytest.raises(UsageError) as caught:
        Connection("a:1", config)
    assert len(str(caught.value).splitlines()) == 1


@given(st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text())))
def test_nothing_but_a_usage_error_comes_of_a_check(value: object) -> None:
    """Whatever a check is given, it answers or says one line."""
    for check in (
        check_topic,
        check_group,
        check_address,
        lambda it: check_text("name", it),
        lambda it: check_count("number", it, 0, 9),
        lambda it: check_seconds("time", it),
    ):
        is_taken(partial(check, value))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["consume", "--group", ""], "--group"),
        (["average", "--group", os.fsdecode(b"\xff")], "no valid text"),
        (["consume", "--delivery", "exactly-once", "--instance", ""], "instance"),
        (["consume", "--topic", "a b"], "--topic"),
        (["produce", "--topic", "x" * 250], "249"),
        (["dlq", "list", "--dlq-topic", "?"], "--dlq-topic"),
        (["dlq", "replay", "--to", "a/b"], "'/'"),
        (["dlq", "replay", "--group", ""], "--group"),
        (["topics", "create", "--partitions", "100001"], "100000"),
        (["topics", "create", "--broker-dlq", "dlq.a b"], "' '"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_on_the_command_line_it_is_status_2(arguments: list[str], told: str) -> None:
    """A name that nobody takes ends a real process with 2 and one line, and with no signal."""
    command = [sys.executable, "-m", "orderkit", *arguments]
    with EmbeddedBroker() as broker:
        kept = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=kept, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert told in done.stderr
    assert "topics create" not in done.stderr
