"""Ports: a broker's address stays its own, also while nobody listens there."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from orderkit.brokers import ApacheBroker
from orderkit.brokers._ports import Ports
from orderkit.brokers._settings import HOST
from orderkit.errors import OrderkitError

IP_LOCAL_PORT_RANGE = 51  # Linux 6.3; Python has no name for it yet

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="other systems let no two sockets share an address")


@pytest.fixture
def ports() -> Iterator[Ports]:
    """Hold two ports."""
    with Ports(["A", "B"]) as held:
        yield held


def offered_only(port: int) -> socket.socket:
    """Give a socket to which the system can give no port but one."""
    one = socket.socket()
    try:
        one.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("@I", port << 16 | port))
    except OSError:
        one.close()
        pytest.skip("this Linux cannot narrow a socket's ports")
    return one


def test_each_name_has_a_port_of_its_own(ports: Ports) -> None:
    """Two names never share a port, and one that is given is the one that was asked for."""
    first, second = ports.numbers.values()
    assert first != second
    with Ports(["C", "D"], {"C": first}) as more:  # nobody listens there
        assert more.numbers["C"] == first
        assert more.numbers["D"] not in {first, second}


@linux_only
def test_the_system_gives_a_held_port_to_nobody(ports: Ports) -> None:
    """Neither a program that listens anywhere nor a client that connects from anywhere is given it."""
    port = ports.numbers["A"]
    with closing(offered_only(port)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            server.bind((HOST, 0))
    with socket.create_server((HOST, 0)) as other, closing(offered_only(port)) as client:
        with pytest.raises(OSError, match="Cannot assign"):
            client.connect(other.getsockname())
        ports.close()
        client.connect(other.getsockname())  # free again
        assert client.getsockname()[1] == port


@linux_only
def test_who_names_a_held_port_can_listen_there(ports: Ports) -> None:
    """As long as nobody listens, who connects is refused; a server that names the port has it."""
    address = HOST, ports.numbers["A"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 5)
    with socket.create_server(address), socket.create_connection(address, 5) as client:
        assert client.getpeername() == address


@pytest.mark.parametrize(("port", "told"), [(70_000, "is a number from 1 to 65535"), (None, "in use")])
def test_a_given_port_that_cannot_be_had_is_one_line(port: int | None, told: str) -> None:
    """A port that somebody listens at, or that is none, is said at once, and nothing stays held."""
    with socket.create_server((HOST, 0)) as taken:
        given = port or taken.getsockname()[1]
        with pytest.raises(OrderkitError, match=f"Port {given} cannot be used: .*{told}.* Take another") as caught:
            Ports(["A", "B"], {"B": given})
    assert "\n" not in str(caught.value)


@pytest.mark.kafka
@linux_only
@pytest.mark.parametrize("end", ["down", "kill"])
def test_a_broker_that_is_down_keeps_its_ports(end: str, apache: ApacheBroker) -> None:
    """While a real broker is down no program is given one of its ports; it comes back at its address."""
    assert apache  # there can be one
    with ApacheBroker({"orders": 1}) as broker:
        address = broker.bootstrap
        getattr(broker, end)()
        for port in broker._ports.numbers.values():
            with closing(offered_only(port)) as other, pytest.raises(OSError, match="in use"):
                other.bind((HOST, 0))
        broker.up()
        assert broker.bootstrap == address
        assert "orders" in broker.connection.metadata().topics
