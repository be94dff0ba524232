"""Monday morning: letters of three systems, each of an order that did die, read back as their dialect has it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason='notebooks need the extra: pip install "orderkit[lab]"')

import numpy as np
from helpers import shared

from orderkit import Codec, lab
from orderkit.dead_letters import DeadLetterRecord, dead_letter_frame, read_dead_letters, read_topic
from orderkit.dead_letters.payload import PayloadReader
from orderkit.errors import UsageError
from orderkit.lab.monday import Monday
from orderkit.lab.pace import pace_band, sent_back
from orderkit.lab.weekend import MOST, NAMES, Weekend
from orderkit.orders.order import PRODUCTS
from orderkit.replay import Replay
from orderkit.replay.job import BEAT

LETTERS, SEED = 400, 5


@dataclass(frozen=True)
class Open:
    """A shop, its plan, and its letters in the order of their places."""

    shop: Monday
    plan: Weekend
    letters: list[DeadLetterRecord]


@cache
def monday(seed: int = SEED) -> Open:
    """Open a shop that no test changes."""
    shop = Monday(shared(), letters=LETTERS, seed=seed)
    letters = read_dead_letters(shop.connection, shop.dead_letters)
    return Open(shop, Weekend(LETTERS, seed), sorted(letters, key=lambda it: (it.partition, it.offset)))


def test_four_dialects_are_read_without_a_note() -> None:
    """Each of three systems has letters, Spring in two dialects, and no header is other than it should be."""
    letters = monday().letters
    assert len(letters) == LETTERS
    assert {it.dialect for it in letters} == {"orderkit", "spring", "spring-retry", "connect"}
    assert not any(it.notes or it.headers for it in letters)
    for it in letters:
        assert {"topic", "partition", "offset", "group", "exception", "message"} <= set(it.story)
    (group,) = {it.story["group"] for it in letters if it.dialect == "orderkit"}
    assert group == monday().shop.group
    assert {it.story["attempts"] for it in letters if it.dialect == "spring-retry"} == {"3"}


def test_each_origin_is_the_order_that_died() -> None:
    """What lies at a letter's origin has its key and its value, byte for byte."""
    shop = monday().shop
    records = {
        (message.topic(), message.partition(), message.offset()): (message.key(), message.value())
        for message in read_topic(shop.connection, shop.topic)
    }
    assert all(records[it.origin] == (it.key, it.value) for it in monday().letters)


def test_the_account_knows_each_dead_order_once() -> None:
    """Orders are averaged or dead, whoever gave them up; a second letter is no second order."""
    report = monday().shop.report()
    assert report.conserved
    assert (report.produced, report.dead, report.averaged) == (500, 396, 104)


def test_some_letters_of_spring_are_there_twice() -> None:
    """One in a hundred, with the same headers, later, and behind its first in the same partition."""
    of: dict[Any, list[DeadLetterRecord]] = {}
    for it in monday().letters:
        of.setdefault(it.origin, []).append(it)
    pairs = [some for some in of.values() if len(some) > 1]
    assert len(pairs) == LETTERS // 100
    for first, again in pairs:
        assert first.dialect.startswith("spring")
        assert (first.raw, first.partition) == (again.raw, again.partition)
        assert first.timestamp < again.timestamp


def test_the_causes_are_as_many_as_asked() -> None:
    """The values of the dead orders show each cause of the plan as often as it says, and all others are the outage."""
    first = {it.origin: it for it in monday().letters}.values()
    said = PayloadReader().read_batch([it.value for it in first])
    seen = {"json": "release", "bytes": "damaged"} | {name: cause for cause, name in NAMES.items()}
    found = Counter(seen.get(it.order["product"] if it.order else it.kind, "outage") for it in said)
    assert found == monday().plan.counts


def test_a_price_as_text_is_the_price_that_was_ordered() -> None:
    """To the bit, once it is a number again: so that a mended order leaves the true average."""
    shop, said, codec = monday().shop, PayloadReader(), Codec()
    books = {order["orderId"]: order for order in shop.orders}
    for it in monday().letters:
        if (payload := said.read(it.value)).kind == "json":
            mended: Any = {**payload.data, "price": float(payload.data["price"])}
            assert codec.encode(mended) == codec.encode(books[(it.key or b"").decode()])


def told(letters: list[DeadLetterRecord], shop: Monday) -> list[Any]:
    """Give all that is written, without the names that are other ones in each run."""
    names = shop.topic.encode(), shop.group.encode()
    return [
        (it.place, it.timestamp, it.key, it.value, [pair for pair in it.raw if pair[1] not in names]) for it in letters
    ]


def test_a_seed_decides_every_byte() -> None:
    """Two shops with one seed have the same letters in the same places; another seed has others."""
    mine, again, other = monday(), monday.__wrapped__(), monday(SEED + 1)
    assert told(mine.letters, mine.shop) == told(again.letters, again.shop)
    assert told(mine.letters, mine.shop) != told(other.letters, other.shop)


@pytest.mark.parametrize("seed", range(6))
def test_the_plan_is_full_whatever_the_seed(seed: int) -> None:
    """Small or large, each cause has its orders, later orders come later, and what is sold is known."""
    for letters in (20, 400, 4_000):
        plan = Weekend(letters, seed)
        assert sum(plan.counts.values()) + plan.twice == letters
        assert min(plan.counts.values()) >= 1
        assert Counter(map(plan.cause, map(str, range(1, plan.orders + 1)))) - Counter({"": plan.orders}) == plan.counts
        times = [plan.came(str(number)) for number in range(1, plan.orders + 1, 7)]
        assert times == sorted(times)
    assert not set(NAMES.values()) & set(PRODUCTS)


@pytest.mark.parametrize("letters", [0, 19, MOST + 1])
def test_so_many_letters_cannot_be(letters: int) -> None:
    """A line names the number and its bounds, before anything is written."""
    with pytest.raises(UsageError, match=f"letters is {letters}; it must be from 20 to 40000"):
        Monday(shared(), letters=letters)


def test_the_rate_holds_from_the_first_letter_on() -> None:
    """At no time is more back than the rate allows, by the records' own times; a busy machine writes the first late."""
    shop, rate = Monday(shared(), letters=LETTERS, seed=SEED), 800.0
    moved = Replay(shop.connection, shop.dead_letters, rate=rate).run().written
    times = sent_back(shop, moved)
    _, high = pace_band(times + BEAT, moved, rate)
    assert len(times) == moved == 396
    assert np.all(np.arange(1, moved + 1) <= high)
    assert str(lab.pace_picture(shop, moved, rate)) == "396 letters at 800.0 a second: n / r = 0.5 s"


def test_lanes_are_one_for_each_kind() -> None:
    """The picture has a lane for each value of the column, with how many there are."""
    frame = dead_letter_frame(monday().letters)
    picture = lab.lanes_picture(frame, "dialect")
    texts = sorted(text.get_text().split(",")[0] for text in picture.figure.axes[0].texts)
    assert texts == sorted(f"{name}  ({many}" for name, many in frame["dialect"].value_counts().items())
