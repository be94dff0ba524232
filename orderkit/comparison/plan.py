"""What every engine has to do in a comparison."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from orderkit.errors import UsageError
from orderkit.orders.order import Order


@dataclass(frozen=True)
class Plan:
    """What every engine has to do.

    Args:
        orders: in each phase.
        keys: the orders are spread over so many keys.
        failing: share of the keys with trouble: every other order fails at all attempts but the last, one in ten dies.
        rate: orders a second.
        max_attempts: delivery attempts in all.
        backoff: seconds between two attempts.
        seed: decides keys, prices and who fails.

    Raises:
        UsageError: a number out of range.
    """

    orders: int = 2000
    keys: int = 100
    failing: float = 0.01
    rate: float = 400.0
    max_attempts: int = 3
    backoff: float = 0.2
    seed: int = 7

    def __post_init__(self) -> None:
        if self.orders < 1 or self.keys < 1 or not self.rate > 0 or self.max_attempts < 2 or self.backoff < 0:
            raise UsageError("A comparison needs orders, keys and a rate above 0, and at least 2 attempts.")
        if not 0 <= self.failing <= 1:
            raise UsageError(f"The share of failing keys is from 0 to 1, not {self.failing}.")

    def stream(self) -> Iterator[Order]:
        """Yield the orders: `product` is the key."""
        draw = random.Random(self.seed)
        for number in range(self.orders):
            yield {
                "orderId": str(number),
                "product": f"item-{draw.randrange(self.keys)}",
                "price": draw.randrange(100, 10_000) / 4,
            }

    def failing_keys(self) -> set[str]:
        """Choose the keys whose orders fail."""
        many = round(self.keys * self.failing)
        return {f"item-{number}" for number in random.Random(self.seed).sample(range(self.keys), many)}
