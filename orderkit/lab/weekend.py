"""A weekend that went wrong: which orders die and of what, when each of them came, and what was sent in its place."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import blake2b
from random import Random
from uuid import UUID

import numpy as np

from orderkit.errors import UsageError
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults, draw
from orderkit.orders.order import PRODUCTS, Order
from orderkit.retry import Permanent

# Of the orders that die, the share that each cause takes. All others die in the outage.
SHARES = {"release": 0.22, "renamed": 0.12, "unknown": 0.03, "damaged": 0.07}
NAMES = {"renamed": "Docking Station", "unknown": "Typewriter"}  # what is sent for a product; the second is none
MEANT = {"renamed": "Dock", "unknown": "Typewriter"}  # what was ordered
TWICE = 100  # one of so many letters is a second one for the same order
HEALTHY = 1.25  # orders for each letter
BEFORE, AFTER = 0.3, 0.95  # of all orders, these shares came before the outage, and before the release was taken back
LEAST, MOST = 20, 40_000  # letters: one at least of each cause, and no more than the embedded broker keeps


def _ms(day: int, hour: int, minute: int = 0) -> int:
    return int(datetime(2026, 11, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


FRIDAY, OUTAGE, OVER, MONDAY = _ms(20, 18), _ms(21, 21), _ms(21, 23, 30), _ms(23, 7)
CODEC = Codec()


class Weekend(Faults):
    """Decides from a seed what becomes of each order.

    An outage takes all orders of Saturday night, when most came. A release writes orders as JSON, with the price as a
    text. A product was given a new name, another one nobody has. Some orders are damaged.

    Args:
        letters: how many dead letters there will be; one of a hundred is the second for its order.
        seed: decides who dies of what.

    Raises:
        UsageError: so many letters cannot be.
    """

    def __init__(self, letters: int, seed: int) -> None:
        if not LEAST <= letters <= MOST:
            raise UsageError(f"letters is {letters}; it must be from {LEAST} to {MOST}.")
        super().__init__(seed)
        self.twice = max(1, letters // TWICE)
        self.orders = round(HEALTHY * letters)
        many = letters - self.twice
        self.counts = {cause: max(1, round(share * many)) for cause, share in SHARES.items()}
        self.counts["outage"] = many - sum(self.counts.values())
        first = round(BEFORE * self.orders) + 1
        self._night = range(first, first + self.counts["outage"])
        self._causes = {str(number): "outage" for number in self._night}
        self._spread(Random(f"weekend {seed}"))

    def _spread(self, chance: Random) -> None:
        """Give the other causes to orders before and after the outage; the release was not there all the time."""
        left = [number for number in range(1, self.orders + 1) if number not in self._night]
        while_released = [it for it in left if BEFORE / 2 <= it / self.orders <= AFTER]
        for cause, many in self.counts.items():
            if cause != "outage":
                some = while_released if cause == "release" else left
                free = [number for number in some if str(number) not in self._causes]
                self._causes |= {str(number): cause for number in chance.sample(free, many)}

    def cause(self, order_id: str) -> str:
        """Say what an order dies of; "" for one that does not."""
        return self._causes.get(order_id, "")

    def came(self, order_id: str) -> int:
        """Say when an order came, in ms since 1970: later ones later, and most of them on Saturday night."""
        ends = 1, self._night.start, self._night.stop, self.orders
        return int(np.interp(int(order_id), ends, (FRIDAY, OUTAGE, OVER, MONDAY)))

    def ordered(self, order: Order) -> Order:
        """Give an order as the customer meant it."""
        return {**order, "product": MEANT.get(self.cause(order["orderId"]), order["product"])}

    def spoil(self, order_id: str, value: bytes) -> bytes:
        """Give the bytes that were sent for an order."""
        cause = self.cause(order_id)
        if cause == "damaged":
            return value[:-2]
        if cause == "release":
            order = CODEC.decode(value)
            return json.dumps({**order, "price": f"{order['price']:.2f}"}).encode()
        return CODEC.encode({**CODEC.decode(value), "product": NAMES[cause]}) if cause in NAMES else value

    def strike(self, order: Order, attempt: int) -> None:  # noqa: ARG002  another attempt changes nothing
        """Handle an order as it was handled on that weekend.

        Raises:
            TimeoutError: the price service is down, at every attempt.
            Permanent: the catalogue has no such product.
        """
        if order["product"] not in PRODUCTS:
            raise Permanent(f"order {order['orderId']}: no product '{order['product']}' in the catalogue")
        if self.cause(order["orderId"]) == "outage":
            raise TimeoutError(f"no answer from {self.address(order['orderId'])} within 2000 ms")

    def address(self, order_id: str) -> str:
        """Say which of the service's machines an order asked."""
        return f"10.0.{1 + int(9 * draw(self.seed, order_id, 0, 'host'))}.17:8443"

    def facts(self, order_id: str) -> dict[str, str]:
        """Give what messages about an order are full of: its id, the product that was sent, an address, a request."""
        request = UUID(bytes=blake2b(f"{self.seed}/{order_id}".encode(), digest_size=16).digest())
        product = NAMES.get(self.cause(order_id), "")
        return {"order": order_id, "product": product, "address": self.address(order_id), "request": str(request)}
