"""Rebalance after rebalance, restart after restart, while orders flow: real processes, audited from the topics.

`ORDERKIT_LONG=1` runs the long ones: 50 rebalances with 4 members during 100,000 orders, and 20 broker restarts.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from orderkit.crash.outcomes import Outcome
from orderkit.crash.plan import PRODUCER, CrashPlan, Injury
from orderkit.crash.stage import Stage
from orderkit.crash.trial import Trial
from orderkit.retry import RetryPolicy
from orderkit.retry.backoff import Backoff

LONG = os.environ.get("ORDERKIT_LONG") == "1"
MODES = ["at-least-once", "exactly-once"]

pytestmark = [pytest.mark.campaign, pytest.mark.kafka, pytest.mark.timeout(900)]


def carry_out(plan: CrashPlan) -> Outcome:
    with Stage() as stage:
        outcome = Trial(stage, plan).run()
    print(outcome)
    assert len(outcome.sprung) == len(plan.injuries)
    assert outcome.broken == []
    assert outcome.gave_up == 0, outcome.complaint
    return outcome


@pytest.mark.parametrize(("delivery", "engine"), [*((mode, "pause") for mode in MODES), (MODES[0], "key-parking")])
def test_no_rebalance_costs_an_order(delivery: str, engine: str) -> None:
    """With 4 members while others come and go, nothing is lost and the average is exact, parked orders included."""
    storms, orders = (16, 100_000) if LONG else (2, 4_000)
    storm = Injury("storm", PRODUCER, "ack", orders // (storms + 1))  # a consumer may have partitions without orders
    plan = CrashPlan(11, delivery, engine, injuries=(storm,) * storms, orders=orders, members=4, partitions=8)
    parked = engine == "key-parking"  # with a back-off, without which nothing waits; for it the long one goes slower
    policy = RetryPolicy(backoff=Backoff("fixed", base=0.02 if parked else 0.0))
    rate = orders / (400 if parked else 40) if LONG else 500.0
    outcome = carry_out(replace(plan, rate=rate, batch=500, patience=600.0, policy=policy))
    assert outcome.rebalances >= (50 if LONG else 8)


@pytest.mark.parametrize("delivery", MODES)
def test_no_restart_of_the_broker_costs_an_order(delivery: str) -> None:
    """The broker is stopped, and killed, and comes back; the consumers go on by themselves, and no order is lost."""
    # Apart from each other: after a restart all orders that waited are taken at once, and may not bring on the next.
    acts = [Injury(act, PRODUCER, "ack", 400) for act in ("broker-kill", "broker-restart")]
    acts = acts * 10 if LONG else acts[:1]  # the short set of crash tests has both
    carry_out(CrashPlan(12, delivery, injuries=tuple(acts), orders=420 * len(acts), rate=60.0, patience=600.0))
