"""A run from the plain numbers that a notebook's parameters cell holds."""

from __future__ import annotations

from functools import partial
from typing import Any

from orderkit.brokers import Broker
from orderkit.kafka import Connection
from orderkit.lab.parameters import check_values
from orderkit.orders.faults import Faults
from orderkit.retry import RetryPolicy
from orderkit.retry.backoff import Backoff
from orderkit.run import Run


def experiment(
    broker: Broker | Connection,
    *,
    orders: int = 500,
    rate: float = 0.0,
    failure_rate: float = 0.2,
    poison_rate: float = 0.0,
    permanent_rate: float = 0.0,
    max_attempts: int = 3,
    backoff: str = "exponential",
    backoff_base: float = 0.0,
    backoff_cap: float = 30.0,
    seed: int = 7,
    partitions: int = 4,
    **settings: Any,
) -> Run:
    """Make a run; nothing is started yet.

    Args:
        broker: where it happens.
        orders: how many.
        rate: orders a second; 0 for as fast as it goes.
        failure_rate: share of delivery attempts that fail, as if a service had timed out.
        poison_rate: share of orders whose bytes are damaged.
        permanent_rate: share of orders that the handler refuses for good.
        max_attempts: delivery attempts in all.
        backoff: the name of a back-off formula.
        backoff_base: seconds.
        backoff_cap: seconds; no single wait is longer.
        seed: decides the orders and their fates.
        partitions: of the run's topics.
        settings: whatever else `Run` takes: a handler, an engine, `classify`.

    Raises:
        UsageError: a value that cannot be; the line names it.
    """
    check_values(locals())
    run = partial(Run, broker, orders=orders, rate=rate, seed=seed, partitions=partitions)
    policy = RetryPolicy(max_attempts, Backoff(backoff, backoff_base, backoff_cap))
    return run(faults=Faults(seed, failure_rate, permanent_rate, poison_rate), policy=policy, **settings)
