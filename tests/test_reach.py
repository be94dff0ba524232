"""A broker that cannot be used says why: an address that leads nowhere, another security protocol, nobody at all."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from certificates import Certificates
from helpers import within
from test_cli import orderkit

from orderkit.brokers import ApacheBroker, EmbeddedBroker
from orderkit.brokers._ports import Ports
from orderkit.doctor import examine
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection, reach
from orderkit.kafka.listener import what_listens
from orderkit.kafka.reach import check_advertised

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
LISTENERS = {
    "PLAINTEXT": "PLAINTEXT", "TLS": "SSL", "PLAIN": "SASL_PLAINTEXT", "BOTH": "SASL_SSL", "OUT": "PLAINTEXT",
}  # fmt: skip
LOGIN = {"sasl.mechanism": "PLAIN", "sasl.username": "alice", "sasl.password": "secret"}
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


@contextmanager
def silent() -> Iterator[tuple[str, int]]:
    """Give the address of something that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        yield "127.0.0.1", stranger.getsockname()[1]


@pytest.fixture(autouse=True)
def _nothing_reached_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_reached", set())


@pytest.fixture(scope="module")
def broker(apache: ApacheBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheBroker]:
    """Give a real broker with a listener of each protocol, and one that sends its clients to where nobody is."""
    assert apache  # the session's broker decides whether there can be one at all
    folder, login = tmp_path_factory.mktemp("reach"), f'{PLAIN} username="a" password="b" user_alice="secret";'
    certificates = Certificates(folder)
    with Ports(LISTENERS) as ports, _open(certificates, login, ports.numbers) as running:
        yield running


def _open(certificates: Certificates, login: str, ports: Mapping[str, int]) -> ApacheBroker:
    advertised = [f"{name}://127.0.0.1:{ports[name]}" for name in LISTENERS if name != "OUT"]
    settings = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.store("broker", "localhost", "127.0.0.1")),
        "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plain.plain.sasl.jaas.config": login,
        "listener.name.both.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.both.plain.sasl.jaas.config": login,
        "advertised.listeners": ",".join([*advertised, "OUT://kafka.invalid:9092"]),
    }
    return ApacheBroker(
        {"orders": 1, "orders-dlq": 1}, port=ports["PLAINTEXT"], listeners=LISTENERS, properties=settings
    )


@pytest.mark.kafka
@pytest.mark.parametrize("listener", ["PLAINTEXT", "TLS", "PLAIN", "BOTH"])
def test_a_listener_is_known_by_its_protocol(broker: ApacheBroker, listener: str) -> None:
    """Without a password, and believing nothing, the kit finds out which of Kafka's protocols a listener speaks."""
    protocol = LISTENERS[listener]
    assert what_listens(broker.address(listener)) == (protocol, "PLAIN" if "SASL" in protocol else "")


@pytest.mark.kafka
@pytest.mark.parametrize("listener", ["PLAINTEXT", "TLS", "PLAIN", "BOTH"])
@pytest.mark.parametrize("ours", PROTOCOLS)
def test_a_client_of_another_protocol_is_told_which(broker: ApacheBroker, listener: str, ours: str) -> None:
    """Each wrong pair of listener and client ends in one line with both protocols and the setting to write."""
    theirs = LISTENERS[listener]
    if ours == theirs:
        return
    connection = Connection(broker.address(listener), {"security.protocol": ours, **(LOGIN if "SASL" in ours else {})})
    with within(6), pytest.raises(OrderkitError, match=f"speaks {theirs}, and this client {ours}") as caught:
        connection.metadata()  # it would wait for 8 s where nobody answers
    assert f"security.protocol={theirs}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.kafka
@pytest.mark.parametrize(
    "command",
    [["produce", "--orders", "1"], ["consume"], ["average"], ["dlq", "list"], ["topics", "list"], ["demo"], ["doctor"]],
    ids=" ".join,
)
def test_an_advertised_address_that_leads_nowhere_is_named(broker: ApacheBroker, command: list[str]) -> None:
    """Every command says within ten seconds which address the broker gives, with status 1, and waits for nothing."""
    with within(10):
        done = orderkit(*command, "--bootstrap-server", broker.address("OUT"))
    assert done.returncode == 1
    told = next(line for line in (done.stdout + done.stderr).splitlines() if "kafka.invalid:9092" in line)
    assert "no such host" in told
    assert "advertised.listeners" in told


def test_addresses_that_nobody_has_are_named_at_once() -> None:
    """Unknown names, closed ports and something that says nothing are each named with the reason."""
    with silent() as hole:
        for place, why in (
            (("kafka.invalid", 1), "no such host"),
            (("127.0.0.1", 1), "refused"),
            (hole, "something|no answer"),
        ):
            with within(8), pytest.raises(OrderkitError, match=why) as caught:
                check_advertised("here:1", [place], "PLAINTEXT")
            assert f"{place[0]}:{place[1]}" in str(caught.value)


def test_one_broker_in_reach_is_enough_and_asked_once() -> None:
    """A cluster with a broker that is away is no reason to stop; one that answered once is not asked again."""
    with EmbeddedBroker({}) as embedded:
        host, port = embedded.bootstrap.split(",")[0].split(":")
        places = [("127.0.0.1", 1), (host, int(port))]
        check_advertised("here:1", places, "PLAINTEXT")
    since = time.monotonic()
    check_advertised("here:1", places, "PLAINTEXT")
    assert time.monotonic() - since < 0.5


def test_a_cluster_without_brokers_is_not_judged() -> None:
    """What names no broker says nothing about where they are."""
    check_advertised("here:1", [], "PLAINTEXT")


def test_nothing_and_a_stranger_are_told_apart() -> None:
    """A closed port is nobody; a port that says nothing is no Kafka broker."""
    assert what_listens("127.0.0.1:1") == ("", "")
    with silent() as (host, port):
        assert what_listens(f"{host}:{port}") == ("unknown", "")


def test_a_listener_may_take_its_time() -> None:
    """The first answer of a broker that has just started takes a second and more; it is known all the same."""
    with EmbeddedBroker({}) as starting:
        starting.slow(1500)
        assert what_listens(starting.bootstrap) == ("PLAINTEXT", "")


@pytest.mark.parametrize(("named", "state"), [(True, "problem"), (False, "note")])
def test_a_broker_that_somebody_asked_for_is_a_problem_when_it_is_away(named: bool, state: str) -> None:
    """Doctor notes that no broker runs at the default address; one that was named must be there."""
    finding = examine(Connection("127.0.0.1:1"), named)[-1]
    assert (finding.state, "127.0.0.1:1" in finding.told) == (state, True)


def test_doctor_ends_with_1_for_a_broker_that_is_away(tmp_path: Path) -> None:
    """Named by flag, by file or by the environment, it counts."""
    file = tmp_path / "client.properties"
    file.write_text("bootstrap.servers=127.0.0.1:1\n")
    assert orderkit("doctor", "--command-config", str(file)).returncode == 1
    assert orderkit("doctor", bootstrap="127.0.0.1:1").returncode == 1
