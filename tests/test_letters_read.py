"""Dead letters looked at: written in other words, as a frame, in numbers, and through a filter."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import AT_ONCE, Kit, Record, take_orders
from test_dialects import SHAPES

from orderkit.dead_letters import (
    DIALECTS,
    PREFIX,
    WRITABLE,
    DeadLetterRecord,
    LetterFilter,
    Where,
    dead_letter_frame,
    header_list,
    read_topic,
)
from orderkit.dead_letters.filters import parse_attempts, parse_place, parse_time
from orderkit.dead_letters.frame import COLUMNS
from orderkit.dead_letters.stats import Stats, count_letters
from orderkit.dead_letters.story import NAMES as OWN_NAMES
from orderkit.errors import UsageError
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.retry import Permanent


def refuse(_order: Order, _attempt: int) -> None:
    """Refuse every order for good."""
    raise Permanent("no")


def refuse_thirds(order: Order, _attempt: int) -> None:
    """Refuse every third order for good."""
    if int(order["orderId"]) % 3 == 0:
        raise Permanent("a third")


WRITTEN = {
    "spring": {"group": "g", "timestamp-type": "CreateTime", "exception": "OSError", "message": "disk full"},
    "connect": {"group": "g", "stage": "TASK_PUT", "exception": "OSError", "message": "disk full", "task.id": "0"},
    "kip-1191": {"group": "g", "attempts": "1", "message": "disk full"},
}


@pytest.mark.parametrize("dialect", WRITTEN)
def test_a_story_can_be_told_in_other_words(dialect: str) -> None:
    """A consumer set to another dialect writes headers that this dialect's readers know, and nothing of ours."""
    kit = Kit()
    kit.send([Record(Codec().encode(take_orders(1)[0]), b"1", [("trace", b"abc")])])

    def handler(_order: Order, _attempt: int) -> None:
        raise Permanent("no") from OSError("disk full")

    consumer = kit.consumer(handler, policy=AT_ONCE)
    consumer.letters.dialect = dialect
    consumer.run(orders=1)
    (message,) = read_topic(kit.connection, kit.dead_letters)
    assert not [header for header in header_list(message) if header[0].startswith(PREFIX)]
    letter = DeadLetterRecord.of(message)
    assert (letter.dialect, letter.origin, letter.headers) == (dialect, (kit.topic, 0, 0), [("trace", b"abc")])
    assert {**letter.story, "group": "g"}.items() >= WRITTEN[dialect].items()
    assert letter.story["group"] == kit.group


def test_the_story_is_told_in_our_own_words() -> None:
    """A consumer left to itself writes headers of ours, which say everything that there is a name for."""
    kit = Kit()
    kit.send_orders(take_orders(1))
    kit.consumer(refuse, policy=AT_ONCE).run(orders=1)
    (letter,) = kit.letters()
    assert (letter.dialect, letter.origin, letter.notes) == ("orderkit", (kit.topic, 0, 0), ())
    assert set(letter.story) == set(OWN_NAMES)


ROOT = Path(__file__).parent.parent


def table_of_dialects() -> tuple[list[list[str]], list[list[str]]]:
    """Read the README's table: the test files of each column, and its rows."""
    text = (ROOT / "README.md").read_text("utf-8")
    head, _, *lines = text[text.index("| dialect | read") :].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (head, *lines)]
    return [re.findall(r"`(tests/\w+\.py)`", cell) for cell in rows[0]], rows[1:]


def test_each_cell_of_the_readme_s_table_is_a_test() -> None:
    """Every dialect is in the table once; what is said to be read or written is, by a test that tries this dialect."""
    files, rows = table_of_dialects()
    named = [(name, row) for row in rows for name in re.findall(r"`([\w-]+)`", row[0])]
    assert sorted(name for name, _ in named) == sorted(dialect.name for dialect in DIALECTS)
    assert {name for name, _ in named} == {name for name, *_ in SHAPES}
    assert {name for name, row in named if row[2]} == set(WRITABLE) == {"orderkit", *WRITTEN}
    for name, row in named:
        read, written, more = (re.findall(r"`(test_\w+)`", cell) for cell in row[1:])
        assert read == ["test_each_dialect_is_read"]
        assert (not written) == (name not in WRITABLE)
        for tests, places in zip((read, written, more), files[1:], strict=True):
            code = "".join((ROOT / place).read_text("utf-8") for place in places)
            assert all(f"def {test}(" in code for test in tests), name


def test_a_cause_without_words_leaves_them_to_the_error() -> None:
    """Where the first exception says nothing, as Avro's reader does, the story tells what the last one says."""
    kit = Kit()
    kit.send([Record(b"\xc3\x01", b"k"), Record(Codec().encode(take_orders(1)[0])[:-2], b"k")])
    kit.consumer().run(orders=2)
    told = sorted(letter.story["message"] for letter in kit.letters())
    assert "no order: cannot read float (at byte" in told[0]


