"""Schemas that are the same, or compatible: types compared resolved, writer and reader resolved by Avro's rules."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.read import SchemaResolutionError
from fastavro.utils import generate_one
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orderkit.dead_letters.payload import Payload
from orderkit.dead_letters.reader import DeadLetterRecord
from orderkit.errors import UsageError
from orderkit.orders.avro import WIRES, Codec, order_schema
from orderkit.orders.resolution import RULE, mismatch
from orderkit.orders.schemas import read_schema
from orderkit.replay.mending import Mender
from orderkit.retry import Permanent, Poison

STEADY = settings(derandomize=True, deadline=None)
FIELDS: list[dict[str, Any]] = json.loads(order_schema())["fields"]
ID, PRODUCT, PRICE = FIELDS
NOTE = {"name": "note", "type": "string", "default": "none"}
ORDER: Any = {"orderId": "1", "product": "Dock", "price": 80.5}
OWN = {wire: Codec(wire) for wire in WIRES}
Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes a schema file."""
    many = iter(range(100))

    def write(schema: Any) -> Path:
        path = tmp_path / f"{next(many)}.avsc"
        path.write_bytes(schema if isinstance(schema, bytes) else json.dumps(schema).encode())
        return path

    return write


def record(*fields: dict[str, Any], name: str = "Order", **more: Any) -> dict[str, Any]:
    """Make a record schema."""
    return {"type": "record", "name": name, "fields": list(fields), **more}


def price(kind: Any, **more: Any) -> dict[str, Any]:
    """Make the schema of an order whose price has this type."""
    return record(ID, PRODUCT, {"name": "price", "type": kind, **more})


def written(path: Path, order: dict[str, Any], wire: str = "single") -> bytes:
    """Write an order as a program with this schema does."""
    schema, out = read_schema(path), BytesIO()
    fastavro.schemaless_writer(out, schema.parsed, order)
    return {"single": schema.mark, "raw": b"", "confluent": b"\0\0\0\0\7"}[wire] + out.getvalue()


def refusal(schema: Path, *writers: Path) -> str:
    """Make a codec that must be refused; give the line that says why."""
    with pytest.raises(UsageError) as caught:
        Codec(schema=schema, writers=writers)
    told = str(caught.value)
    assert len(told.splitlines()) == 1
    assert len(told) < 600
    return told


# --- the same, written otherwise

