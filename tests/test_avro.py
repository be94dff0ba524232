"""Bytes to orders and back: three wire formats, whole batches, and everything that is no order."""

from __future__ import annotations

import json
import random
import re
import struct
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orderkit.errors import UsageError
from orderkit.orders.avro import WIRES, Codec, encoded_length, order_schema, zigzag
from orderkit.orders.order import Order, random_orders
from orderkit.retry import Failure, Permanent, Poison

STEADY = settings(derandomize=True, deadline=None)
CODECS = {wire: Codec(wire) for wire in WIRES}
CODEC, RAW = CODECS["single"], CODECS["raw"]
SCHEMA = fastavro.parse_schema(json.loads(order_schema()))
FIELDS: list[dict[str, Any]] = json.loads(order_schema())["fields"]
NOTE = {"name": "note", "type": "string"}

PRICES = st.floats(min_value=0, width=32, allow_nan=False, allow_infinity=False)
ORDERS = st.builds(
    Order, orderId=st.text(min_size=1, max_size=70), product=st.text(max_size=70), price=PRICES
)  # beyond 63 bytes a length takes two


def order(name: str = "1", product: str = "Dock", price: float = 80.5) -> Order:
    """Make an order."""
    return {"orderId": name, "product": product, "price": price}


def outcome(codec: Codec, value: bytes | None) -> Order | Failure:
    """Decode one value; give the order, or the failure."""
    try:
        return codec.decode(value)
    except (Poison, Permanent) as failure:
        return failure


def plain(results: list[Order | Failure]) -> list[object]:
    """Make results comparable: orders as they are, failures by their kind."""
    return [type(each) if isinstance(each, Failure) else each for each in results]


def poison(value: bytes | None) -> str:
    """Decode what must be poison, and give its text."""
    with pytest.raises(Poison) as caught:
        CODEC.decode(value)
    return str(caught.value)


# --- what goes out comes back


@STEADY
@given(ORDERS, st.sampled_from(WIRES))
def test_any_order_comes_back_from_any_wire(one: Order, wire: str) -> None:
    """Every order survives every wire format unchanged."""
    assert CODECS[wire].decode(CODECS[wire].encode(one)) == one


@STEADY
@given(st.lists(ORDERS, max_size=12), st.sampled_from(WIRES))
@example([order("a" * 63), order("a" * 64), order("ä" * 32, "")], "single")
def test_a_batch_is_written_as_its_orders_are(orders: list[Order], wire: str) -> None:
    """Encoding many at once gives, byte for byte, what fastavro gives for each alone."""
    assert CODECS[wire].encode_batch(orders) == [CODECS[wire].encode(one) for one in orders]


def test_a_batch_of_another_schema_is_written_as_its_orders_are(tmp_path: Path) -> None:
    """Where a schema has more fields than the kit's own, its batches are right, too."""
    file = tmp_path / "order.avsc"
    file.write_text(json.dumps({"type": "record", "name": "Order", "fields": [*FIELDS, {**NOTE, "default": "none"}]}))
    codec, orders = Codec(schema=file), [order(str(number)) for number in range(1, 9)]
    assert codec.encode_batch(orders) == [codec.encode(one) for one in orders]


@STEADY
@given(st.lists(st.tuples(ORDERS, st.sampled_from(WIRES)), max_size=12), st.sampled_from(WIRES))
def test_readers_need_no_setting(pairs: list[tuple[Order, str]], reader: str) -> None:
    """A reader of any setting reads batches in which all wire formats are mixed."""
    values = [CODECS[wire].encode(one) for one, wire in pairs]
    assert CODECS[reader].decode_batch(values) == [one for one, _ in pairs]


@STEADY
@given(ORDERS)
def test_raw_is_what_plain_fastavro_writes_and_reads(one: Order) -> None:
    """Raw bytes are Avro's own, in both directions."""
    out = BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, one)
    assert RAW.encode(one) == out.getvalue()
    assert fastavro.schemaless_reader(BytesIO(RAW.encode(one)), SCHEMA, None) == one


