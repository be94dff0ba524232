"""A run from the plain numbers that a notebook's parameters cell holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orderkit.backoff import FORMULAS, Backoff
from orderkit.brokers import Broker
from orderkit.errors import UsageError
from orderkit.faults import Faults
from orderkit.kafka import Connection
from orderkit.retry import RetryPolicy
from orderkit.run import Run


@dataclass(frozen=True)
class Rule:
    """What a number has to be."""

    told: str
    low: float = 0.0
    high: float = math.inf
    whole: bool = False

    def allows(self, value: object) -> bool:
        """Say whether a value keeps the rule."""
        kinds = int if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self._holds(float(value))

    def _holds(self, number: float) -> bool:
        return self.low <= number <= self.high and math.isfinite(number)


SHARE = Rule("a share from 0 to 1", high=1.0)
RULES = {
    "orders": Rule("a whole number, 1 or more", low=1, whole=True),
    "rate": Rule("orders a second, 0 (as fast as it goes) or more"),
    "failure_rate": SHARE,
    "poison_rate": SHARE,
    "max_attempts": Rule("a whole number, 1 or more", low=1, whole=True),
    "backoff_base": Rule("seconds, 0 or more"),
    "seed": Rule("a whole number, 0 or more", whole=True),
}


def experiment(
    broker: Broker | Connection,
    *,
    orders: int = 500,
    rate: float = 0.0,
    failure_rate: float = 0.2,
    poison_rate: float = 0.0,
    max_attempts: int = 3,
    backoff: str = "exponential",
    backoff_base: float = 0.0,
    seed: int = 7,
    partitions: int = 4,
) -> Run:
    """Make a run; nothing is started yet.

    Args:
        broker: where it happens.
        orders: how many.
        rate: orders a second; 0 for as fast as it goes.
        failure_rate: share of delivery attempts that fail, as if a service had timed out.
        poison_rate: share of orders whose bytes are damaged.
        max_attempts: delivery attempts in all.
        backoff: the name of a back-off formula.
        backoff_base: seconds.
        seed: decides the orders and their fates.
        partitions: of the run's topics.

    Raises:
        UsageError: a value that cannot be; the line names it.
    """
    given = locals()
    for name, rule in RULES.items():
        if not rule.allows(given[name]):
            raise UsageError(f"{name} is {given[name]!r}; it must be {rule.told}.")
    if backoff not in FORMULAS:
        raise UsageError(f"backoff is {backoff!r}; choose from: {', '.join(FORMULAS)}.")
    return Run(
        broker,
        orders=orders,
        seed=seed,
        rate=rate,
        faults=Faults(seed, transient_rate=failure_rate, poison_rate=poison_rate),
        policy=RetryPolicy(max_attempts, Backoff(backoff, backoff_base)),
        partitions=partitions,
    )
