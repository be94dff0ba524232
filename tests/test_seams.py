"""The three seams: an engine, a delivery mode or a membership of the reader's own is one class, and nothing is lost."""

from __future__ import annotations

import time
from typing import Any

import pytest
from confluent_kafka import Message
from helpers import Background, Kit, average_of, fate, shorten_sessions, take_orders, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st

from orderkit.account.audit import account, dead_letter_origins
from orderkit.consuming.backlog import Backlog
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History
from orderkit.delivery import Mode
from orderkit.engines import Answer, Engine
from orderkit.errors import OrderkitError
from orderkit.ledger import Ledger
from orderkit.members.group import GroupMember
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import RetryPolicy
from orderkit.retry.backoff import Backoff

POLICY = RetryPolicy(backoff=Backoff("fixed", base=0.02))


class Aside(Engine):
    """A toy: every failing order waits in the park, and all others go past it, those of its key, too."""

    def wait(self, part: Partition, batch: Backlog, i: int, _history: History, after: float) -> Answer:
        """Park it."""
        part.park.add(batch.one(i), time.monotonic() + after)
        return Answer.ASIDE


class Twice(Mode):
    """A toy: commits whatever it can in each turn and waits for it, and again when the partitions go."""

    def taken(self, _part: Partition) -> bool:
        """Everything may be worked on."""
        return True

    def settle(self) -> None:
        """Wait for the dead letters, then for the commit."""
        self.finish(list(self._member.parts.values()), time.monotonic() + 0.2)

    def finish(self, parts: list[Partition], deadline: float) -> None:
        """Do the same as in each turn."""
        for part in parts:
            part.mark()
        self._letters.drain(deadline)
        self._member.commits.now([(part, point) for part in parts if (point := part.points.ready())])


PLANS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "many": st.integers(1, 60),
        "partitions": st.integers(1, 3),
        "stops": st.lists(st.integers(1, 20), max_size=2),  # a member ends after so many orders, and another goes on
        "joins": st.booleans(),  # a second member comes in the middle
    }
)


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> object:
    """Let restarts come after a fraction of a second."""
    with pytest.MonkeyPatch.context() as patch:
        shorten_sessions(patch)
        yield


@pytest.mark.parametrize("plans", [5, pytest.param(200, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)])])
@pytest.mark.parametrize(("engine", "delivery"), [(Aside, "at-least-once"), ("pause", Twice), (Aside, Twice)])
def test_a_part_of_the_readers_own_conserves_all_orders(
    engine: str | type[Engine], delivery: str | type[Mode], plans: int
) -> None:
    """Whatever fails, ends, begins again or joins: each order has the fate that the faults say, once."""

    @settings(derandomize=True, deadline=None, max_examples=plans)
    @given(PLANS)
    def conserved(plan: dict[str, Any]) -> None:
        conserve({"engine": engine, "delivery": delivery, "policy": POLICY}, **plan)

    conserved()


def conserve(parts: dict[str, Any], seed: int, many: int, partitions: int, stops: list[int], joins: bool) -> None:
    """Handle orders by members that come and go; hold what came of it against the faults."""
    kit, orders, faults = Kit(partitions), take_orders(many, seed), Faults(seed, transient_rate=0.2, permanent_rate=0.1)
    kit.send_orders(orders)
    for stop in stops:
        kit.consumer(faults.strike, **parts).run(orders=stop, idle=0.5)
    with Background(kit.consumer(faults.strike, **parts)) as first:
        if joins:
            wait_for(lambda: first.consumer.member.parts)
            with Background(kit.consumer(faults.strike, **parts)) as second:
                wait_for(lambda: second.consumer.member.rebalances)
        wait_for(kit.settled)
    good = [order for order in orders if fate(order, faults)]
    assert kit.state().average == average_of(good)
    kit.assert_all_accounted(faults, again=True)


def test_the_account_of_an_engine_of_the_readers_own_adds_up() -> None:
    """40 orders, 8 of them fail for good, one partition: the ledger knows the fate of each that was set aside."""
    kit, orders, ledger = Kit(), take_orders(40), Ledger()
    kit.send_orders(orders)
    doomed = {order["orderId"] for order in orders[::5]}

    def handler(order: object, _attempt: int) -> None:
        if order["orderId"] in doomed:  # type: ignore[index]
            raise TimeoutError

    kit.consumer(handler, engine=Aside, policy=POLICY, ledger=ledger).run(orders=40)
    letters = dead_letter_origins(kit.connection, kit.dead_letters, kit.group)
    report = account(ledger, kit.state(), kit.topic, letters=letters)
    assert report.conserved, str(report)
    assert (report.averaged, report.dead, report.retries, report.lost) == (32, 8, 16, 0)


class Forgets(Aside):
    """Sets aside what it does not keep."""

    def wait(self, _part: Partition, _batch: Backlog, _i: int, _history: History, _after: float) -> Answer:
        """Say that it waits elsewhere."""
        return Answer.ASIDE


class Mute(Aside):
    """Answers nothing."""

    def wait(self, *_: object) -> Answer:
        """Forget to answer."""
        return None  # type: ignore[return-value]


class Unable(Aside):
    """Raises."""

    def wait(self, *_: object) -> Answer:
        """Run into a mistake."""
        raise KeyError("wait")


class Unsettled(Twice):
    """Raises, once there is something to settle."""

    def settle(self) -> None:
        """Run into a mistake."""
        if any(part.next > 0 for part in self._member.parts.values()):
            raise ValueError("no")


class Absent(GroupMember):
    """Raises, once it has partitions."""

    def fetch(self, wait: float) -> list[tuple[Partition, list[Message]]]:
        """Run into a mistake."""
        if self.parts:
            raise ValueError("no")
        return super().fetch(wait)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"engine": Forgets}, r"^Forgets broke at orders\..*\[0\]@2: .* kept nowhere\. .*$"),
        ({"engine": Mute}, r"^Mute broke at orders\..*\[0\]@2: .*None is no answer\. .*$"),
        ({"engine": Unable}, r"^Unable broke at orders\..*\[0\]@2: KeyError: 'wait'\. .*$"),
        ({"delivery": Unsettled}, r"^Unsettled broke: ValueError: no\. .*$"),
        ({"membership": Absent}, r"^Absent broke: ValueError: no\. .*$"),
    ],
    ids=lambda it: next(iter(it.values())).__name__ if isinstance(it, dict) else "",
)
def test_a_part_that_breaks_its_contract_is_named(part: dict[str, Any], told: str) -> None:
    """One line says which part it was; no order is lost, and the consumer of the kit goes on where it was."""
    kit, orders, tried = Kit(), take_orders(6), []
    kit.send_orders(orders)

    def handler(order: Order, attempt: int) -> None:
        tried.append(order["orderId"])
        if order["orderId"] == orders[2]["orderId"] and attempt == 1:
            raise TimeoutError

    with pytest.raises(OrderkitError, match=told):
        kit.consumer(handler, policy=POLICY, **part).run(orders=6)
    assert sum(kit.offsets().values()) <= 2
    kit.consumer(handler, policy=POLICY).run(orders=6 - sum(kit.offsets().values()))
    assert kit.state().average == average_of(orders)
    assert kit.letters() == []