@STEADY
@given(ORDERS)
def test_wires_differ_in_their_prefix_only(one: Order) -> None:
    """Single-object and Confluent framing are 10 and 5 bytes before the raw body."""
    raw = RAW.encode(one)
    assert CODECS["single"].encode(one)[10:] == CODECS["confluent"].encode(one)[5:] == raw


def crc_64_avro(text: bytes) -> int:
    """Compute the Rabin fingerprint bit by bit (Avro specification, "Schema fingerprints")."""
    empty = crc = 0xC15D213AA4D7A795
    for byte in text:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (empty if crc & 1 else 0)
    return crc


def test_single_object_prefix_is_the_specification_s() -> None:
    """The prefix is C3 01 and the CRC-64-AVRO of the canonical schema, little-endian."""
    canonical = (
        b'{"name":"orderkit.Order","type":"record","fields":[{"name":"orderId","type":"string"},'
        b'{"name":"product","type":"string"},{"name":"price","type":"float"}]}'
    )
    mark = crc_64_avro(canonical).to_bytes(8, "little")
    assert CODEC.encode(order())[:10] == b"\xc3\x01" + mark


def test_confluent_prefix_is_a_zero_and_the_schema_id() -> None:
    """Confluent's prefix is 00 and the id in 4 bytes, big-endian; a reader takes any id."""
    value = Codec("confluent", schema_id=258).encode(order())
    assert value[:5] == b"\x00\x00\x00\x01\x02"
    assert CODEC.decode(value) == order()


# Put together by hand from the Avro specification, as a Node.js writer sends them: zig-zag length and UTF-8 of the id,
# the same of the product, the price as IEEE 754 single, little-endian.
BY_HAND = [
    ("02 31  0a 49 74 65 6d 31  00 00 48 41", order("1", "Item1", 12.5)),
    ("08 31 30 30 31  0c 4c 61 70 74 6f 70  5c ff 79 44", order("1001", "Laptop", 999.989990234375)),
    ("08 e2 84 96 37  0a 43 61 66 c3 a9  cd cc cc 3d", order("№7", "Café", 0.10000000149011612)),
    ("02 7a  00  00 00 00 00", order("z", "", 0.0)),
    ("80 01" + "61" * 64 + "02 78  00 00 80 3f", order("a" * 64, "x", 1.0)),
    ("08 f0 9f 93 a6  02 62  ff ff 7f 7f", order("\N{PACKAGE}", "b", 3.4028234663852886e38)),
]


@pytest.mark.parametrize(("given_bytes", "meant"), BY_HAND)
def test_raw_bytes_made_by_hand(given_bytes: str, meant: Order) -> None:
    """Hand-made raw Avro is read as it was meant, and written the same."""
    value = bytes.fromhex(given_bytes)
    assert CODEC.decode(value) == meant
    assert CODEC.decode_batch([value]) == [meant]
    assert RAW.encode(meant) == value


@STEADY
@given(ORDERS)
@example(order("a" * 63, ""))
@example(order("a" * 64, ""))
@example(order("", "a" * 64))
@example(order("a" * 8191, "ä" * 4096))
def test_encoded_length_counts_the_body(one: Order) -> None:
    """`encoded_length` is the number of bytes that the body takes."""
    assert encoded_length(one["orderId"], one["product"]) == len(RAW.encode(one))


