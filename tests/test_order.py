"""Orders: random ones come from the seed alone, and only sensible ones are accepted."""

from __future__ import annotations

import math
import struct
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderkit.errors import UsageError
from orderkit.orders.order import PRODUCTS, Order, as_float32, check_order, random_orders
from orderkit.retry import Permanent

STEADY = settings(derandomize=True, deadline=None)


def some(seed: int, many: int = 300, first: int = 1) -> list[Order]:
    """Take the first random orders of a seed."""
    return list(islice(random_orders(seed, first=first), many))


def test_a_seed_always_gives_the_same_orders() -> None:
    """The same seed yields the same orders, however many are taken; another seed yields others."""
    assert some(7) == some(7)
    assert some(7)[:50] == some(7, 50)
    assert some(7) != some(8)


def test_two_streams_do_not_disturb_each_other() -> None:
    """Streams that are read in turns give what each gives alone."""
    one, other = random_orders(1), random_orders(2)
    pairs = [(next(one), next(other)) for _ in range(50)]
    assert [pair[0] for pair in pairs] == some(1, 50)
    assert [pair[1] for pair in pairs] == some(2, 50)


def test_ids_count_up_from_the_first() -> None:
    """Ids are the numbers from `first` on, as text."""
    assert [order["orderId"] for order in some(3, 4, first=98)] == ["98", "99", "100", "101"]


def test_the_first_number_changes_ids_only() -> None:
    """Products and prices belong to the seed, not to the numbers."""
    plain, shifted = some(5, 40), some(5, 40, first=1000)
    assert [(o["product"], o["price"]) for o in plain] == [(o["product"], o["price"]) for o in shifted]


def test_prices_are_whole_cents_in_range_as_float32() -> None:
    """A price lies in its product's range and is a whole number of cents, stored as Avro stores it."""
    for order in some(11, 2000):
        low, high = PRODUCTS[order["product"]]
        cents = round(order["price"] * 100)
        assert low <= cents <= high
        assert order["price"] == as_float32(cents / 100)


def test_every_product_turns_up_and_no_other() -> None:
    """All products are drawn, or exactly those that were asked for."""
    assert {order["product"] for order in some(1)} == set(PRODUCTS)
    few = islice(random_orders(1, products=["Dock", "Lamp"]), 100)
    assert {order["product"] for order in few} == {"Dock", "Lamp"}


def test_an_unknown_product_is_refused_at_once() -> None:
    """A product that is not sold is refused by the call, not by the first order, with the choice in one line."""
    with pytest.raises(UsageError, match=r"Unknown product 'Teapot'.*Cable") as caught:
        random_orders(1, products=["Dock", "Teapot"])
    assert "\n" not in str(caught.value)


def test_no_products_at_all_are_refused_at_once() -> None:
    """An empty choice of products is a wrong request, not a crash at the first order."""
    with pytest.raises(UsageError):
        random_orders(1, products=[])


@STEADY
@given(st.floats(min_value=0, max_value=3e38))
def test_as_float32_is_the_nearest_float32(price: float) -> None:
    """`as_float32` gives a float32, changes it no further, and is no further off than half a unit."""
    near = as_float32(price)
    assert struct.unpack("<f", struct.pack("<f", near))[0] == near
    assert as_float32(near) == near
    assert abs(near - price) <= max(price * 2**-24, 2**-150)


@STEADY
@given(st.text(max_size=5), st.floats(width=32))
def test_check_order_accepts_what_makes_sense(name: str, price: float) -> None:
    """An order passes if, and only if, it has an id and a finite price of 0 or more."""
    order: Order = {"orderId": name, "product": "", "price": price}
    if name and price >= 0 and not math.isinf(price):
        check_order(order)
    else:
        with pytest.raises(Permanent):
            check_order(order)


@pytest.mark.parametrize(
    ("name", "price", "told"),
    [
        ("", 1.0, "empty orderId"),
        ("1", -0.01, "-0.01"),
        ("1", math.inf, "inf"),
        ("1", -math.inf, "-inf"),
        ("1", math.nan, "nan"),
    ],
)
def test_check_order_says_what_is_wrong(name: str, price: float, told: str) -> None:
    """The refusal names the fault."""
    with pytest.raises(Permanent, match=told):
        check_order({"orderId": name, "product": "Dock", "price": price})
