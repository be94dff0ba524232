"""Orders: what they are, which ones make sense, and endless random ones from a seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from math import isfinite
from typing import TypedDict

from orderkit.errors import UsageError, check_known
from orderkit.retry import Permanent


class Order(TypedDict):
    """One order, the very dict that Avro reads and writes: `orderId`, `product`, `price`."""

    orderId: str
    product: str
    price: float


# Product: lowest and highest price, in cents.
PRODUCTS = {
    "Cable": (300, 1_500),
    "Mouse": (900, 4_500),
    "Lamp": (1_500, 6_000),
    "Keyboard": (2_000, 12_000),
    "Headset": (2_500, 15_000),
    "Webcam": (3_000, 11_000),
    "Dock": (6_000, 22_000),
    "Monitor": (9_000, 45_000),
}

_FLOAT32 = struct.Struct("<f")


def as_float32(price: float) -> float:
    """Give `price` as it will be read back: Avro's `float` has 32 bits."""
    value: float = _FLOAT32.unpack(_FLOAT32.pack(price))[0]
    return value


def random_orders(seed: int, products: Sequence[str] = tuple(PRODUCTS), first: int = 1) -> Iterator[Order]:
    """Yield random orders for ever; the same seed yields the same orders.

    Args:
        seed: any whole number.
        products: the products to choose from.
        first: the first order's number; ids are this number and the following ones, as text.

    Raises:
        UsageError: a product that the kit does not sell.
    """
    if not products:
        raise UsageError(f"No products to choose from. There are: {', '.join(PRODUCTS)}.")
    for name in products:
        check_known("product", name, PRODUCTS)
    return _orders(random.Random(seed), list(products), first)


def _orders(chance: random.Random, products: list[str], number: int) -> Iterator[Order]:
    while True:
        product = chance.choice(products)
        cents = chance.randint(*PRODUCTS[product])
        yield {"orderId": str(number), "product": product, "price": as_float32(cents / 100)}
        number += 1


def check_order(order: Order) -> None:
    """Refuse an order that was read well but makes no sense.

    Raises:
        Permanent: an empty id, or a price that is negative, infinite or not a number.
    """
    if not order["orderId"]:
        raise Permanent("the order has an empty orderId")
    if not (isfinite(order["price"]) and order["price"] >= 0):
        raise Permanent(f"the price is {order['price']}; it must be 0 or more, and finite")
