"""Records from hell: none of them stops the consumer, and none of them moves the average of the good ones."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Sequence

from helpers import Kit, Record, average_of, send_odd, take_orders

from orderkit.dead_letters import DeadLetterRecord, Headers
from orderkit.dead_letters.story import UNREADABLE
from orderkit.orders.avro import SINGLE, Codec, zigzag
from orderkit.orders.order import Order, as_float32
from orderkit.retry import Failure, RetryPolicy
from orderkit.retry.backoff import Backoff

CODEC = Codec()
SENSELESS = (float("nan"), float("inf"), float("-inf"), -0.01, -1e38)
LARGE = 2_000_000  # bytes; what the embedded broker keeps of a partition is 5 MB


def raw(order_id: bytes, product: bytes, price: float) -> bytes:
    """Write an order's body by hand, sense or nonsense."""
    return zigzag(len(order_id)) + order_id + zigzag(len(product)) + product + struct.pack("<f", price)


def reasons_of(kit: Kit, records: Sequence[Record]) -> list[str]:
    """Send records with good orders between them; give their dead letters' reasons, with all else checked."""
    good = take_orders(len(records) + 1)
    mixed = [Record(CODEC.encode(good[0]), b"good")]
    for record, order in zip(records, good[1:], strict=True):
        mixed += [record, Record(CODEC.encode(order), b"good")]
    kit.send(mixed)
    kit.consumer().run(orders=len(mixed))
    letters = sorted(kit.letters(), key=lambda letter: letter.origin)
    assert [(letter.value, letter.key, letter.headers) for letter in letters] == [
        (record.value, record.key, record.headers) for record in records
    ]
    assert {letter.story["attempts"] for letter in letters} == {"1"}
    assert kit.state().average == average_of(good)
    assert kit.offsets() == {0: len(mixed)}
    return [letter.story["reason"] for letter in letters]


def is_order(value: bytes) -> bool:
    """Say whether random bytes happen to be an order."""
    try:
        CODEC.decode(value)
    except Failure:
        return False
    return True


def test_ten_thousand_random_byte_strings_are_poison() -> None:
    """Random bytes go to the dead-letter topic as they are; the good orders among them give the exact average."""
    chance = random.Random(42)
    bad = [chance.randbytes(chance.randint(0, 60)) for _ in range(10_000)]
    starts = (b"", b"", SINGLE, b"\x00\x00\x00\x00\x01", CODEC.encode(take_orders(1)[0])[:10])
    bad = [value for value in (chance.choice(starts) + value for value in bad) if not is_order(value)]
    good = take_orders(1_000)
    records = [Record(value, chance.randbytes(3), partition=i % 4) for i, value in enumerate(bad)]
    records += [Record(CODEC.encode(order), b"good", partition=i % 4) for i, order in enumerate(good)]
    chance.shuffle(records)
    kit, handled = Kit(4), []
    kit.send(records)
    consumer = kit.consumer(lambda order, _: handled.append(order["orderId"]))
    consumer.run(orders=len(records))
    letters = kit.letters()
    assert len(letters) == len(bad)
    assert sorted((letter.value, letter.key) for letter in letters if letter.value is not None) == sorted(
        (record.value, record.key) for record in records if record.key != b"good" and record.value is not None
    )
    assert {letter.story["reason"] for letter in letters} <= {"poison", "permanent"}
    assert sum(letter.story["reason"] == "poison" for letter in letters) >= 9_900
    assert len({letter.origin for letter in letters}) == len(bad)
    assert sorted(handled, key=int) == [order["orderId"] for order in good]
    assert kit.state().average == average_of(good)
    assert kit.left() == 0


def test_damaged_orders_among_good_ones_never_borrow_bytes() -> None:
    """Orders cut short or grown, in one batch with good ones, are found out one by one."""
    chance, kit = random.Random(3), Kit(4)
    codecs = [Codec(wire) for wire in ("raw", "raw", "single", "confluent")]
    records, good = [], []
    for i, order in enumerate(take_orders(600)):
        value = chance.choice(codecs).encode(order)
        damage = chance.choice(["cut", "grown", "", ""])
        if not damage:
            good.append(order)
        cut = chance.randint(1, 4)
        value = {"cut": value[:-cut], "grown": value + chance.randbytes(cut), "": value}[damage]
        records.append(Record(value, b"k", partition=i % 4))
    kit.send(records)
    kit.consumer().run(orders=600)
    assert len(kit.letters()) == 600 - len(good)
    assert kit.state().average == average_of(good)


