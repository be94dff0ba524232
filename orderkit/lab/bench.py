"""Orders that lie in a topic, for consumers to be tried on: the kit's own, and broken ones."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from orderkit.account.audit import Origin, account, dead_letter_origins
from orderkit.account.average import RunningAverage
from orderkit.account.block import Attempt
from orderkit.account.report import Report
from orderkit.account.state import group_state
from orderkit.account.tally import DEAD
from orderkit.brokers import EmbeddedBroker
from orderkit.consumer import RetryingConsumer
from orderkit.consuming.loop import Handler, accept
from orderkit.consuming.saved import Saved
from orderkit.dead_letters import read_topic
from orderkit.kafka import Connection
from orderkit.lab.table import Table
from orderkit.ledger import Ledger
from orderkit.members.commits import saved_with
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import random_orders
from orderkit.producer import KeyBy, OrderProducer

MEMBER = {"session_timeout_ms": 1500, "heartbeat_interval_ms": 200, "max_poll_interval_ms": 1500}


class Bench:
    """A topic of its own, filled with orders. Consumers come and go; their ledger and their group stay.

    Args:
        broker: where it is.
        orders: how many.
        seed: decides the orders.
        partitions: of the topic.
        letters: partitions of the dead-letter topic; by default as many.
        key: of the records: `orderId`, `product` or `none`.
        faults: damages orders on their way in, when it has a poison rate.
        settings: librdkafka properties of all clients, with `_` for `.`.
    """

    def __init__(
        self,
        broker: EmbeddedBroker,
        *,
        orders: int = 100,
        seed: int = 7,
        partitions: int = 1,
        letters: int | None = None,
        key: KeyBy = "orderId",
        faults: Faults | None = None,
        **settings: object,
    ) -> None:
        name = uuid.uuid4().hex[:8]
        self.topic, self.dead_letters, self.group = f"orders.{name}", f"orders.{name}.dlq", f"orderkit.{name}"
        self.orders = list(islice(random_orders(seed), orders))
        self.ledger = Ledger()
        # The embedded broker has no idempotence, and a producer that asks for it waits half a second.
        config = {"enable.idempotence": "false"} | {name.replace("_", "."): str(v) for name, v in settings.items()}
        self.connection = Connection(broker.bootstrap, {**broker.connection.config, **config})
        broker.create_topics({self.topic: partitions, self.dead_letters: letters or partitions})
        self._seed = seed
        self._produced = OrderProducer(self.connection, self.topic, key=key, faults=faults).run(self.orders)

    def consumer(self, handler: Handler = accept, **settings: Any) -> RetryingConsumer:
        """Open the kit's consumer on these orders; it goes on where the group stands."""
        named = {"group": self.group, "topic": self.topic, "dead_letters": self.dead_letters}
        return RetryingConsumer(self.connection, handler, ledger=self.ledger, seed=self._seed, **{**named, **settings})

    def plain(self, group: str | None = None, **settings: Any) -> Consumer:
        """Open a plain client on these orders, as the consumers of a gallery use it.

        Args:
            group: its group; by default one of its own.
            settings: librdkafka properties with `_` for `.`.
        """
        client = self.connection.consumer(group or f"{self.group}.plain", **{**MEMBER, **settings})
        client.subscribe([self.topic])
        return client

    def attempts(self, order_id: str) -> list[int]:
        """List the numbers of the attempts that an order had, as the ledger knows them."""
        (ids, numbers), _, _ = self.ledger.rows("order_id", "attempt")
        return [number for name, number in zip(ids, numbers, strict=True) if name == order_id]

    def commits(self) -> Table:
        """Show what the group has committed: for each partition the offset and, with it, the average so far."""
        reader = self.connection.consumer(self.group)
        try:
            rows = [self._commit(reader, number) for number in self.connection.partitions(self.topic)]
        finally:
            reader.close()
        return Table(("partition", "offset", "count", "total", "dead"), rows)

    def _commit(self, reader: Consumer, number: int) -> tuple[object, ...]:
        (commit,) = reader.committed([TopicPartition(self.topic, number)], timeout=10)
        saved = saved_with(commit) or Saved()
        return number, max(0, commit.offset), saved.average.count, saved.average.sum, saved.dead

    def report(self) -> Report:
        """Account for every order: delivery reports, ledger, commits and dead letters held against each other."""
        state = group_state(self.connection, self.group, self.topic)
        return account(
            self.ledger, state, self.topic, produced=self._produced.where, letters=self._origins(),
            seed=self._seed, broker="embedded",
        )  # fmt: skip

    def _origins(self) -> Iterable[Origin]:
        """Say of which orders there are dead letters."""
        return dead_letter_origins(self.connection, self.dead_letters, self.group)

    def verdict(self, handled: Iterable[Message], group: str | None = None) -> Report:
        """Account for the orders of a consumer without a ledger: what it has handled, and the letters it has written.

        Args:
            handled: the records that are in its average.
            group: under which it commits; by default that of `plain`.
        """
        values = {_place(message): message.value() for message in read_topic(self.connection, self.topic)}
        places = {value: place for place, value in values.items()}
        found = [places.get(letter.value()) for letter in read_topic(self.connection, self.dead_letters)]
        letters = [place for place in found if place is not None]
        ledger, average, codec = Ledger(), RunningAverage(), Codec()
        for number, offset in map(_place, handled):
            order = codec.decode(values[number, offset])
            ledger.note(0.0, self.topic, number, [offset], [order])
            average.add(order["price"])
        for number, offset in set(letters):
            orders = codec.decode_batch([values[number, offset]])
            ledger.note(0.0, self.topic, number, [offset], orders, [Attempt(0, 0.0, 1, DEAD)])
        state = group_state(self.connection, group or f"{self.group}.plain", self.topic)
        return account(
            ledger, replace(state, average=average, dead=len(set(letters))), self.topic,
            produced=self._produced.where, letters=[(self.topic, *place) for place in letters],
            seed=self._seed, broker="embedded",
        )  # fmt: skip


def _place(message: Message) -> tuple[int, int]:
    """Give partition and offset of a record."""
    return message.partition() or 0, message.offset() or 0