@STEADY
@given(st.integers(min_value=0, max_value=2**62))
def test_zigzag_is_avro_s_long(number: int) -> None:
    """`zigzag` writes what Avro writes for a `long`."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema("long"), number)
    assert zigzag(number) == out.getvalue()


# --- batches


def overlong(number: int, extra: int) -> bytes:
    """Write a length with more bytes than it needs; Avro readers take it all the same."""
    short = bytearray(zigzag(number))
    for _ in range(extra):
        short[-1] |= 0x80
        short.append(0)
    return bytes(short)


@st.composite
def strange_bodies(draw: st.DrawFn) -> bytes:
    """Build a body from parts of which each may be wrong."""
    texts = st.one_of(st.text(max_size=3).map(str.encode), st.binary(max_size=3))
    body = b""
    for text in draw(st.tuples(texts, texts)):
        off = draw(st.sampled_from([0, 0, 0, 0, 1, -1, 64]))
        body += overlong(max(0, len(text) + off), draw(st.sampled_from([0, 0, 0, 1, 2]))) + text
    price = draw(st.one_of(PRICES, st.sampled_from([float("nan"), float("inf"), -1.0, -0.0])))
    body += struct.pack("<f", price)
    cut = draw(st.sampled_from([0, 0, 0, 1, 3, 5]))
    return body[: len(body) - cut] + draw(st.sampled_from([b"", b"", b"", b"\0", b"\x02", b"xyz"]))


@st.composite
def wrongly_cut(draw: st.DrawFn) -> list[bytes]:
    """Join sound bodies and cut them at other places, so that each piece owes bytes to its neighbour."""
    joined = b"".join(RAW.encode(one) for one in draw(st.lists(ORDERS, min_size=1, max_size=4)))
    places = draw(st.lists(st.integers(0, len(joined)), max_size=4))
    cuts = [0, *sorted(places), len(joined)]
    return [joined[start:stop] for start, stop in pairwise(cuts)]


PREFIXES = {wire: CODECS[wire].encode(order())[: -len(RAW.encode(order()))] for wire in WIRES}
BODIES = st.one_of(st.lists(strange_bodies(), max_size=6), wrongly_cut())
FRAMED = st.builds(
    lambda prefix, bodies: [prefix + body for body in bodies], st.sampled_from([*PREFIXES.values()]), BODIES
)
ANYTHING: st.SearchStrategy[list[bytes | None]] = st.one_of(
    FRAMED.map(lambda values: [*values]),
    st.lists(FRAMED, max_size=3).map(lambda parts: [value for part in parts for value in part]),
    st.lists(st.one_of(st.none(), st.binary(max_size=12), strange_bodies()), max_size=6),
)


@settings(STEADY, max_examples=250)
@given(ANYTHING)
@example([])
@example([None])
@example([b""])
@example([b"\x02a\x02b\0\0", b"\x80\x3f\x02c\x02d\0\0\x80\x3f"])  # joined, both are sound
@example([b"\x02a\x02b\0\0\x80\x3f\0", b"\x02c\x02d\0\0\x80\x3f"])  # a 0 ends an array
@example([b"\x82\0a\x02b\0\0\x80\x3f", b"\x02c\x02d\0\0\x80"])  # one byte too many here, one too few there
def test_a_batch_is_its_records_one_by_one(values: list[bytes | None]) -> None:
    """`decode_batch` gives for every list of values what `decode` gives for each, in its place."""
    alone = [outcome(CODEC, value) for value in values]
    assert plain(CODEC.decode_batch(values)) == plain(alone)


@pytest.mark.parametrize("wire", WIRES)
def test_a_sound_batch_is_read_at_once(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one wire format, without anything odd, needs no single decoding."""
    codec, source = Codec(wire), random_orders(4)
    orders = [next(source) for _ in range(500)]
    values: list[bytes | None] = [codec.encode(one) for one in orders]
    monkeypatch.setattr(Codec, "decode", lambda *_: pytest.fail("decoded one by one"))
    assert codec.decode_batch(values) == orders


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1.0])
def test_a_senseless_price_hides_in_no_batch(wire: str, price: float) -> None:
    """A price that makes no sense is permanent, in its place, and its neighbours are unharmed."""
    orders = [order("1"), order("2", price=price), order("3")]
    batch = CODEC.decode_batch([CODECS[wire].encode(one) for one in orders])
    assert [batch[0], batch[2]] == [order("1"), order("3")]
    assert isinstance(batch[1], Permanent)


