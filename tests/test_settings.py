"""The kit's own client settings give way to a user's, and what would break its promises is refused by name."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from helpers import Kit, take_orders
from hypothesis import given
from hypothesis import strategies as st

from orderkit.errors import UsageError
from orderkit.kafka import Connection, connect
from orderkit.kafka.settings import ALIASES, BOUNDS, CONSUMER_SETTINGS, MOST, PRODUCER_SETTINGS, merge
from orderkit.members.group import EMBEDDED_SETTINGS

NOWHERE = "127.0.0.1:1"
EXACTLY_ONCE = {"transactional_id": "t", "transaction_timeout_ms": 60_000, "message_timeout_ms": 15_000}
# Each is valid by itself, and met one of ours, or a call's.
VALID = [
    {"group.protocol": "consumer"},
    {"group.protocol": "CONSUMER", "group.remote.assignor": "range"},
    {"group.protocol": "classic"},
    {"message.timeout.ms": "3"},
    {"delivery.timeout.ms": "3"},
    {"linger.ms": "60000"},
    {"queue.buffering.max.ms": "60000"},
    {"max.poll.interval.ms": "5000"},
    {"session.timeout.ms": "400000"},
    {"session.timeout.ms": "2000"},
    {"heartbeat.interval.ms": "15000"},
    {"reconnect.backoff.ms": "5000"},
    {"reconnect.backoff.max.ms": "10"},
    {"socket.timeout.ms": "120000"},
    {"socket.timeout.ms": "500"},
    {"fetch.wait.max.ms": "20000"},
    {"fetch.max.bytes": "5000"},
    {"receive.message.max.bytes": "100000"},
    {"message.max.bytes": "200000000"},
    {"transaction.timeout.ms": "1000"},
    {"enable.auto.commit": "false"},
    {"acks": "-1"},
    {"statistics.interval.ms": "1000"},
    {"enable.partition.eof": "true"},
    {"delivery.report.only.error": "true"},
    {"group.id": ""},
    {"group.id": "another"},
    {"group.instance.id": ""},
    {"transactional.id": "", "client.id": "", "client.rack": ""},
    {"partition.assignment.strategy": "cooperative-sticky"},
    {"auto.offset.reset": "latest", "isolation.level": "read_uncommitted"},
]


@pytest.mark.parametrize("config", VALID, ids=str)
def test_a_setting_that_is_valid_by_itself_meets_none_of_ours(config: dict[str, str]) -> None:
    """Every kind of client opens with it: a reader, a member, a member of the embedded broker, producers, an admin."""
    connection = Connection(NOWHERE, config)
    connection.consumer("readers").close()
    connection.consumer("readers", **EMBEDDED_SETTINGS).close()
    connection.producer()
    connection.producer(**EXACTLY_ONCE)
    assert isinstance(connection.admin(), AdminClient)


@pytest.mark.kafka
@pytest.mark.parametrize("config", VALID, ids=str)
def test_a_share_consumer_opens_too(config: dict[str, str], apache: Any) -> None:
    """What share groups have no use for is left out for them."""
    Connection(apache.bootstrap, config).share_consumer("readers", share_acknowledgement_mode="explicit").close()


@given(st.dictionaries(st.sampled_from(sorted({by for _, _, by, _, _ in BOUNDS})), st.integers(1, 10**9)))
def test_a_user_s_number_stays_and_ours_keep_their_bounds(theirs: dict[str, int]) -> None:
    """Whatever numbers a user gives, none is changed, and none of ours that follows one of them is beyond its bound."""
    for ours in (CONSUMER_SETTINGS, PRODUCER_SETTINGS):
        conf = merge({**ours, "group.id": "g"}, theirs, {})
        assert {name: conf[name] for name in theirs} == theirs
        for name, bound, by, times, more in BOUNDS:
            if by in theirs and name in conf and name not in theirs and name != "session.timeout.ms":
                limit = math.floor(theirs[by] * times + more)
                assert conf[name] <= limit if bound is MOST else conf[name] >= limit


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("enable.auto.commit=true", "Leave it out"),
        ("enable.auto.commit=TRUE ", "Leave it out"),
        ("auto.commit.enable=true", "Leave it out"),
        ("auto.offset.reset=none", "earliest or latest"),
        ("auto.offset.reset=error", "earliest or latest"),
        ("auto.offset.reset=by_duration:PT1H", "earliest or latest"),
        ("transactional.id=mine", "--instance NAME"),
        ("enable.idempotence=false", "Leave it out"),
        ("acks=1", "acks=all"),
        ("acks = 0", "acks=all"),
        ("request.required.acks=1", "acks=all"),
        ("test.mock.num.brokers=3", "orderkit broker"),
        ("partition.assignment.strategy=org.apache.kafka.clients.consumer.StickyAssignor", "cooperative-sticky"),
        ("partition.assignment.strategy=com.example.Mine", "cooperative-sticky"),
    ],
)
def test_what_would_break_a_promise_is_refused_by_name(line: str, instead: str, tmp_path: Path) -> None:
    """One line names the setting and what to write instead."""
    path = tmp_path / "client.properties"
    path.write_text(line + "\r\n", "utf-8")
    with pytest.raises(UsageError) as caught:
        connect(NOWHERE, path)
    told = str(caught.value)
    assert len(told.splitlines()) == 1
    name = line.partition("=")[0].strip()
    assert ALIASES.get(name, name) in told
    assert instead in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session.timeout.ms", ""),
        ("message.timeout.ms", "abc"),
        ("fetch.max.bytes", "1"),
        ("group.protocol", "foo"),
        ("partition.assignment.strategy", "range,cooperative-sticky"),
        ("max.in.flight", "10"),
        ("retries", "0"),
        ("sasl.mechanism", "GSSAPI"),
        ("plugin.library.paths", "nothing"),
    ],
)
def test_what_the_client_refuses_is_one_line_with_its_name(name: str, value: str) -> None:
    """The client's own words, on one line, name the setting and point at the file."""
    connection = Connection(NOWHERE, {name: value, **({"security.protocol": "SASL_SSL"} if "sasl" in name else {})})

    def open_clients() -> None:
        connection.consumer("readers").close()
        connection.producer()

    with pytest.raises(UsageError, match="--command-config") as caught:
        open_clients()
    assert len(str(caught.value).splitlines()) == 1


