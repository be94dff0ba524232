"""A broker whose answers come too late: what a client sends again, and what a broker drops that it has already."""

from __future__ import annotations

from itertools import islice

import pytest
from helpers import shared

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

from orderkit import lab
from orderkit.brokers import ApacheBroker
from orderkit.brokers.far import FarBroker
from orderkit.orders.order import random_orders

ORDERS = list(islice(random_orders(3), 20))


def test_what_nobody_heard_of_is_sent_again() -> None:
    """The broker had the orders; the client heard no answer, and sent all of them but the first once more."""
    shelf = lab.Shelf(shared())
    assert shelf.send_unheard(ORDERS) == [None] * len(ORDERS)
    first, *others = (shelf.ids().count(order["orderId"]) for order in ORDERS)
    assert (first, set(others)) == (1, {2})


@pytest.mark.kafka
def test_numbered_records_are_written_once(apache: ApacheBroker) -> None:
    """Real Kafka drops what it has, if the client numbers its records (KIP-98); else it keeps both."""
    assert apache  # the session's broker decides whether there can be one at all
    found = {}
    with FarBroker() as far:
        for numbers in (False, True):
            shelf = lab.Shelf(far)
            assert shelf.send_unheard(ORDERS, enable_idempotence=numbers) == [None] * len(ORDERS)
            found[numbers] = len(shelf)
    assert found == {False: 2 * len(ORDERS) - 1, True: len(ORDERS)}
