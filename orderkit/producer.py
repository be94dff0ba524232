"""Random orders onto a topic, each accounted for by its delivery report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orderkit.avro import Codec
from orderkit.errors import OrderkitError, UsageError
from orderkit.faults import Faults
from orderkit.kafka import ORDERS, Connection
from orderkit.ledger import Tally
from orderkit.order import Order

KeyBy = Literal["orderId", "product", "none"]
KEYS = get_args(KeyBy)


def pace(every: float | None = None, rate: float | None = None) -> float:
    """Give the seconds between two orders from either way to say it.

    Args:
        every: seconds between two orders.
        rate: orders a second; 0 means as fast as the broker takes them.

    Raises:
        UsageError: a negative number, or both.
    """
    if every is not None and rate is not None:
        raise UsageError("--every and --rate say the same thing twice. Give one of them.")
    if rate is not None:
        if not 0 <= rate < float("inf"):
            raise UsageError(f"rate is {rate}; it must be 0 (as fast as it goes) or more orders a second.")
        return 1 / rate if rate else 0.0
    every = 2.0 if every is None else every
    if not 0 <= every < float("inf"):
        raise UsageError(f"every is {every}; it must be 0 or more seconds between two orders.")
    return every


@dataclass
class Produced:
    """What became of the orders given to the producer.

    Args:
        sent: handed to the client.
        acknowledged: the broker has them.
        failed: the broker does not have them; `error` says why the last one failed.
        where: per partition, each offset that was acknowledged.
    """

    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    error: str | None = None
    where: dict[int, Tally] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Orders without a delivery report yet."""
        return self.sent - self.acknowledged - self.failed

    def __str__(self) -> str:
        told = f"{self.sent} produced, {self.acknowledged} acknowledged, {self.failed} failed"
        return f"{told} (last: {self.error})" if self.error else told


class OrderProducer:
    """Writes orders at a pace and counts their delivery reports.

    Args:
        connection: the cluster.
        topic: where the orders go.
        codec: writes an order as bytes.
        key: what the record's key is: `orderId`, `product` or `none`.
        faults: damages the bytes of some orders, when it has a poison rate.

    Raises:
        OrderkitError: the broker does not answer, or the topic does not exist.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str = ORDERS,
        *,
        codec: Codec | None = None,
        key: KeyBy = "orderId",
        faults: Faults | None = None,
    ) -> None:
        connection.partitions(topic)
        self.topic = topic
        self.codec = codec or Codec()
        self.produced = Produced()
        self.every = 0.0  # seconds between two orders; may be changed while orders flow
        self._key = key
        self._faults = faults
        self._stopping = False
        self._client: Producer = connection.producer()

    def run(
        self, orders: Iterable[Order], every: float = 0.0, told: Callable[[Order], object] | None = None
    ) -> Produced:
        """Produce orders until they end or `stop` is called, then wait for the outstanding reports.

        Args:
            orders: what to produce.
            every: seconds between two orders; 0 for as fast as the broker takes them.
            told: called with each order after it was sent.
        """
        self.every = every
        due = time.monotonic()
        try:
            for order in orders:
                if self._stopping or not self._wait_until(due):
                    break
                self.send(order)
                if told:
                    told(order)
                due = max(due + self.every, time.monotonic() - 1)  # catch up a second at the most
        finally:
            self.finish()
        return self.produced

    def send(self, order: Order) -> None:
        """Hand one order to the client; a full queue is waited for."""
        value = self.codec.encode(order)
        if self._faults is not None:
            value = self._faults.spoil(order["orderId"], value)
        key = None if self._key == "none" else order[self._key]
        self.produced.sent += 1
        while True:
            try:
                self._client.produce(self.topic, value, key, on_delivery=self._delivered)
                break
            except BufferError:  # the queue is full: the broker is slower than we are, which is no error
                self._client.poll(0.1)
            except KafkaException as error:
                self._fail(error.args[0])
                break
        self._client.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._fail(error)
            return
        partition, offset = message.partition() or 0, message.offset() or 0
        self.produced.acknowledged += 1
        self.produced.where.setdefault(partition, Tally(offset)).finish([offset])

    def _fail(self, error: KafkaError) -> None:
        self.produced.failed += 1
        self.produced.error = error.str()

    def _wait_until(self, due: float) -> bool:
        """Wait, taking in delivery reports; whether it is time to send, and not to stop."""
        while not self._stopping and (left := due - time.monotonic()) > 0:
            self._client.poll(min(left, 0.1))
        return not self._stopping

    def stop(self) -> None:
        """Ask `run` to end; safe from a signal handler or another thread."""
        self._stopping = True

    def finish(self, patience: float = 35.0) -> None:
        """Wait until every order has its report, at most `patience` seconds (the client gives up at 30)."""
        deadline = time.monotonic() + patience
        while self.produced.waiting and time.monotonic() < deadline:
            self._client.poll(0.05)
        if self.produced.waiting:
            raise OrderkitError(f"{self.produced.waiting} orders have no delivery report. Is the broker still up?")