def test_a_name_with_underscores_is_told_from_a_wrong_one() -> None:
    """`sasl_mechanism`, as in the settings of other clients, is refused with how names are written here."""
    with pytest.raises(UsageError, match=r'"sasl_mechanism"\. Names have dots, not underscores\.'):
        Connection(NOWHERE, {"sasl_mechanism": "PLAIN"}).admin()


def test_what_a_registry_needs_is_left_out_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that Confluent writes for both kinds of client serves; the line says how a registry is named here."""
    path = tmp_path / "client.properties"
    path.write_text("schema.registry.url=http://x\nbasic.auth.credentials.source=USER_INFO\nclient.id=me\n", "utf-8")
    with caplog.at_level(logging.WARNING, "orderkit"):
        assert dict(connect(NOWHERE, path).config) == {"client.id": "me"}
    (record,) = caplog.records
    assert "schema.registry.url" in record.getMessage()
    assert "--schema-registry" in record.getMessage()


def test_what_only_java_knows_is_left_out_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file for Java's consumer serves: serializers, interceptors and metrics are named once, and not used."""
    path = tmp_path / "client.properties"
    path.write_text(
        "key.deserializer=org.example.A\nvalue.deserializer = org.example.B\ninterceptor.classes=C\n"
        "max.poll.records=10\nmetric.reporters=\nsasl.login.refresh.window.jitter=0.1\nclient.id=me\n",
        "utf-8",
    )
    with caplog.at_level(logging.WARNING, "orderkit"):
        assert dict(connect(NOWHERE, path).config) == {"client.id": "me"}
    (record,) = caplog.records
    assert all(name in record.getMessage() for name in ("key.deserializer", "interceptor.classes", "max.poll.records"))


@pytest.mark.parametrize(
    ("java", "ours"),
    [
        ("org.apache.kafka.clients.consumer.RangeAssignor", "range"),
        ("org.apache.kafka.clients.consumer.RoundRobinAssignor", "roundrobin"),
        ("org.apache.kafka.clients.consumer.CooperativeStickyAssignor", "cooperative-sticky"),
        (
            "org.apache.kafka.clients.consumer.RangeAssignor, "
            "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
            "range",
        ),
        ("range,roundrobin", "range,roundrobin"),
    ],
)
def test_java_s_assignors_have_their_names_here(java: str, ours: str, tmp_path: Path) -> None:
    """A class of Java's is the assignor that does the same; of Java's default pair the eager one is taken."""
    path = tmp_path / "client.properties"
    path.write_text(f"partition.assignment.strategy={java}\n", "utf-8")
    connection = connect(NOWHERE, path)
    assert connection.config["partition.assignment.strategy"] == ours
    connection.consumer("readers").close()


def test_spaces_line_ends_and_later_lines_count_as_in_java(tmp_path: Path) -> None:
    """A value's spaces and a file's CRLF are no part of it, and of two lines the later one counts."""
    path = tmp_path / "client.properties"
    path.write_bytes(b"client.id = first \r\nenable.auto.commit=false \r\nclient.id=second\t\r\nbootstrap.servers=\r\n")
    connection = connect(None, path)
    assert dict(connection.config) == {"client.id": "second", "enable.auto.commit": "false"}
    connection.consumer("readers").close()


def test_a_file_s_group_is_not_used_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`group.id` in a file would give every client of the kit one group; the line names the option instead."""
    path = tmp_path / "client.properties"
    path.write_text("group.id=theirs\n", "utf-8")
    with caplog.at_level(logging.WARNING, "orderkit"):
        assert "group.id" not in connect(NOWHERE, path).config
    assert "--group" in caplog.text


@pytest.mark.parametrize(
    "config",
    [{"delivery.report.only.error": "true"}, {"enable.partition.eof": "true"}, {"group.id": "another"}],
    ids=str,
)
def test_settings_that_callers_own_change_nothing(config: dict[str, str]) -> None:
    """A consumer with such a setting accounts for every order, dead letters included, in its own group."""
    kit = Kit(1)
    kit.send_orders(take_orders(20))
    kit.connection = Connection(kit.connection.bootstrap, {**kit.connection.config, **config})

    def refuse(order: Any, _attempt: int) -> None:
        if int(order["orderId"]) % 2:
            raise ValueError("odd")

    kit.consumer(refuse).run(orders=20, idle=5)
    assert kit.state().average.count + kit.state().dead == 20
