"""A member of a group whose client answers in unexpected ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, TopicPartition
from helpers import Background, Kit, average_of, soon, take_orders, wait_for

from orderkit.kafka import Connection
from orderkit.members.group import SHORT_WAIT
from orderkit.orders.order import Order
from orderkit.retry import RetryPolicy, Transient
from orderkit.retry.backoff import Backoff


@dataclass(frozen=True)
class Strange(Connection):
    """A connection whose consumers are of another class.

    Args:
        kind: made from a client's configuration.
    """

    kind: Any = field(default=Consumer)

    def _client(self, kind: Any, defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        return super()._client(self.kind if kind is Consumer else kind, defaults, settings)


@pytest.mark.parametrize("error", [KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.UNSTABLE_OFFSET_COMMIT])
def test_an_offset_that_cannot_be_read_is_not_taken_for_none(error: int) -> None:
    """A partition whose commit the broker cannot tell is asked for again: it does not begin anew, with nothing."""
    kit, orders = Kit(), take_orders(40)
    kit.send_orders(orders)
    kit.consumer(batch=20).run(orders=20)
    asked: list[int] = []

    class Loading(Consumer):
        def committed(self, wanted: list[TopicPartition], timeout: float = 5.0) -> Any:
            asked.append(len(wanted))
            if len(asked) > 3:
                return super().committed(wanted, timeout=timeout)
            told = KafkaError(error)
            return [SimpleNamespace(topic=one.topic, partition=one.partition, offset=OFFSET_INVALID,
                                    metadata=None, error=told) for one in wanted]  # fmt: skip

    consumer = kit.consumer(connection=Strange(kit.connection.bootstrap, kind=Loading))
    consumer.run(orders=20, until=soon(lambda: False))
    assert len(asked) > 3
    assert kit.state().average == average_of(orders)


def test_a_record_polled_in_an_assignment_that_has_ended_is_left_to_the_next_one() -> None:
    """Amid one fetch the partition is lost and comes back: nothing is averaged twice, and nothing is passed over."""
    kit, orders = Kit(), take_orders(60)
    kit.send_orders(orders)
    turns: list[int] = []

    def handler(order: Order, attempt: int) -> None:
        if order["orderId"] == orders[5]["orderId"] and attempt == 1:
            raise Transient("later")  # so that the records behind it are at hand when the partition goes

    class Restless(Consumer):
        told: Any = None

        def subscribe(self, topics: list[str], **told: Any) -> None:  # type: ignore[override]
            self.told = told
            super().subscribe(topics, **told)

        def consume(self, *args: Any, **more: Any) -> Any:
            turns.append(1)
            if len(turns) == 2:
                mine = self.assignment()
                self.told["on_lost"](self, mine)
                self.told["on_assign"](self, mine)
                return []
            return super().consume(*args, **more)

    connection = Strange(kit.connection.bootstrap, kind=Restless)
    policy = RetryPolicy(backoff=Backoff("fixed", base=SHORT_WAIT))
    consumer = kit.consumer(handler, connection=connection, policy=policy, batch=20)
    with Background(consumer):
        wait_for(kit.settled)
    assert consumer.member.rebalances == 2
    assert kit.state().average == average_of(orders)


def test_at_most_once_keeps_no_checkpoints() -> None:
    """Its commits come before the work: what is marked behind it would only pile up."""
    kit = Kit()
    kit.send_orders(take_orders(60))
    consumer = kit.consumer(delivery="at-most-once", batch=5)
    piles: list[int] = []

    def look() -> bool:
        piles.extend(len(part.points) for part in consumer.member.parts.values())
        return False

    consumer.run(orders=60, until=look)
    assert consumer.ledger.finished == 60
    assert max(piles) <= 1