JAVA = {"type": "string", "avro.java.string": "String"}
SAME: dict[str, Any] = {
    "java": record({**ID, "type": JAVA}, {**PRODUCT, "type": JAVA}, PRICE, namespace="orderkit"),
    "wrapped types": record(
        {**ID, "type": {"type": {"type": "string"}}}, PRODUCT, {**PRICE, "type": {"type": "float"}}
    ),
    "byte-order mark": b"\xef\xbb\xbf" + order_schema().encode(),
    "line ends": b"\r\n" + order_schema().replace("\n", "\r\n").encode(),
    "documented": record(*({**each, "doc": "x\ny", "order": "ignore", "aliases": ["z"]} for each in FIELDS), doc="o"),
    "logical": record({**ID, "type": {"type": "string", "logicalType": "uuid"}}, PRODUCT, PRICE),
    "wrapped record": {"type": record(*FIELDS)},
    "renamed, with its alias": record(ID, PRODUCT, {"name": "amount", "type": "float", "aliases": ["price"]}),
    "namespace in the name": record(*FIELDS, name="com.acme.Order"),
    "alias of the record": record(*FIELDS, name="com.acme.Purchase", aliases=["orderkit.Order"]),
    "price with a default": price("float", default=0.1),
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", SAME)
def test_the_same_schema_in_other_words_is_accepted(name: str, wire: str, write: Write) -> None:
    """A schema that differs from the kit's in its words alone reads its own orders, and the kit's."""
    codec = Codec(wire, write(SAME[name]))
    ours, own = codec.encode(ORDER), OWN[wire].encode(ORDER)
    assert ours[-len(OWN["raw"].encode(ORDER)) :] == OWN["raw"].encode(ORDER)
    assert codec.encode_batch([ORDER] * 3) == [ours] * 3
    assert codec.decode(ours) == codec.decode(own) == ORDER
    assert codec.decode_batch([ours, ours, own]) == [ORDER] * 3


@pytest.mark.parametrize("name", ["java", "byte-order mark", "line ends"])
def test_what_only_adds_words_has_the_kit_s_own_fingerprint(name: str, write: Write) -> None:
    """The fingerprint is that of the parsing canonical form, which leaves attributes out."""
    assert Codec(schema=write(SAME[name])).encode(ORDER) == OWN["single"].encode(ORDER)


@pytest.mark.parametrize("name", ["java", "documented", "namespace in the name", "renamed, with its alias"])
def test_the_same_layout_is_read_at_once(name: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of the kit's own layout need no single decoding, whatever names their schema has."""
    codec = Codec(schema=write(SAME[name]))
    values = codec.encode_batch([ORDER] * 100)
    monkeypatch.setattr(Codec, "decode", lambda *_: pytest.fail("decoded one by one"))
    assert codec.decode_batch(values) == [ORDER] * 100


# --- a reader that has more

FIXED = {"type": "fixed", "name": "Two", "size": 2}
ENUM = {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}
PART = {"type": "record", "name": "Part", "fields": [{"name": "n", "type": "int", "default": 4}]}
NEW: list[tuple[Any, Any, Any]] = [
    ("string", "none", "none"),
    ("int", 3, 3),
    ("double", 1, 1.0),
    ("float", 0.1, 0.10000000149011612),
    ("boolean", True, True),
    ("bytes", "\u00ffa", b"\xffa"),
    (FIXED, "ab", b"ab"),
    (ENUM, "BLUE", "BLUE"),
    (["null", "string"], None, None),
    (["string", "null"], "x", "x"),
    (["null", {"type": "map", "values": "int"}], None, None),
    ({"type": "array", "items": "string"}, ["a"], ["a"]),
    ({"type": "map", "values": "bytes"}, {"a": "\u00fe"}, {"a": b"\xfe"}),
    (PART, {}, {"n": 4}),
    ({"type": "int", "logicalType": "date"}, 7, 7),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, "\u0001", b"\1"),
    (["null", "Order"], None, None),
]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("kind", "default", "read"), NEW)
def test_a_new_field_has_its_default(kind: Any, default: Any, read: Any, wire: str, write: Write) -> None:
    """Orders of the kit's own schema are read with one that has a new field, in any place: its default is filled in."""
    field = {"name": "new", "type": kind, "default": default}
    for fields in ([*FIELDS, field], [field, *FIELDS], [ID, field, PRODUCT, PRICE]):
        codec = Codec(wire, write(record(*fields)))
        values = [OWN[wire].encode(ORDER), codec.encode(ORDER)]
        assert codec.decode_batch(values * 2) == [{**ORDER, "new": read}] * 4


def test_a_default_belongs_to_one_order(write: Write) -> None:
    """A handler that changes a default's list changes that of its own order only."""
    codec = Codec(schema=write(record(*FIELDS, {**NOTE, "type": {"type": "array", "items": "int"}, "default": []})))
    first: Any
    second: Any
    first, second = codec.decode_batch([OWN["single"].encode(ORDER)] * 2)
    first["note"].append(1)
    assert second["note"] == []


@pytest.mark.parametrize(
    ("kind", "default"),
    [("int", "one"), (FIXED, "abc"), (ENUM, "GREEN"), ("float", 1e39), ("bytes", "\u1234"), (["null", "int"], "x")],
)
def test_a_default_that_does_not_fit_is_refused(kind: Any, default: Any, write: Write) -> None:
    """A default of another type than its field is refused when the file is read, not when an order is."""
    assert "efault" in refusal(write(record(*FIELDS, {"name": "new", "type": kind, "default": default})))


