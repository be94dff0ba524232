"""Failures on purpose, decided by (seed, order id, attempt) and nothing else.

Neither arrival order, nor threads, nor how often it is asked changes a fate, so two runs with one seed agree on any
broker.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import blake2b

from orderkit.errors import UsageError
from orderkit.orders.order import Order
from orderkit.retry import Permanent, Transient


def draw(seed: int, order_id: str, attempt: int, purpose: str) -> float:
    """Draw from [0, 1): always the same for the same arguments, and unrelated for others."""
    text = f"{seed}/{purpose}/{attempt}/{order_id}"
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2.0**53  # 53 bits: a float64 can never round up to 1.0


@dataclass
class Faults:
    """What goes wrong, and how often. Rates are shares from 0 to 1 and may be changed while orders flow.

    Args:
        seed: decides which orders are hit.
        transient_rate: share of delivery attempts that fail as if a service had timed out.
        permanent_rate: share of orders that the handler refuses for good.
        poison_rate: share of orders whose bytes are damaged on the way in.
        slow_rate: share of delivery attempts that take `slow_for` seconds longer.
        slow_for: seconds.
        outage: first and last order number of a spell in which every attempt fails.
        outage_attempts: how many attempts of each order the spell lasts.

    Raises:
        UsageError: a rate outside 0..1 or a negative time.
    """

    seed: int = 0
    transient_rate: float = 0.0
    permanent_rate: float = 0.0
    poison_rate: float = 0.0
    slow_rate: float = 0.0
    slow_for: float = 0.05
    outage: tuple[int, int] | None = None
    outage_attempts: int = 2

    def __post_init__(self) -> None:
        for name in ("transient_rate", "permanent_rate", "poison_rate", "slow_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name)}; a rate is a share from 0 to 1.")
        if not 0 <= self.slow_for < float("inf"):
            raise UsageError(f"slow_for is {self.slow_for}; it is a time in seconds, 0 or more.")

    def _hits(self, purpose: str, rate: float, order_id: str, attempt: int = 0) -> bool:
        return rate > 0 and draw(self.seed, order_id, attempt, purpose) < rate

    def strike(self, order: Order, attempt: int) -> None:
        """Let this delivery attempt fail, or be slow, if its fate says so.

        Raises:
            Permanent: the handler refuses this order on every attempt.
            Transient: this attempt fails; another may not.
        """
        order_id = order["orderId"]
        if self._hits("slow", self.slow_rate, order_id, attempt):
            time.sleep(self.slow_for)  # this is the handler's own work taking long, not a retry waiting
        if self._hits("permanent", self.permanent_rate, order_id):
            raise Permanent(f"order {order_id} is refused for good")
        if self.outage and attempt <= self.outage_attempts and self._in_outage(order_id):
            raise Transient("the service is down")
        if self._hits("transient", self.transient_rate, order_id, attempt):
            raise Transient("the service timed out")

    def _in_outage(self, order_id: str) -> bool:
        first, last = self.outage or (1, 0)
        number = order_id if len(order_id) < 20 and order_id.isascii() and order_id.isdecimal() else "-1"
        return first <= int(number) <= last

    def spoil(self, order_id: str, value: bytes) -> bytes:
        """Damage the bytes of an order if its fate says so: they end in the middle of the price."""
        return value[:-2] if self._hits("poison", self.poison_rate, order_id) else value
