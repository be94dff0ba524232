"""Real Kafka at the end of a network that can fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from orderkit.brokers._ports import Ports
from orderkit.brokers._settings import HOST
from orderkit.brokers.apache import ApacheBroker
from orderkit.brokers.proxy import Proxy
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection


class FarBroker:
    """An Apache broker with two addresses: one is near, the other one is behind a network that can fail.

    Args:
        clients: librdkafka properties of the clients on either side.
        quiet: say nothing about the first download.

    Attributes:
        broker: the broker itself.
        network: between it and those who use the far address.
        near: a connection that nothing happens to.
        connection: a connection over the network.

    Raises:
        OrderkitError: there is no real broker to be had; says what to install.
    """

    def __init__(self, clients: Mapping[str, str] | None = None, *, quiet: bool = False) -> None:
        self.network = Proxy()
        try:
            with Ports(["near"]) as ports:  # the broker has to know where it is before it is there
                near = ports.numbers["near"]
                self.broker = ApacheBroker(
                    {},
                    port=near,
                    listeners={"PLAINTEXT": "PLAINTEXT", "FAR": "PLAINTEXT"},
                    properties={"advertised.listeners": f"PLAINTEXT://{HOST}:{near},FAR://{HOST}:{self.network.port}"},
                    quiet=quiet,
                )
        except OrderkitError:
            self.network.close()
            raise
        host, far = self.broker.address("FAR").split(":")
        self.network.target = host, int(far)
        self.bootstrap = f"{HOST}:{self.network.port}"
        self.near = Connection(self.broker.bootstrap, clients or {})
        self.connection = Connection(self.bootstrap, clients or {})

    def create_topics(self, topics: Mapping[str, int]) -> None:
        """Create topics, name to number of partitions."""
        self.near.create_topics(topics)

    def slow(self, milliseconds: int) -> None:
        """Let every answer come so much later over the network; 0 is full speed."""
        self.network.answer_delay = milliseconds / 1000

    def close(self) -> None:
        """End the broker and the network."""
        self.broker.close()
        self.network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
