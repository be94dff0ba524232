"""What each delivery mode promises, cell by cell: three drawn plans with kill -9 in each mode, audited from the topics.

The README's table of guarantees has a test here behind every cell. `orderkit crash-test --plans 67` is the long form.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from helpers import PATIENCE, Late

from orderkit.cli import cli
from orderkit.delivery import MODES

PLANS, ORDERS = 3, 150
# From seed 3 on: after a dead letter's acknowledgement, while a commit is on its way, and after a commit.
COMMAND = f"crash-test --plans {PLANS} --seed 3 --act kill --orders {ORDERS} --json"
AT_MOST, AT_LEAST = "at-most-once", "at-least-once"
Plans = dict[str, list[dict[str, Any]]]

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def plans() -> Plans:
    """Carry the plans out, as a reader would; give what became of them, by delivery mode."""
    answer = CliRunner().invoke(cli, COMMAND.split(), standalone_mode=False)
    told = json.loads(answer.stdout)
    for plan in told["plans"]:
        if plan["seconds"] > 100 * PATIENCE:  # seen once, its cause unknown: a plan takes 10 s
            raise Late(json.dumps(plan))
    assert answer.return_value == 0, [plan["broken"] for plan in told["plans"]]
    assert all(told["sums"][mode]["plans"] == PLANS for mode in MODES)
    return {mode: [plan for plan in told["plans"] if plan["delivery"] == mode] for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
def test_every_plan_had_its_kill_and_came_to_an_end(mode: str, plans: Plans) -> None:
    """Each plan has a kill -9; all orders are there, and have their fate or are known to be lost."""
    for plan in plans[mode]:
        assert plan["kills"] >= 1
        assert (plan["produced"], plan["in_flight"], plan["broken"]) == (ORDERS, 0, [])


@pytest.mark.parametrize("mode", MODES)
def test_an_order_is_lost(mode: str, plans: Plans) -> None:
    """At least and exactly once never; at most once no more than was committed ahead of a crash."""
    for plan in plans[mode]:
        assert plan["lost"] <= (plan["at_risk"] if mode == AT_MOST else 0)


@pytest.mark.parametrize("mode", MODES)
def test_an_order_is_in_the_average_twice(mode: str, plans: Plans) -> None:
    """Never, in any mode: the average goes with the commit."""
    assert [plan["doubled"] for plan in plans[mode]] == [0] * PLANS


@pytest.mark.parametrize("mode", MODES)
def test_a_dead_letter_is_there_twice(mode: str, plans: Plans) -> None:
    """At least once perhaps, after a crash; in the other modes never, for who reads what is committed."""
    for plan in plans[mode]:
        assert plan["repeated"] <= (plan["dead"] if mode == AT_LEAST else 0)


@pytest.mark.parametrize("mode", MODES)
def test_the_average_is_exact(mode: str, plans: Plans) -> None:
    """To the last digit; at most once it is over the orders that were not lost, and no other."""
    for plan in plans[mode]:
        if mode == AT_MOST:
            assert plan["averaged"] + plan["dead"] + plan["lost"] == plan["produced"]
        else:
            assert plan["exact"]


@pytest.mark.parametrize("mode", MODES)
def test_the_handler_sees_an_order_again(mode: str, plans: Plans) -> None:
    """At most once never; in the other modes after a crash."""
    for plan in plans[mode]:
        assert plan["handled_again"] <= (0 if mode == AT_MOST else ORDERS)


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_a_key_is_kept(mode: str, plans: Plans) -> None:
    """In every mode: a retry lets nothing pass, and what is delivered again comes in its old order."""
    assert [plan["out_of_order"] for plan in plans[mode]] == [0] * PLANS