def test_what_is_no_order_is_poison() -> None:
    """A record that cannot be read as an order is dead-lettered as poison after one attempt."""
    records = {
        "tombstone": Record(None, b"k"),
        "empty": Record(b"", b"k"),
        "nothing at all": Record(None, None),
        "empty with a header": Record(b"", None, [("h", None)]),
        "mark alone": Record(SINGLE, b"k"),
        "unknown fingerprint": Record(SINGLE + b"\x11" * 8 + raw(b"1", b"Lamp", 1.0), b"k"),
        "zero": Record(b"\x00", b"k"),
        "confluent frame alone": Record(b"\x00\x00\x00\x00\x01", b"k"),
        "length alone": Record(b"\x02", b"k"),
        "endless varint": Record(b"\x80" * 20, b"k"),
        "huge length": Record(b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"k"),
        "negative length": Record(b"\x01" + b"x" * 10, b"k"),
        "not UTF-8": Record(raw(b"\xff\xfe", b"Lamp", 1.0), b"k"),
        "one byte more": Record(raw(b"1", b"Lamp", 1.0) + b"\x00", b"k"),
        "one byte less": Record(raw(b"1", b"Lamp", 1.0)[:-1], b"k"),
        "JSON": Record(b'{"orderId": "1", "product": "Lamp", "price": 1.0}', b"k"),
    }
    reasons = reasons_of(Kit(), list(records.values()))
    assert dict(zip(records, reasons, strict=True)) == dict.fromkeys(records, "poison")


def test_what_makes_no_sense_is_permanent() -> None:
    """An order with a negative or endless price, or without an id, is read, and refused for good."""
    nameless: Order = {"orderId": "", "product": "Lamp", "price": 1.0}
    records = {f"price {price}": Record(raw(b"1", b"Lamp", price), b"k") for price in SENSELESS}
    records |= {f"no id, {wire}": Record(Codec(wire).encode(nameless), b"k") for wire in ("single", "confluent")}
    reasons = reasons_of(Kit(), list(records.values()))
    assert dict(zip(records, reasons, strict=True)) == dict.fromkeys(records, "permanent")


def test_an_unknown_fingerprint_is_named() -> None:
    """The story of a record of another schema says which schema that was."""
    kit = Kit()
    reasons_of(kit, [Record(SINGLE + bytes(range(8)) + raw(b"1", b"Lamp", 1.0), b"k")])
    (letter,) = kit.letters()
    assert "fingerprint 0001020304050607" in letter.story["message"]


def test_headers_galore_are_kept() -> None:
    """A thousand headers, doubled names and None among them, come through in order."""
    chance = random.Random(8)
    headers: Headers = [
        (f"h{chance.randint(0, 99)}", chance.choice([None, b"", chance.randbytes(30)])) for _ in range(1_000)
    ]
    assert reasons_of(Kit(), [Record(b"\xff", b"k", headers)]) == ["poison"]


def test_a_record_of_two_megabytes_is_dead_lettered_whole() -> None:
    """Large poison is kept byte for byte too."""
    large = random.Random(1).randbytes(LARGE)
    assert reasons_of(Kit(), [Record(b"\xff" + large, b"k" * 1000)]) == ["poison"]


def test_a_large_good_order_is_averaged() -> None:
    """An order with an id of a megabyte is an order."""
    kit = Kit()
    order: Order = {"orderId": "é" * 500_000, "product": "Lamp", "price": as_float32(9.99)}
    kit.send_orders([*take_orders(3)])
    kit.send([Record(CODEC.encode(order), None)])
    kit.consumer().run(orders=4)
    assert kit.letters() == []
    assert kit.state().average == average_of([*take_orders(3), order])


def test_good_orders_without_a_key_are_averaged() -> None:
    """The key plays no part in handling an order."""
    kit, orders = Kit(), take_orders(3)
    kit.send([Record(CODEC.encode(order), key) for order, key in zip(orders, (None, b"", b"\xff"), strict=True)])
    kit.consumer().run(orders=3)
    assert kit.state().average == average_of(orders)


def test_a_foreign_record_in_the_dead_letter_topic_is_read_all_the_same() -> None:
    """A record that no story came with has an unknown origin, and breaks nothing."""
    kit = Kit()
    kit.topic, kit.dead_letters = kit.dead_letters, kit.topic
    kit.send([Record(b"v", b"k", [("orderkit.dlq.topic", None), ("orderkit.dlq.partition", b"x")])])
    kit.topic, kit.dead_letters = kit.dead_letters, kit.topic
    letters: list[DeadLetterRecord] = kit.letters()
    assert [letter.origin for letter in letters] == [("?", -1, -1)]


def test_a_header_name_that_is_no_text_stops_nobody() -> None:
    """A record whose headers the client cannot give is averaged if it is an order, and set aside if it is none."""
    kit, orders = Kit(), take_orders(7)
    odd = [(b"\xff\xfe", b"v"), (b"ok", None)]
    send_odd(kit.connection, kit.topic, b"no order", odd)
    kit.send_orders(orders[:5])
    send_odd(kit.connection, kit.topic, CODEC.encode(orders[5]), odd)
    send_odd(kit.connection, kit.topic, CODEC.encode(orders[6]), odd)
    tried = Counter[str]()

    def handle(order: Order, attempt: int) -> None:
        tried[order["orderId"]] = attempt
        if order == orders[6]:
            raise TimeoutError

    kit.consumer(handle, policy=RetryPolicy(3, Backoff("fixed", 0.0))).run(orders=8)
    first, second = kit.letters()
    assert (first.value, first.story["reason"]) == (b"no order", "poison")
    assert (second.value, second.story["attempts"]) == (CODEC.encode(orders[6]), "3")
    assert first.headers == second.headers == [UNREADABLE]
    assert tried == {order["orderId"]: 1 for order in orders[:6]} | {orders[6]["orderId"]: 3}
    assert kit.state().average == average_of(orders[:6])