# --- other writers

LIST = {"type": "array", "items": "string"}
WRITERS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "int": (price("int"), {"price": 80}, {"price": 80.0}),
    "long": (price({"type": "long"}), {"price": 2**24 + 1}, {"price": 2.0**24}),  # the nearest float, as in Java
    "union": (price(["null", "float"]), {}, {}),
    "union with int": (price(["null", "int"]), {"price": 3}, {"price": 3.0}),
    "logical": (price({"type": "int", "logicalType": "date"}), {"price": 3}, {"price": 3.0}),
    "bytes": (record({**ID, "type": "bytes"}, PRODUCT, PRICE), {"orderId": b"\xc3\xa9"}, {"orderId": "é"}),
    "order": (record(PRICE, PRODUCT, ID), {}, {}),
    "swapped": (record(PRODUCT, ID, PRICE), {}, {}),
    "namespace": (record(*FIELDS, namespace="com.acme"), {}, {}),
    "more": (record({"name": "c", "type": ["null", "string"]}, *FIELDS), {"c": None}, {}),
    "by reference": (
        record({"name": "a", "type": ENUM}, *FIELDS, {"name": "b", "type": "Colour"}, {"name": "c", "type": FIXED}),
        {"a": "RED", "b": "BLUE", "c": b"ab"}, {},
    ),
    "itself": (record(*FIELDS, {"name": "c", "type": ["null", "Order"]}), {"c": {**ORDER, "c": None}}, {}),
}  # fmt: skip


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", WRITERS)
def test_orders_of_a_known_writer_are_read(name: str, wire: str, write: Write) -> None:
    """A writer's fields are matched by name, promoted, or skipped, alone and in a batch (Schema Resolution)."""
    schema, order, read = WRITERS[name]
    path = write(schema)
    codec, value = Codec(writers=[path]), written(path, {**ORDER, **order}, wire)
    own = OWN["single"].encode(ORDER)
    assert codec.decode_batch([value, own, value]) == [{**ORDER, **read}, ORDER, {**ORDER, **read}]
    assert codec.decode_batch([value] * 3) == [{**ORDER, **read}] * 3


@pytest.mark.parametrize("name", WRITERS)
def test_every_truncation_of_another_writer_s_order_is_poison(name: str, write: Write) -> None:
    """Bytes that are missing or too many are noticed in fields, too, that the reader skips, and their place is told."""
    schema, order, _ = WRITERS[name]
    path = write(schema)
    codec, value = Codec(writers=[path]), written(path, {**ORDER, **order})
    for end in range(1, len(value)):
        with pytest.raises(Poison):
            codec.decode(value[:end])
    with pytest.raises(Poison, match=rf"2 bytes left over \(at byte {len(value)}\)"):
        codec.decode(value + b"xx")


AMOUNT = {"name": "amount", "type": "float"}
THREE = {"price": 3.0}
OPTIONAL = {**NOTE, "type": ["null", "double"], "default": None}


@pytest.mark.parametrize(
    ("reader", "writer", "order", "read"),
    [
        (price("float", aliases=["amount"]), record(ID, PRODUCT, {**AMOUNT, "type": "int"}), {"amount": 3}, THREE),
        (price("float", aliases=["amount"]), record(*FIELDS, AMOUNT), {"amount": 3}, {}),
        (record(*FIELDS, aliases=["Purchase"]), record(*FIELDS, name="com.acme.Purchase"), {}, {}),
        (record(ID, {**PRODUCT, "default": "?"}, PRICE), record(ID, PRICE), {}, {"product": "?"}),
        (price("float", default=0.1), record(ID, PRODUCT), {}, {"price": 0.10000000149011612}),
        (record(*FIELDS, OPTIONAL), record(*FIELDS, {"name": "note", "type": "int"}), {"note": 4}, {"note": 4.0}),
        (
            record(*FIELDS, {"name": "part", "type": PART, "default": {}}),
            record(*FIELDS, {"name": "part", "type": {"type": "record", "name": "x.Part", "fields": []}}),
            {"part": {}}, {"part": {"n": 4}},
        ),
    ],
)  # fmt: skip
def test_a_reader_s_aliases_and_defaults_are_followed(
    reader: Any, writer: Any, order: Any, read: Any, write: Write
) -> None:
    """What a writer calls otherwise, or has not, is found by the reader's alias, or is the reader's default."""
    path = write(writer)
    codec = Codec(schema=write(reader), writers=[path])
    value = written(path, {**ORDER, **order})
    assert codec.decode_batch([value] * 2) == [{**ORDER, **read}] * 2


