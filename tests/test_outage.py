"""Outages longer than a transaction may last: exactly once goes on by itself."""

from __future__ import annotations

import time

import pytest
from helpers import AT_ONCE, Background, Kit, average_of, take_orders, wait_for

from orderkit.crash.stage import Stage
from orderkit.delivery import exactly_once
from orderkit.orders.order import Order
from orderkit.retry import Permanent

TIMEOUT = 10.0  # seconds that a transaction may last here
OUTAGE = 25.0  # seconds: the broker looks every ten for transactions that have lasted too long


@pytest.mark.campaign
@pytest.mark.kafka
def test_exactly_once_outlives_an_outage_longer_than_its_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker gives an open transaction up while the network is silent; the consumer opens a new one and goes on."""
    monkeypatch.setattr(exactly_once, "TRANSACTION_TIMEOUT", TIMEOUT)
    monkeypatch.setattr(exactly_once, "LETTER_TIMEOUT", TIMEOUT)
    orders = take_orders(1500)
    doomed = {order["orderId"] for order in orders[::3]}

    def slow(order: Order, _attempt: int) -> None:
        time.sleep(0.002)
        if order["orderId"] in doomed:
            raise Permanent("no")  # a dead letter opens the transaction at the broker

    with Stage() as stage:
        kit = Kit(2)
        kit.connection = stage.near
        stage.create_topics({kit.topic: 2}, {kit.dead_letters: 2})
        kit.send_orders(orders)
        kit.connection = stage.far
        consumer = kit.consumer(slow, delivery="exactly-once", policy=AT_ONCE)
        kit.connection = stage.near
        with Background(consumer):
            wait_for(lambda: consumer.ledger.finished > 100)
            stage.proxy.cut()
            time.sleep(OUTAGE)  # the outage itself, not a wait for something
            stage.proxy.mend()
            wait_for(lambda: kit.state().average.count == 1000, 80)
        assert kit.state().average == average_of([order for order in orders if order["orderId"] not in doomed])
        assert len(kit.letters()) == 500