def test_an_empty_id_is_refused_where_it_can_be_written() -> None:
    """An order without an id is permanent behind a framing, and no order at all without one."""
    for wire in ("single", "confluent"):
        value = CODECS[wire].encode(order(""))
        assert [type(each) for each in CODEC.decode_batch([value, value])] == [Permanent, Permanent]
    assert isinstance(outcome(CODEC, RAW.encode(order(""))), Poison)


# --- what is no order


def test_random_bytes_are_poison() -> None:
    """None of 10,000 random byte strings is taken for an order, alone or in a batch."""
    chance = random.Random(2024)
    values: list[bytes | None] = [chance.randbytes(chance.randint(0, 80)) for _ in range(10_000)]
    batched = [each for start in range(0, 10_000, 100) for each in CODEC.decode_batch(values[start : start + 100])]
    assert {type(each) for each in batched} == {Poison}
    assert {type(outcome(CODEC, value)) for value in values} == {Poison}


@STEADY
@given(ORDERS, st.sampled_from(WIRES), st.data())
def test_every_truncation_is_poison(one: Order, wire: str, data: st.DataObject) -> None:
    """An order that lost bytes at its end is poison, wherever it was cut."""
    value = CODECS[wire].encode(one)
    poison(value[: data.draw(st.integers(0, len(value) - 1))])


@STEADY
@given(ORDERS, st.sampled_from(WIRES), st.binary(min_size=1, max_size=9))
def test_every_trailing_byte_is_poison(one: Order, wire: str, rest: bytes) -> None:
    """An order with bytes behind it is poison, and the text says how many and where."""
    value = CODECS[wire].encode(one)
    assert f"{len(rest)} bytes left over (at byte {len(value)}" in poison(value + rest)


def test_nothing_is_poison() -> None:
    """A tombstone and an empty value are poison, and told apart."""
    assert "tombstone" in poison(None)
    assert "empty" in poison(b"")


def test_an_unknown_fingerprint_is_named() -> None:
    """Single-object bytes of another schema are poison, and the text shows their fingerprint."""
    value = bytearray(CODEC.encode(order()))
    value[2:10] = bytes.fromhex("0123456789abcdef")
    assert "0123456789abcdef" in poison(bytes(value))


@pytest.mark.parametrize(
    ("value", "at"),
    [
        (b"\x02a\x04xy\0\0", "7 of 7"),  # the price is cut
        (b"\x08ab", "3 of 3"),  # the id is cut
        (CODEC.encode(order())[:10], "10 of 10"),  # nothing behind the framing
        (b"\x02a\x02b\0\0\0\0zz", "8"),  # left over
    ],
)
def test_the_text_says_at_which_byte(value: bytes, at: str) -> None:
    """A decoding failure names the byte at which it happened."""
    assert re.search(rf"at byte {at}\b", poison(value))


@pytest.mark.parametrize("value", [b"\x00", b"\x00\x00\x01", b"\x00\x00\x00\x00\x01", b"\x02a\x04xy\0\0", b"\x08ab"])
def test_the_byte_named_is_one_of_the_value_s(value: bytes) -> None:
    """The byte a failure names is never beyond the value's end."""
    found = re.search(r"at byte (\d+)", poison(value))
    assert found is not None
    assert int(found[1]) <= len(value)


@pytest.mark.parametrize("value", [b"\x02a", b"\x02a\x02b\0\0", b"\x02\xff\x02b\0\0\0\0", b"\x01abc", b"\xff" * 30])
def test_the_text_gives_a_reason_and_no_memory_address(value: bytes) -> None:
    """The text has a reason before the byte, and is the same each time: it goes into a dead letter's headers."""
    told = poison(value)
    assert re.match(r"no order: \S.*\(at byte", told)
    assert not re.search(r"object at|0x[0-9a-f]{6}", told)


def test_text_that_is_not_utf_8_is_poison() -> None:
    """Bytes that are no UTF-8 are poison, and the text says so."""
    assert "utf-8" in poison(b"\x02\xff\x02b\0\0\x80\x3f")


