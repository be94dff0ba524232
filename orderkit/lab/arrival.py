"""What was handed to the client, and what the broker said it has: two lines that should meet."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from confluent_kafka import KafkaException, Producer

from orderkit.brokers import EmbeddedBroker
from orderkit.brokers.far import FarBroker
from orderkit.dead_letters import read_topic
from orderkit.kafka import Connection
from orderkit.lab.picture import Picture
from orderkit.lab.plots import GREY, legend, panel, theory
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order, random_orders
from orderkit.producer import OrderProducer, Produced
from orderkit.show.chart import COLOURS

RECONNECT = {
    "reconnect.backoff.ms": "50",
    "reconnect.backoff.max.ms": "200",  # librdkafka's own: up to 10 s
    "topic.metadata.refresh.interval.ms": "200",  # else it looks for the partition's leader only now and then
}
SLACK = 0.5  # seconds that the client may take to come back and to hear the answers
LATE, PATIENCE = 1500, 200  # milliseconds: answers come so late, and so long they are waited for
UNHEARD = 30.0  # seconds for a client to give up waiting for an answer


def quick(broker: EmbeddedBroker | FarBroker) -> Connection:
    """Give a connection that comes back soon, and does not wait for an id that the embedded broker has no use for."""
    return Connection(broker.bootstrap, {**broker.connection.config, **RECONNECT, "enable.idempotence": "false"})


class Shelf:
    """A topic of its own, and how many orders are really in it.

    Args:
        broker: where it is.
    """

    def __init__(self, broker: EmbeddedBroker | FarBroker) -> None:
        self._broker = broker
        self.topic = f"orders.{uuid.uuid4().hex[:8]}"
        self.connection = quick(broker)
        broker.create_topics({self.topic: 1})

    def __len__(self) -> int:
        return sum(high for _, high in self.connection.watermarks(self.topic).values())

    def ids(self) -> list[str]:
        """List the ids of the orders that are there, in the order in which they lie; a copy is one more."""
        values = [message.value() for message in read_topic(self.connection, self.topic)]
        return [order["orderId"] for order in Codec().decode_batch(values) if isinstance(order, dict)]

    def producer(self, **settings: object) -> Producer:
        """Open a plain producer; `settings` are librdkafka properties with `_` for `.`."""
        return self.connection.producer(**settings)

    def send(self, orders: Sequence[Order], **settings: object) -> list[str | None]:
        """Send orders, wait for the delivery reports, and give them in order: an error's name, or `None` for "arrived".

        Args:
            orders: what to send.
            settings: librdkafka properties of the producer.
        """
        reports: list[str | None] = ["no report"] * len(orders)
        producer = self.producer(**settings)
        self._hand_over(producer, orders, reports)
        producer.flush(35)
        if settings.get("acks") == 0:  # nobody says when the broker has them; it answers after what came before, though
            for _ in range(2):  # the first question may be looked at in the same moment as the orders
                producer.list_topics(self.topic, timeout=8)
        return reports

    def send_unheard(self, orders: Sequence[Order], **settings: object) -> list[str | None]:
        """Send orders while the broker's answers come too late: it has them, and the client sends them once more.

        The first order is answered in time, so that both know each other. Of the others the client has no answer when
        its patience ends (which it looks at once a second). It sends them again, and from then on all is well.

        Args:
            orders: what to send.
            settings: librdkafka properties of the producer.

        Returns:
            The delivery reports, as `send` does.
        """
        late = 0

        def count(told: str) -> None:
            nonlocal late
            late = sum(broker["req_timeouts"] for broker in json.loads(told)["brokers"].values())

        patience = {"socket_timeout_ms": PATIENCE, "statistics_interval_ms": 20, "stats_cb": count}
        producer = self.producer(**{**patience, **settings})
        reports: list[str | None] = ["no report"] * len(orders)
        self._hand_over(producer, orders[:1], reports)
        producer.flush(35)
        self._broker.slow(LATE)
        try:
            self._hand_over(producer, orders[1:], reports, first=1)
            deadline = time.monotonic() + UNHEARD
            while not late and time.monotonic() < deadline:
                producer.poll(0.01)
        finally:
            self._broker.slow(0)
        producer.flush(35)
        return reports

    def _hand_over(
        self, producer: Producer, orders: Sequence[Order], reports: list[str | None], first: int = 0
    ) -> None:
        """Hand orders to the client; their reports come to their places in the list, from `first` on."""
        encode = Codec().encode
        for i, order in enumerate(orders, first):

            def delivered(error: object, _: object, i: int = i) -> None:
                reports[i] = error.name() if error is not None else None  # type: ignore[attr-defined]

            try:
                producer.produce(self.topic, encode(order), on_delivery=delivered)
            except (BufferError, KafkaException) as error:
                reports[i] = type(error).__name__


class Burst:
    """Orders at a steady pace, to a broker that is away for a while. It happens on construction.

    Args:
        broker: goes down after a third of the orders, and is up again at the end, whatever happens.
        orders: how many.
        pace: orders a second.
        seconds_down: how long the broker is away.
        seed: decides the orders.
    """

    def __init__(
        self,
        broker: EmbeddedBroker,
        *,
        orders: int = 300,
        pace: float = 100.0,
        seconds_down: float = 1.0,
        seed: int = 7,
    ) -> None:
        shelf = Shelf(broker)
        self.pace, self.orders, self.seconds_down = pace, orders, seconds_down
        self.times: list[float] = []
        self.sent: list[int] = []
        self.acknowledged: list[int] = []
        self._producer = OrderProducer(shelf.connection, shelf.topic)
        self.down_at = orders // 3 / pace
        some = islice(random_orders(seed), orders)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(self._producer.run, some, 1 / pace)
            try:
                self._watch(broker, done.done)
            finally:
                broker.up()
        done.result()

    def _watch(self, broker: EmbeddedBroker, done: object) -> None:
        """Take samples until all is said, and switch the broker off and on."""
        start, events = time.monotonic(), [(self.down_at, broker.down), (self.down_at + self.seconds_down, broker.up)]
        while not done():  # type: ignore[operator]
            now = time.monotonic() - start
            if events and now >= events[0][0]:
                events.pop(0)[1]()
            self._sample(now)
            time.sleep(0.01)
        self._sample(time.monotonic() - start)

    def _sample(self, now: float) -> None:
        self.times.append(now)
        self.acknowledged.append(self.produced.acknowledged)  # before `sent`, which may grow meanwhile
        self.sent.append(self.produced.sent)

    @property
    def produced(self) -> Produced:
        """What became of the orders."""
        return self._producer.produced

    @property
    def most_waiting(self) -> int:
        """The most orders that were handed over and not acknowledged at any one time."""
        return max(sent - known for sent, known in zip(self.sent, self.acknowledged, strict=True))

    @property
    def band(self) -> tuple[float, float]:
        """The least and the most orders that theory lets wait: pace times outage, without and with the slack."""
        left = self.orders - self.orders // 3
        low, high = (min(left, self.pace * (self.seconds_down + slack)) for slack in (0.0, SLACK))
        return low - 2, high + 2  # the clocks of the two threads differ by an order or so

    @property
    def inside(self) -> bool:
        """Whether the most that waited lies in the band."""
        low, high = self.band
        return low <= self.most_waiting <= high

    def picture(self) -> Picture:
        """Draw both lines, and what theory says of those that wait in between."""
        told = self.produced
        title = f"{told.sent} sent, {told.acknowledged} acknowledged, {told.failed} failed"
        figure, axes = panel("seconds", "orders", title)
        axes.axvspan(self.down_at, self.down_at + self.seconds_down, color=COLOURS["dead"], alpha=0.12, linewidth=0)
        axes.plot(self.times, self.sent, color=COLOURS["retry"], label="handed to the client")
        axes.plot(self.times, self.acknowledged, color=COLOURS["averaged"], label="acknowledged by the broker")
        waiting = [sent - known for sent, known in zip(self.sent, self.acknowledged, strict=True)]
        axes.plot(self.times, waiting, color=COLOURS["dead"], label=f"waiting, at most {self.most_waiting}")
        low, high = self.band
        theory(axes, [0, self.times[-1]], [low + 2] * 2, ([low] * 2, [high] * 2), "most that wait, in theory")
        axes.text(self.down_at, told.sent, " broker down", color=GREY, va="top")
        legend(axes, (0.02, 0.55))
        return Picture(figure)
