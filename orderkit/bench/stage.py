"""Topics with known orders, and what has to come out of them."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from confluent_kafka import Message, TopicPartition

from orderkit.dead_letters.reader import read_batches
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order, random_orders
from orderkit.producer import OrderProducer

PARTITIONS = 4
SEED = 7
TOLERANCE = 1e-9  # of a sum of floats, relative: a contender may add in any order
DIES = 20  # every so many orders fail at all attempts; the rule itself is `peers.job.process`


@dataclass(frozen=True)
class Expected:
    """What a job has to come to.

    Args:
        count: orders in the average.
        total: their sum.
        dead: numbers of the orders that have to be dead letters.
    """

    count: int
    total: float
    dead: frozenset[int]


@dataclass
class Result:
    """What a contender says it did, and what running it took.

    Args:
        count, total, dead: averaged orders, their sum, and dead letters.
        seconds: from the first record to the end.
        cpu: seconds of processor time of its process, from start to end.
        memory: largest resident memory, in MB.
    """

    count: int
    total: float
    dead: int
    seconds: float
    cpu: float = 0.0
    memory: float = 0.0


@dataclass
class Stage:
    """Topics of orders on one cluster; each is filled once, and read by all contenders.

    Args:
        connection: the cluster.
        partitions: of each topic.
        filler: bytes added to the product's name of each order.
    """

    connection: Connection
    partitions: int = PARTITIONS
    filler: int = 0
    _filled: dict[int, tuple[str, Expected]] = field(default_factory=dict)

    def orders(self, count: int) -> list[Order]:
        """Make the orders 0 to `count` - 1."""
        orders = list(islice(random_orders(SEED, first=0), count))
        if self.filler:
            for order in orders:
                order["product"] += "-" * self.filler
        return orders

    def filled(self, count: int) -> tuple[str, Expected]:
        """Give a topic that holds `count` orders as raw Avro, and what has to come out."""
        if count not in self._filled:
            topic = self.new_topic("orders")
            orders = self.orders(count)
            produced = OrderProducer(self.connection, topic, codec=Codec("raw"), places=False).run(orders)
            if produced.acknowledged != count:
                raise RuntimeError(f"{topic}: {produced}")
            good = [order["price"] for i, order in enumerate(orders) if i % DIES]
            expected = Expected(len(good), math.fsum(good), frozenset(range(0, count, DIES)))
            self._filled[count] = topic, expected
        return self._filled[count]

    def new_topic(self, kind: str) -> str:
        """Create a topic that nobody else uses."""
        name = f"bench-{kind}-{uuid.uuid4().hex[:8]}"
        self.connection.create_topics({name: self.partitions})
        return name

    def drop(self, topic: str) -> None:
        """Delete a topic that has been checked; the embedded broker cannot, and ends with us."""
        if not self.connection.is_embedded:
            self.connection.delete_topics([topic])

    def check(self, count: int, group: str, letters: str, result: Result) -> str | None:
        """Hold a result against the topics and the group's commits; say what is wrong, if anything is."""
        topic, expected = self.filled(count)
        if result.count != expected.count:
            return f"{result.count:,} orders averaged, not {expected.count:,}"
        if not math.isclose(result.total, expected.total, rel_tol=TOLERANCE):
            return f"their sum is {result.total!r}, not {expected.total!r}"
        if result.dead != len(expected.dead):
            return f"{result.dead:,} dead letters told, not {len(expected.dead):,}"
        if wrong := self._wrong_letters(letters, expected.dead):
            return wrong
        ends = {number: high for number, (_, high) in self.connection.watermarks(topic).items()}
        offsets = self._committed(group, topic)
        behind = sum(high - offsets.get(number, 0) for number, high in ends.items())
        return f"{behind:,} orders are not committed" if behind else None

    def check_topic(self, topic: str, orders: list[Order]) -> str | None:
        """Hold the orders in a topic against what was produced; say what is wrong, if anything is."""
        codec, there = Codec(), 0
        total: list[float] = []
        for messages in self._batches(topic):
            read = codec.decode_batch([message.value() for message in messages])
            there += len(read)
            total.extend(order["price"] for order in read if isinstance(order, dict))
        if (there, len(total)) != (len(orders), len(orders)):
            return f"{there:,} records ({len(total):,} of them orders) in the topic, not {len(orders):,}"
        same = math.isclose(math.fsum(total), math.fsum(order["price"] for order in orders), rel_tol=TOLERANCE)
        return None if same else "the prices in the topic are not those that were produced"

    def _batches(self, topic: str) -> Iterator[list[Message]]:
        return iter(read_batches(self.connection, topic))

    def _wrong_letters(self, letters: str, dead: frozenset[int]) -> str | None:
        codec = Codec()
        found = [int(codec.decode(m.value())["orderId"]) for some in self._batches(letters) for m in some]
        if missing := len(dead - set(found)):
            return f"{missing:,} dead letters are missing from the topic"
        if foreign := len(set(found) - dead):
            return f"{foreign:,} dead letters that should not be there"
        return f"{len(found) - len(dead):,} dead letters twice" if len(found) != len(dead) else None

    def _committed(self, group: str, topic: str) -> dict[int, int]:
        """Read a group's offsets; the commits of other programs carry other metadata, or none."""
        reader = self.connection.consumer(group)
        try:
            wanted = [TopicPartition(topic, number) for number in range(self.partitions)]
            return {one.partition: max(one.offset, 0) for one in reader.committed(wanted, timeout=10)}
        finally:
            reader.close()