# --- schema files


def schema_file(folder: Path, fields: list[dict[str, Any]]) -> Path:
    """Write a schema with these fields."""
    path = folder / "other.avsc"
    path.write_text(json.dumps({"type": "record", "name": "Order", "fields": fields}), "utf-8")
    return path


def refusal(path: Path) -> str:
    """Load a schema that must be refused; give the line that says why."""
    with pytest.raises(UsageError) as caught:
        Codec(schema=path)
    told = str(caught.value)
    assert str(path) in told
    assert len(told.splitlines()) == 1
    return told


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "5",
        "null",
        '"string"',
        "[]",
        '["null", "string"]',
        f"[{order_schema()}]",
        '{"type": "enum", "name": "Order", "symbols": ["A"]}',
        '{"type": "record", "name": "Order"}',
        '{"type": "record", "name": "Order", "fields": null}',
        '{"type": "record", "name": "Order", "fields": ["orderId"]}',
        '{"type": "record", "fields": []}',
        '{"type": "record", "name": "Order", "fields": [{"name": "orderId", "type": "teapot"}]}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_record_schema_is_refused(text: str, tmp_path: Path) -> None:
    """Broken JSON, and schemas of other things than records, are refused in one line that names the file."""
    path = tmp_path / "other.avsc"
    path.write_text(text, "utf-8")
    assert "cannot be used" in refusal(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder and bytes that are no text are refused, with the reason."""
    assert "No such file" in refusal(tmp_path / "none.avsc")
    assert "directory" in refusal(tmp_path)
    (tmp_path / "bytes.avsc").write_bytes(b"\xff\xfe")
    assert "utf-8" in refusal(tmp_path / "bytes.avsc")


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_field_is_named(missing: int, tmp_path: Path) -> None:
    """A schema without one of an order's fields is refused by that field's name."""
    fields = [field for i, field in enumerate(FIELDS) if i != missing]
    assert repr(FIELDS[missing]["name"]) in refusal(schema_file(tmp_path, fields))


@pytest.mark.parametrize("kind", ["double", "int", ["null", "float"], {"type": "bytes"}])
def test_a_field_of_another_type_is_named(kind: object, tmp_path: Path) -> None:
    """A schema whose price is no `float` is refused, and says what it has to be."""
    told = refusal(schema_file(tmp_path, [*FIELDS[:2], {"name": "price", "type": kind}]))
    assert "'price' must be of type 'float'" in told


def test_a_new_field_needs_a_default(tmp_path: Path) -> None:
    """A further field without a default is refused by its name; so is one whose default does not fit."""
    assert "'note' needs a default" in refusal(schema_file(tmp_path, [*FIELDS, NOTE]))
    assert "must match" in refusal(schema_file(tmp_path, [*FIELDS, {"name": "n", "type": "int", "default": "one"}]))


@pytest.mark.parametrize("wire", WIRES)
def test_a_new_field_with_a_default_works(wire: str, tmp_path: Path) -> None:
    """With a further field that has a default, every wire format works, alone and in batches."""
    codec = Codec(wire, schema_file(tmp_path, [{**NOTE, "default": "none"}, *FIELDS]))
    value = codec.encode(order())
    assert codec.decode(value) == {**order(), "note": "none"}
    assert codec.decode_batch([value, value[:-1], value])[::2] == [{**order(), "note": "none"}] * 2


def test_another_schema_has_another_fingerprint(tmp_path: Path) -> None:
    """Orders written with another schema are poison to a reader that does not know it."""
    other = Codec(schema=schema_file(tmp_path, [*FIELDS, {**NOTE, "default": ""}]))
    assert "another schema" in poison(other.encode(order()))
    assert "--writer-schema" in poison(other.encode(order()))


def test_an_unknown_wire_format_is_refused() -> None:
    """A wire format that does not exist is refused with the choice."""
    with pytest.raises(UsageError, match=r"'json'.*single, raw, confluent"):
        Codec("json")
