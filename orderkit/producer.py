"""Random orders onto a topic, each accounted for by its delivery report."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, get_args

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orderkit.account.tally import Tally
from orderkit.kafka import NOWHERE, ORDERS, Connection
from orderkit.members.stranded import Lookout
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order

log = logging.getLogger("orderkit")

KeyBy = Literal["orderId", "product", "none"]
KEYS = get_args(KeyBy)
TIMEOUT = 120_000  # milliseconds for which an order is sent again; as long as Java's `delivery.timeout.ms` (KIP-91)
STOP_PATIENCE = 10.0  # seconds after `stop` for the orders under way
STEP = 0.1  # seconds after which a producer that waits looks whether it is to stop or to go on
BATCH = 1000  # orders that are encoded and queued together, when there is no pace to keep


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
        places: note where each order is. Without, the broker's word is only asked for failures, and that is quicker:
            what neither failed nor is under way has been acknowledged.

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
        places: bool = True,
    ) -> None:
        connection.partitions(topic)
        self.topic = topic
        self.codec = codec or Codec()
        self.produced = Produced()
        self.every = 0.0  # seconds between two orders; may be changed while orders flow
        self.paused = False  # while true, no further order is sent; may be changed at any time, too
        self._key = key
        self._faults = faults
        self._stop_by = math.inf  # on the monotonic clock; what has no answer then has failed
        self._places: defaultdict[int, list[int]] | None = defaultdict(list) if places else None
        self._connection, self._lookout = connection, Lookout(connection, topic)
        self._client = self._open()

    def _open(self) -> Producer:
        named = {"message.timeout.ms", "delivery.timeout.ms"} & self._connection.config.keys()
        timeout = {} if named else {"message_timeout_ms": TIMEOUT}
        return self._connection.producer(delivery_report_only_error=self._places is None, **timeout)

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
            orders = iter(orders)
            while (due := self._wait_until(due)) < math.inf:
                if not (some := list(islice(orders, 1 if self.every else BATCH))):
                    break
                self.send(some)
                if told:
                    for order in some:
                        told(order)
                due = max(due + self.every, time.monotonic() - 1)  # catch up a second at the most
        finally:
            self.finish()
        return self.produced

    def send(self, orders: Sequence[Order]) -> None:
        """Hand orders to the client; a full queue is waited for."""
        self._look_for_brokers()
        values = self.codec.encode_batch(orders)
        if self._faults is not None:
            values = [self._faults.spoil(order["orderId"], value) for order, value in zip(orders, values, strict=True)]
        messages: list[dict[str, Any]] = [{"value": value} for value in values]
        if self._key != "none":
            for message, order in zip(messages, orders, strict=True):
                message["key"] = order[self._key]
        self.produced.sent += len(messages)
        while messages := self._queue(messages):
            self._wait(0.1)
        self._take_reports(0)

    def _queue(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Put records into the client's queue; give back those that find no room."""
        try:
            if self._client.produce_batch(self.topic, messages, on_delivery=self._delivered) == len(messages):
                return []
        except KafkaException as error:
            self._fail(error.args[0].str(), len(messages))
            return []
        left = []
        for message in messages:
            refused = message.pop("_error", None)
            if refused is not None and refused.code() == KafkaError._QUEUE_FULL:
                left.append(message)  # the broker is slower than we are, which is no error
            elif refused is not None:
                self._fail(refused.str())
        return left

    def _wait(self, seconds: float) -> None:
        """Take in delivery reports, unless there is no hope for them any more."""
        self._take_reports(seconds)
        self._look_for_brokers()
        if self.produced.waiting and time.monotonic() > self._stop_by:
            self._give_up()

    def _look_for_brokers(self) -> None:
        """Open a new client in place of one that has lost all its brokers; what it still held has failed."""
        if self.produced.waiting and self._lookout.has_lost(self._client):
            log.warning("the producer has lost all its brokers; a new one is opened")
            self._give_up()
            self._client = self._open()

    def _give_up(self) -> None:
        """Count what has no answer as failed."""
        self._client.purge()
        self._client.flush(1.0)
        self._take_reports(0)
        self.produced.error = "the broker did not answer"

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        offset = message.offset()
        if error is not None:
            self._fail(error.str())
        elif offset is None:
            self._fail(NOWHERE)
        elif self._places is not None:
            self._places[message.partition() or 0].append(offset)

    def _take_reports(self, wait: float) -> None:
        """Take in delivery reports for at most `wait` seconds."""
        self._client.poll(wait)
        produced = self.produced
        before = produced.acknowledged
        if self._places is None:
            produced.acknowledged = produced.sent - produced.failed - len(self._client)
        else:
            for partition, offsets in self._places.items():
                if offsets:
                    produced.acknowledged += len(offsets)
                    produced.where.setdefault(partition, Tally(offsets[0])).finish(offsets)
                    offsets.clear()
        if produced.acknowledged > before:
            self._lookout.heard()

    def _fail(self, error: str, many: int = 1) -> None:
        self.produced.failed += many
        self.produced.error = error

    @property
    def _stopping(self) -> bool:
        return self._stop_by < math.inf

    def _wait_until(self, due: float) -> float:
        """Wait, taking in delivery reports; give the time at which an order was due, or infinity to stop."""
        while not self._stopping:
            if self.paused:
                due = max(due, time.monotonic() + STEP)  # later than planned, so that nothing is caught up with
            if (left := due - time.monotonic()) <= 0:
                return due
            self._take_reports(min(left, STEP))
        return math.inf

    def stop(self) -> None:
        """Ask `run` to end; safe from a signal handler or another thread."""
        self._stop_by = time.monotonic() + STOP_PATIENCE

    def finish(self) -> None:
        """Wait until every order has its report: the client gives up in the end, and `stop` lets it do so soon."""
        while self.produced.waiting:
            self._wait(0.05)

    def close(self) -> None:
        """End the client and its connections; nothing can be produced any more."""
        vars(self).pop("_client", None)  # else it would live until Python collects what refers to itself