def test_letters_become_a_frame_with_fixed_types() -> None:
    """A frame has a row a letter, with order or reason why there is none, and the documented types, also when empty."""
    kit, orders = Kit(2), take_orders(3)
    kit.send([Record(Codec().encode(orders[0]), b"1"), Record(b"\xff", None, partition=1)])
    kit.consumer(refuse, policy=AT_ONCE).run(orders=2)
    frame = dead_letter_frame(kit.letters())
    empty = dead_letter_frame([])
    for each in (frame, empty):
        assert {name: str(kind) for name, kind in each.dtypes.items()} == COLUMNS
    assert len(empty) == 0
    by_reason = frame.set_index(frame["reason"].astype(str))
    assert by_reason.loc["permanent", "order_id"] == orders[0]["orderId"]
    assert by_reason.loc["permanent", "price"] == orders[0]["price"]
    assert "at byte" in str(by_reason.loc["poison", "undecodable"])
    assert by_reason.loc["poison", "origin_partition"] == 1
    assert by_reason.loc["poison", "value"] == b"\xff"


def test_statistics_are_the_same_by_either_way() -> None:
    """Counting all letters in bulk, and one by one through a filter that lets all pass, gives the same."""
    kit = Kit(2)
    kit.send_orders(take_orders(40))
    kit.send([Record(b"\xff", b"k", [("x", None)]), Record(None, b"k")])
    kit.consumer(refuse_thirds, policy=AT_ONCE).run(orders=42)
    bulk = count_letters(kit.connection, kit.dead_letters)
    single = count_letters(kit.connection, kit.dead_letters, LetterFilter(since=0.0))
    assert bulk.as_dict() == single.as_dict()
    assert bulk.total == 15
    assert bulk.counts["reason"] == {"permanent": 13, "poison": 2}
    assert bulk.counts["dialect"] == {"orderkit": 15}


def test_statistics_keep_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many different values the rare ones are counted together: the total stays right."""
    monkeypatch.setattr("orderkit.dead_letters.stats.MOST_VALUES", 5)
    stats = Stats("dlq")
    for i in range(100):
        stats.add({"exception": f"E{i}"})
        stats.add({"exception": "often"})
    counter = stats.counts["exception"]
    assert len(counter) <= 11
    assert counter["often"] == 100
    assert sum(counter.values()) == stats.total == 200


CONDITIONS = [
    ("price > 100", True), ("price > 100 and product == 'Lamp'", True), ("not (price <= 100)", True),
    ("100 < price < 300", True), ("product in ('Dock', 'Lamp')", True), ("product not in ['Dock']", True),
    ("price == -1 or orderId == '7'", True), ("product != 'Lamp'", False), ("price >= 1e9", False),
]  # fmt: skip


@pytest.mark.parametrize(("text", "holds"), CONDITIONS)
def test_conditions_on_orders(text: str, holds: bool) -> None:
    """A condition compares fields with constants, joined by and, or, not."""
    where = Where(text, ["orderId", "product", "price"])
    assert where({"orderId": "7", "product": "Lamp", "price": 200.0}) is holds


@pytest.mark.parametrize(
    "text",
    ["", "price >", "__import__('os').system('x')", "price.real > 1", "amount > 1", "price + 1 > 2",
     "f'{price}' == 'x'", "[p for p in product]", "lambda: 1", "price > 1; 2",
     "(" * 500 + "price" + ")" * 500, "price is None"],
)  # fmt: skip
def test_conditions_that_are_more_than_comparisons_are_refused(text: str) -> None:
    """No call, attribute, arithmetic or unknown field gets through: it is wrong usage, before anything is read."""
    with pytest.raises(UsageError, match="--where"):
        Where(text, ["orderId", "product", "price"])


def test_a_condition_on_things_that_do_not_compare_is_one_line() -> None:
    """A price compared with a text is wrong usage when it is met."""
    with pytest.raises(UsageError, match="--where"):
        Where("price > 'a'", ["price"])({"price": 1.0})


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_attempts, "x"), (parse_attempts, "5-x"), (parse_place, "1"), (parse_place, "a:b"), (parse_place, "1:-1")],
)
def test_ranges_and_places_that_are_none_are_refused(parse: Callable[[str], object], text: str) -> None:
    """What is no number, range or place is wrong usage, with the right way to write it."""
    with pytest.raises(UsageError, match=r"write|as in"):
        parse(text)


def test_times_are_ago_or_a_moment() -> None:
    """A time is a span before now, or ISO 8601, in UTC unless it says otherwise."""
    assert parse_time("since", "2023-11-14T22:13:20") == 1_700_000_000
    assert parse_time("since", "2023-11-14T23:13:20+01:00") == 1_700_000_000
    assert abs((parse_time("since", "90m") or 0) + 5400 - time.time()) < 5
    with pytest.raises(UsageError, match="--since"):
        parse_time("since", "yesterday")
