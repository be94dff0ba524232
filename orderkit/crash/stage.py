"""Where crash tests take place: a real broker, with one network path that can fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Self, TypeVar

from confluent_kafka import KafkaException

from orderkit.brokers.far import FarBroker
from orderkit.crash.plan import SESSION
from orderkit.dead_letters.writer import DLQ_CONFIG
from orderkit.errors import OrderkitError
from orderkit.kafka.configs import TOPIC, change_config

CLIENTS = {
    "session.timeout.ms": str(int(SESSION * 1000)),
    "heartbeat.interval.ms": "300",
    "reconnect.backoff.ms": "50",
    "reconnect.backoff.max.ms": "500",
    "log_level": "0",  # outages are what a crash test is for
}
TINY = "200"  # bytes: too few for a dead letter with its story, enough for a transaction's end marker
IN_FORCE = 1.5  # seconds after which every transaction that began before a change has ended
AWAY_AT_MOST = 60.0  # seconds in which a broker that was stopped is there again
Answer = TypeVar("Answer")


class Stage:
    """A broker of its own for one trial after the other; a trial has its own topics and group.

    Raises:
        OrderkitError: there is no real broker to be had; says what to install.
    """

    def __init__(self) -> None:
        self._place = place = FarBroker(CLIENTS)
        self.broker, self.proxy, self.near, self.far = place.broker, place.network, place.near, place.connection
        self.called_off = threading.Event()  # nobody waits for the trial any more
        self._one_at_a_time = threading.Lock()

    def restart(self, *, hard: bool) -> None:
        """End the broker, in good order or as a power cut would, and start it on its data."""
        with self._one_at_a_time:
            if hard:
                self.broker.kill()
            else:
                self.broker.down()
            self.broker.up()

    def create_topics(self, orders: Mapping[str, int], dead_letters: Mapping[str, int]) -> None:
        """Create topics (name to number of partitions), those for dead letters as the kit has them."""
        self.near.create_topics(orders)
        self.near.create_topics(dead_letters, DLQ_CONFIG)

    def refuse(self, topic: str) -> None:
        """Let a topic refuse every record."""
        change_config(self.near.admin(), TOPIC, topic, {"max.message.bytes": TINY})

    def accept(self, topic: str) -> None:
        """Let it take records again."""
        change_config(self.near.admin(), TOPIC, topic, {"max.message.bytes": DLQ_CONFIG["max.message.bytes"]})

    def delete(self, topic: str) -> None:
        """Delete a topic, and wait until it is gone."""
        if topic in self.near.metadata().topics:  # an attempt before this one may have succeeded
            self.near.delete_topics([topic])

    def insist(self, change: Callable[[], Answer]) -> Answer:
        """Make a change until it succeeds: another injury may have taken the broker away for a moment."""
        deadline = time.monotonic() + AWAY_AT_MOST
        while True:
            try:
                return change()
            except (KafkaException, OrderkitError):
                if time.monotonic() > deadline or self.called_off.is_set():
                    raise
                time.sleep(0.2)

    def close(self) -> None:
        """End the broker and the network."""
        self._place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