@pytest.mark.parametrize(
    ("writer", "told"),
    [
        (price("double"), "field 'price': double does not promote to float"),
        (price(["null", "double"]), "field 'price'"),
        (price("string"), "field 'price': string does not promote to float"),
        (record(ID, {**PRODUCT, "type": ENUM}, PRICE), "field 'product': enum does not promote to string"),
        (record(ID, PRICE), "field 'product' is not there, and has no default"),
        (record(*FIELDS, name="Purchase"), "record 'Purchase' is not 'orderkit.Order', nor an alias of it"),
    ],
)
def test_a_writer_that_can_never_be_read_is_refused(writer: Any, told: str, write: Write) -> None:
    """A writer schema that does not resolve is refused at the start, by the name of the field and of the rule."""
    with pytest.raises(UsageError) as caught:
        Codec(writers=[path := write(writer)])
    assert told in str(caught.value)
    assert RULE in str(caught.value)
    assert str(path) in str(caught.value)


def test_types_that_are_nested_too_deeply_are_refused(write: Write) -> None:
    """A nesting that cannot be compared is said in one line."""

    def nested(depth: int) -> bytes:
        field = {"name": "note", "type": "@", "default": []}
        kind = '{"type": "array", "items": ' * depth + '"int"' + "}" * depth
        return json.dumps(record(*FIELDS, field)).replace('"@"', kind).encode()

    assert "nested too deeply" in refusal(write(nested(700)), write(nested(701)))


@pytest.mark.parametrize(
    ("kind", "order"), [(["null", "float"], None), (["float", "double"], ("double", 1.5)), (["int", "string"], "3")]
)
def test_a_branch_that_does_not_resolve_is_poison(kind: Any, order: Any, write: Write) -> None:
    """Of a writer's union the branch that an order has must resolve; the poison says the rule and the byte."""
    path = write(price(kind))
    with pytest.raises(Poison, match=r"at byte 1\d of \d+, Avro specification") as caught:
        Codec(writers=[path]).decode(written(path, {**ORDER, "price": order}))
    assert RULE in str(caught.value)


def test_a_promoted_price_has_to_make_sense(write: Write) -> None:
    """A price of less than nothing is permanent, whoever wrote it."""
    path = write(price("int"))
    with pytest.raises(Permanent):
        Codec(writers=[path]).decode(written(path, {**ORDER, "price": -1}))


def test_the_kit_s_own_orders_may_not_resolve(write: Write) -> None:
    """A reader whose record has another name reads its own orders, and says of the kit's why it cannot."""
    codec = Codec(schema=write(record(*FIELDS, name="Purchase")))
    assert codec.decode(codec.encode(ORDER)) == ORDER
    with pytest.raises(Poison, match=r"'orderkit.Order' is not 'Purchase'"):
        codec.decode(OWN["single"].encode(ORDER))


def test_bytes_that_name_nobody_are_the_first_writer_s_that_fits(write: Write) -> None:
    """Raw bytes are tried with the writers given, in order, then with the reader's schema, then with the kit's."""
    swapped, longs = write(record(PRODUCT, ID, PRICE)), write(price("long"))
    value, reversed_order = OWN["raw"].encode(ORDER), {**ORDER, "orderId": "Dock", "product": "1"}
    assert Codec().decode(value) == ORDER
    assert Codec(schema=swapped).decode(value) == reversed_order
    assert Codec(writers=[swapped]).decode(value) == reversed_order
    assert Codec(writers=[longs, swapped]).decode(value) == reversed_order
    assert Codec(writers=[longs]).decode(value) == ORDER


