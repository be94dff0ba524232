"""The dead-letter budget: over it partitions wait with their offsets kept, and go on by themselves."""

from __future__ import annotations

import pytest
from helpers import AT_ONCE, Background, Kit, Record, average_of, take_orders, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st

from orderkit.account.audit import account
from orderkit.errors import UsageError
from orderkit.orders.order import Order
from orderkit.retry import Permanent, Transient
from orderkit.retry.budget import Budget, Limits


class Service:
    """A handler that fails while it is down."""

    down = True

    def __call__(self, _order: Order, _attempt: int) -> None:
        if self.down:
            raise Transient("down")


QUICK = Limits(in_a_row=5, probe=0.05, longest=0.2)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.one_of(st.integers(1, 40), st.just(0)), max_size=60), st.floats(0, 1), st.integers(1, 20))
def test_no_more_dead_letters_than_allowed(steps: list[int], share: float, row: int) -> None:
    """Whatever comes in whatever order: never more in a row, nor a larger share of a window, than the limits say."""
    budget = Budget(Limits(share=share, window=50, in_a_row=row))
    fates: list[bool] = []
    for many in steps:
        if many:
            was_spent = budget.spent
            budget.good(many)
            fates = [False] * many if was_spent else fates + [False] * many
        elif budget.allows():
            fates.append(True)
            assert not all(fates[-row - 1 :]) or len(fates) <= row
            assert sum(fates[-50:]) <= share * 50 + 1e-9


def test_a_large_batch_of_good_orders_does_not_widen_the_window() -> None:
    """What counts is the latest so many orders, however they came: forty and forty good ones fill fifty places."""
    budget = Budget(Limits(share=0.5, window=50, in_a_row=20))
    budget.good(40)
    budget.good(40)
    assert sum(budget.allows() for _ in range(20)) == 20
    budget.good(1)
    assert sum(budget.allows() for _ in range(20)) == 5


def test_an_outage_spends_the_budget_and_nothing_is_moved() -> None:
    """While every order fails a few become dead letters, then all wait; when the outage ends all are averaged."""
    kit, orders = Kit(1), take_orders(100)
    kit.send_orders(orders)
    service = Service()
    consumer = kit.consumer(service, policy=AT_ONCE, budget=QUICK)
    with Background(consumer):
        wait_for(lambda: consumer.trouble)
        assert "5 in a row" in (consumer.trouble or "")
        attempts = len(consumer.ledger)
        wait_for(lambda: len(consumer.ledger) > attempts + 2)  # probes
        assert len(kit.letters()) == 5
        assert kit.offsets() in ({}, {0: 5})
        service.down = False
        wait_for(kit.settled)
        assert consumer.trouble is None
    assert kit.state().average == average_of(orders[5:])
    assert account(consumer.ledger, kit.state(), kit.topic).conserved


@pytest.mark.parametrize("engine", ["pause", "in-place", "topics", "key-parking"])
def test_every_engine_keeps_the_budget(engine: str) -> None:
    """The budget holds whatever the engine, and everything goes on afterwards."""
    kit, orders = Kit(1), take_orders(40)
    kit.send_orders(orders)
    service = Service()
    consumer = kit.consumer(service, policy=AT_ONCE, budget=QUICK, engine=engine)
    with Background(consumer):
        wait_for(lambda: consumer.trouble)
        service.down = False
        wait_for(lambda: consumer.ledger.finished == 40)
    assert len(kit.letters()) <= 5
    assert account(consumer.ledger, kit.state(), kit.topic).conserved


def test_a_budget_that_is_spent_in_a_rebalance_loses_nothing() -> None:
    """Partitions go to another member while the budget holds them; both wait, and when all is well all go on."""
    kit, orders = Kit(4), take_orders(200)
    kit.send_orders(orders)
    service = Service()
    first, second = (kit.consumer(service, policy=AT_ONCE, budget=QUICK) for _ in range(2))
    with Background(first):
        wait_for(lambda: first.trouble)
        with Background(second):  # its joining takes partitions from the first, in the middle of a probe perhaps
            wait_for(lambda: first.trouble and second.trouble and len(second.member.parts) == 2)
            service.down = False
            wait_for(kit.settled)
    state = kit.state()
    assert state.average.count + state.dead == 200
    # A dead letter whose commit went down with the rebalance is delivered again, and may live: at least once.
    assert state.dead <= len(kit.letters()) <= 2 * 5


def test_a_flood_of_poison_drains_slowly() -> None:
    """What no attempt can help goes to the dead letters one for each probe, until good orders come again."""
    kit, orders = Kit(1), take_orders(10)
    kit.send([Record(b"\xff")] * 9)
    kit.send_orders(orders)
    consumer = kit.consumer(policy=AT_ONCE, budget=QUICK)
    with Background(consumer):
        wait_for(kit.settled)
    assert len(kit.letters()) == 9
    assert kit.state().average == average_of(orders)
    held = [wait for wait in consumer.ledger.wait if wait]
    assert held == [0.05] * 4


def test_a_few_bad_orders_are_within_the_budget() -> None:
    """The odd bad order goes to the dead letters at once, as without a budget."""
    kit, orders = Kit(1), take_orders(200)
    kit.send_orders(orders)

    def handler(order: Order, _attempt: int) -> None:
        if int(order["orderId"]) % 10 == 0:
            raise Permanent("no")

    consumer = kit.consumer(handler, policy=AT_ONCE, budget=QUICK)
    consumer.run(orders=200)
    assert consumer.trouble is None
    assert not any(consumer.ledger.wait)
    assert len(kit.letters()) == sum(int(order["orderId"]) % 10 == 0 for order in orders)


@pytest.mark.parametrize("limits", [{"share": 1.5}, {"share": -0.1}, {"window": 0}, {"in_a_row": 0}, {"probe": 0.0}])
def test_limits_out_of_range_are_named(limits: dict[str, float]) -> None:
    """A budget that cannot be meant is a usage error."""
    with pytest.raises(UsageError):
        Limits(**limits)  # type: ignore[arg-type]
