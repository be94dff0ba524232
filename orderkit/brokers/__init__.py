"""Two brokers with one face: `EmbeddedBroker` in this process, `ApacheBroker` as a child process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self

from orderkit.brokers.apache import ApacheBroker
from orderkit.brokers.embedded import EmbeddedBroker
from orderkit.kafka import Connection

__all__ = ["ApacheBroker", "Broker", "EmbeddedBroker"]


class Broker(Protocol):
    """What every broker of the kit can do."""

    @property
    def kind(self) -> str:
        """`embedded` or `apache`."""

    @property
    def bootstrap(self) -> str:
        """Its address, `host:port`."""

    @property
    def connection(self) -> Connection:
        """How clients reach it."""

    def create_topics(self, topics: Mapping[str, int]) -> None:
        """Create topics (name to number of partitions); those that exist stay as they are."""

    def down(self) -> None:
        """Make it unreachable, with its records kept."""

    def up(self) -> None:
        """Make it reachable again."""

    def close(self) -> None:
        """End it for good. A second call does nothing."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_error: object) -> None: ...