def test_a_mended_order_is_read_as_it_was_meant(write: Write) -> None:
    """A transform's order stays unwritten where its bytes would be taken for another writer's."""
    codec = Codec(writers=[write(record(PRODUCT, ID, PRICE))])
    for wire, stays in (("single", False), ("raw", True)):
        value = OWN[wire].encode(ORDER)
        letter = DeadLetterRecord("dlq", 0, 0, 0, None, value, [], {})
        mender = Mender(lambda order, _: order, reader=codec)
        if stays:
            with pytest.raises(Exception, match="which schema wrote it"):
                mender.mend(letter, Payload("order", ORDER))
        else:
            assert mender.mend(letter, Payload("order", ORDER)) == value


# --- the rules, held against fastavro

PLAIN = st.sampled_from(["null", "boolean", "int", "long", "float", "double", "bytes", "string"])
NAMED = st.sampled_from(
    [ENUM, {**ENUM, "name": "x.Colour"}, {**ENUM, "name": "Hue"}, FIXED, {**FIXED, "size": 3}, PART]
)
NESTED = st.recursive(
    st.one_of(PLAIN, NAMED),
    lambda inner: st.one_of(
        inner.map(lambda each: {"type": "array", "items": each}),
        inner.map(lambda each: {"type": "map", "values": each}),
    ),
    max_leaves=3,
)


@settings(STEADY, max_examples=400)
@given(NESTED, NESTED)
@example("int", "float")
@example(FIXED, {**FIXED, "size": 3})
def test_types_match_where_fastavro_reads_them(writer: Any, reader: Any) -> None:
    """What is said beforehand about two types is what fastavro does with a value."""
    random.seed(1)
    schema, other = fastavro.parse_schema(writer), fastavro.parse_schema(reader)
    out = BytesIO()
    fastavro.schemaless_writer(out, schema, generate_one(schema))
    out.seek(0)
    told, reads = mismatch(schema, other), True
    with suppress(UnicodeDecodeError):  # random bytes, read as a string
        try:
            fastavro.schemaless_reader(out, schema, other)
        except SchemaResolutionError:
            reads = False
    assert not told or not reads
    assert told or reads


# --- files that are no schema


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"\xef\xbb\xbf \n", "empty"),
        (order_schema().encode("utf-16"), "utf-8"),
        (b"{", "Expecting"),
        ([json.loads(order_schema())], "a list of schemas"),
        (["null", record(*FIELDS)], "a list of schemas"),
        ({"a": 1}, "one record"),
        (ENUM, "one record"),
        (record(*FIELDS, ID), "'orderId' is there twice"),
        (record(*FIELDS, {**NOTE, "name": 5}), "must be text"),
        (record(ID, PRODUCT, {**PRICE, "aliases": "amount"}), "must be text"),
        (record(*FIELDS, name=""), "name"),
        (record(*FIELDS, namespace=4), "name"),
        (record(*FIELDS, doc=None, fields_=None, aliases=["x"]) | {"fields": 5}, "cannot be used"),
        (b'{"type":"array","items":' * 50_000, "nested too deeply"),
        (price("double"), f"double does not promote to float ({RULE})"),
        (price("int"), "--writer-schema"),
        (price(["null", "float"]), "--writer-schema"),
        (record(ID, PRODUCT, {**PRICE, "name": "amount"}), "aliases"),
        (record(*FIELDS, {"name": "note", "type": "string"}), f"'note' needs a default ({RULE})"),
    ],
)
def test_a_file_that_will_not_do_says_why(content: Any, told: str, write: Write) -> None:
    """A schema file that cannot be used is refused in one line with its name, the reason, and the rule."""
    path = write(content)
    assert told in refusal(path)
    assert str(path) in refusal(path)
