"""Dead letters of any system: whatever the value is, it is read, shown, filtered and framed for what it is."""

from __future__ import annotations

import csv
import gc
import io
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest
from helpers import Kit, Record, take_orders
from test_dialects import CONNECT, SPRING
from test_registry import COLOURED, SALE, framed, needs_client, server, url

from orderkit.cli import main
from orderkit.dead_letters import DeadLetterRecord, Where, dead_letter_frame
from orderkit.dead_letters.payload import PayloadReader, plain
from orderkit.errors import UsageError
from orderkit.letter_files.values import Values
from orderkit.orders.avro import Codec
from orderkit.orders.registry import Registry
from orderkit.orders.schemas import parse

__all__ = ["server", "url"]  # fixtures

ORDER = take_orders(1)[0]
SOLD = {"sku": 17, "customer": {"country": "DE"}, "proof": b"\xff"}


def avro(record: Any, schema: Any = SALE, prefix: bytes = b"") -> bytes:
    out = BytesIO(prefix)
    out.seek(len(prefix))
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return out.getvalue()


MARK = parse(json.dumps(SALE), "Sale").mark
JSON = json.dumps({"order": {"total": 12.5}, "tags": ["new"], "weight": 3}).encode()

LONG_NUMBER = '{"a": ' + "9" * 5000 + "}"

# What is in the value, what it is read as, what that says, and what is said of it (and at which byte).
VALUES: list[tuple[str, bytes | None, str, Any, str, int | None]] = [
    ("order", Codec().encode(ORDER), "order", dict(ORDER), "", None),
    ("json", JSON, "json", json.loads(JSON), "", None),
    ("json list", b" [1, null]", "json", [1, None], "", None),
    ("json of a registry", b"\0\0\0\0\7" + JSON, "json", json.loads(JSON), "", None),
    ("json with NaN", b'{"a": NaN}', "json", {"a": "NaN"}, "", None),
    ("broken json", '{"ä": 1,, "b": 2}'.encode(), "text", '{"ä": 1,, "b": 2}', "no JSON: ", 9),
    ("json cut in a sign", b'{"a": "\xc3', "bytes", None, "no JSON: no UTF-8", 7),
    ("deep json", b"[" * 100_000, "text", "[" * 100_000, "no JSON that can be read", None),
    ("long number", LONG_NUMBER.encode(), "text", LONG_NUMBER, "no JSON that can be read", None),
    ("json text", b'"abc"', "json", "abc", "", None),
    ("a quote", b'"abc', "text", '"abc', "no order", None),
    ("text", "drei Äpfel\n".encode(), "text", "drei Äpfel\n", "no order", None),
    ("bytes", b"\x89PNG\r\n\x1a\n\0", "bytes", None, "no order", 9),
    ("another schema", MARK + b"\0", "bytes", None, "written with another schema", None),
    ("empty", b"", "empty", None, "the value is empty", None),
    ("tombstone", None, "tombstone", None, "tombstone", None),
    ("order of no sense", Codec().encode({**ORDER, "price": -1.0}), "avro", {**ORDER, "price": -1.0}, "-1.0", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "kind", "data", "why", "at"), [it[1:] for it in VALUES], ids=[it[0] for it in VALUES]
)
def test_a_value_is_read_for_what_it_is(value: bytes | None, kind: str, data: Any, why: str, at: int | None) -> None:
    """An order, JSON, text or bytes are told apart; of what is broken it is said why, and at which byte."""
    payload = PayloadReader().read(value)
    assert (payload.kind, payload.data) == (kind, data)
    assert why in payload.why
    assert bool(why) == bool(payload.why)
    if at is not None:
        assert payload.at == at


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    """Give a schema file that has none of an order's fields."""
    path = tmp_path / "sale.avsc"
    path.write_text(json.dumps(SALE))
    return path


def test_avro_of_any_schema_is_read_with_its_file(schema: Path, tmp_path: Path) -> None:
    """Records of a schema that is not an order's are read in each framing; orders and the rest beside them, too."""
    other = tmp_path / "other.avsc"
    other.write_text(json.dumps({"type": "record", "name": "Other", "fields": [{"name": "flag", "type": "boolean"}]}))
    reader = PayloadReader(schema, [other])
    for prefix in (b"", MARK, b"\0\0\0\0\1"):
        payload = reader.read(avro(SOLD, prefix=prefix))
        assert (payload.kind, payload.schema, payload.data, payload.why) == ("avro", "shop.Sale", SOLD, "")
    assert reader.read(b"\1").data == {"flag": True}
    assert reader.read(Codec().encode(ORDER)).order == dict(ORDER)
    assert reader.read(JSON).kind == "json"
    cut = avro(SOLD)[:-1]
    broken = reader.read(cut)
    assert (broken.kind, broken.at) == ("bytes", len(cut))
    assert broken.why.startswith("no shop.Sale: ")
    left = reader.read(avro(SOLD) + b"x" * 3)
    assert "3 bytes left over" in left.why


LOST = {"type": "record", "name": "Lost", "fields": [{"name": "where", "type": "string"}]}
# A schema whose top level is no record, a value of it, and what to call it.
OTHERS: list[tuple[Any, Any, str]] = [
    ([SALE, LOST], {"where": "Bremen"}, "union"), (["null", "long"], None, "union"),
    ({"type": "array", "items": SALE}, [SOLD, SOLD], "array"), ({"type": "map", "values": "int"}, {"a": 1}, "map"),
    ({"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}, "BLUE", "Colour"), ("string", "Äpfel", "string"),
    ({"type": "fixed", "name": "shop.Id", "size": 2}, b"\xff\0", "shop.Id"), ("double", 0.5, "double"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "name"), OTHERS, ids=[f"{name} {i}" for i, (*_, name) in enumerate(OTHERS)])
def test_avro_that_is_no_record_is_read_shown_and_kept(kind: Any, value: Any, name: str, tmp_path: Path) -> None:
    """A union, an array, a text: a value of any schema is read in each framing, and comes back byte for byte."""
    path = tmp_path / "any.avsc"
    path.write_text(json.dumps(kind))
    reader, values = PayloadReader(path), Values(path)
    for prefix in (b"", parse(json.dumps(kind), "", any_type=True).mark, b"\0\0\0\0\1"):
        whole = avro(value, kind, prefix)
        payload = reader.read(whole)
        assert (payload.kind, payload.schema, payload.data) == ("avro", name, value)
        (shown,) = values.show([whole])
        assert values.read(shown, whole) == whole
    with pytest.raises(UsageError, match="must describe one record"):
        Codec(schema=path)


def test_what_cannot_be_read_keeps_nothing_alive(schema: Path) -> None:
    """A failure is no cycle: the garbage collector runs rarely meanwhile, and values may be heavy."""
    readers = PayloadReader(), PayloadReader(schema)
    broken = [b"\xff" * 9, b"tttt", b'{"a', b"\0\0\0\0\1x", MARK + b"x", b"", None]
    for reader in readers:
        reader.read_batch(broken)
    gc.collect()
    gc.disable()
    try:
        for reader in readers:
            reader.read_batch(broken)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_broken_schema_file_is_refused(tmp_path: Path) -> None:
    """A file that is no schema is wrong usage, as everywhere."""
    path = tmp_path / "broken.avsc"
    path.write_text("{")
    with pytest.raises(UsageError, match="broken"):
        PayloadReader(path)


@needs_client
def test_a_registry_says_what_any_record_is(url: str) -> None:
    """Ids of the registry lead to records of any schema; one that leads nowhere is told, JSON is read."""
    reader = PayloadReader(registry=Registry(url))
    read = reader.read(framed(10, SALE, SOLD))
    assert (read.kind, read.schema, read.data) == ("avro", "shop.Sale", SOLD)
    assert reader.read(framed(3, COLOURED, {**ORDER, "colour": "BLUE"})).order == dict(ORDER)
    unknown = reader.read(framed(99, SALE, SOLD))
    assert (unknown.kind, "id 99 is not known to the registry" in unknown.why) == ("bytes", True)
    assert reader.read(b"\0\0\0\0\x04" + JSON).kind == "json"
    assert "id 4 is PROTOBUF" in reader.read(b"\0\0\0\0\x04\x08\x01").why


def test_data_become_json_whatever_is_in_them() -> None:
    """Bytes, numbers that are none, and keys of any kind have a place in JSON."""
    odd = {
        1: b"\xff",
        "a": [float("nan"), float("inf"), None, True],
        "b": {"c": (1, 2)},
        "d": {
            1,
        },
    }
    assert json.loads(json.dumps(plain(odd), allow_nan=False)) == {
        "1": "\xff", "a": ["nan", "inf", None, True], "b": {"c": [1, 2]}, "d": "{1}",
    }  # fmt: skip


CONDITIONS = [
    ("weight > 2", True), ("weight > 3", False), ("order.total == 12.5", True), ("'new' in tags", True),
    ("colour == None", True), ("colour > 1", False), ("not colour > 1", True), ("colour == 1 or weight == 3", True),
    ("weight > 'a'", False), ("order.total.cents > 1", False), ("weight in (1, 3)", True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "holds"), CONDITIONS)
def test_conditions_on_any_record(text: str, holds: bool) -> None:
    """Fields of fields are reached, what is missing or of another type is neither less nor more."""
    assert Where(text)(json.loads(JSON)) is holds


@pytest.mark.parametrize(
    "text", ["__import__('os')", "weight.__class__()", "weight + 1 > 2", "[x for x in tags]", "f().a > 1"]
)
def test_conditions_on_any_record_are_no_more_than_comparisons(text: str) -> None:
    """No call and no arithmetic gets through, and a dot only ever looks up a field."""
    with pytest.raises(UsageError, match="--where"):
        Where(text)
    assert Where("weight.__class__ == None")({"weight": 3}) is True


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shop(capsys: pytest.CaptureFixture[str]) -> tuple[Kit, Cli]:
    """Give a dead-letter topic of other systems, a letter for each kind of value, and the command line."""
    kit = Kit()
    values = [avro(SOLD), JSON, "drei Äpfel".encode(), b"\xffbytes", b"", None]
    kit.topic = kit.dead_letters
    kit.send(
        [Record(value, b"k", [*(SPRING if i % 2 else CONNECT), ("trace", b"abc")]) for i, value in enumerate(values)]
    )

    def cli(*arguments: str) -> tuple[int, str, str]:
        where = ["--bootstrap-server", kit.connection.bootstrap, "--dlq-topic", kit.dead_letters]
        with pytest.raises(SystemExit) as ended:
            main(["dlq", *arguments, *where])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return kit, cli


def test_letters_of_other_systems_are_listed(shop: tuple[Kit, Cli], schema: Path) -> None:
    """Table, CSV and JSON have a line for each letter, whatever its value is, and say what it is."""
    _, cli = shop
    _, table, _ = cli("list", "--schema", str(schema))
    assert [line for line in table.splitlines()[1:] if 'shop.Sale {"sku": 17' in line or '{"order"' in line]
    for part in ("drei Äpfel", "6 bytes", "empty: ", "tombstone: "):
        assert part in table
    letters = json.loads(cli("list", "--schema", str(schema), "--json")[1])["dead_letters"]
    assert [letter["payload"] for letter in letters] == ["avro", "json", "text", "bytes", "empty", "tombstone"]
    assert letters[0]["data"] == {"sku": 17, "customer": {"country": "DE"}, "proof": "\xff"}
    assert [letter["order"] for letter in letters] == [None] * 6
    rows = list(csv.DictReader(io.StringIO(cli("list", "--schema", str(schema), "--format", "csv")[1])))
    assert json.loads(rows[1]["data"]) == json.loads(JSON)
    assert [row["payload"] for row in rows] == [letter["payload"] for letter in letters]


FILTERS = [
    (["--where", "customer.country == 'DE'"], 1), (["--where", "weight == 3"], 1), (["--where", "weight == None"], 1),
    (["--class", "java.lang.IllegalStateException"], 3), (["--class", "DataException"], 3),
    (["--header", "trace=a*"], 6), (["--header", "trace=x"], 0), (["--header", "trace"], 6),
    (["--header", "kafka_dlt-original-partition=0x00000003"], 3), (["--header", "__connect.errors.stage=VALUE*"], 3),
    (["--origin", "orders"], 6), (["--origin", "orders:3"], 6), (["--origin", "orders:4", "--origin", "x"], 0),
]  # fmt: skip


@pytest.mark.parametrize(("only", "many"), FILTERS, ids=[" ".join(only) for only, _ in FILTERS])
def test_filters_look_into_any_letter(shop: tuple[Kit, Cli], schema: Path, only: list[str], many: int) -> None:
    """Conditions on fields of JSON and Avro, headers and origins choose the same letters in `list` and `stats`."""
    _, cli = shop
    given = [*only, "--schema", str(schema), "--json"]
    assert len(json.loads(cli("list", *given)[1])["dead_letters"]) == many
    assert json.loads(cli("stats", *given)[1])["total"] == many


def test_a_field_that_nothing_has_is_named(shop: tuple[Kit, Cli]) -> None:
    """A condition that holds nowhere because of a misspelt field says so in its one line."""
    for command in ("list", "stats", "replay"):
        more = ("--to", Kit().topic) if command == "replay" else ()
        status, out, _ = shop[1](command, "--where", "wieght == 3", *more)
        assert (status, out.count("\n")) == (0, 1)
        assert "None has a field wieght" in out


SHOWN = [
    ("0:0", ["a record in Avro shop.Sale", '"sku": 17'], 0),
    ("0:1", ["payload        JSON", 'fields         {"order"'], 0),
    ("0:2", ["payload        text, 11 bytes", "data           drei Äpfel", "undecodable    no shop.Sale"], 1),
    ("0:3", ["payload        bytes, 6 bytes", "undecodable    no shop.Sale", "(at byte "], 1),
    ("0:4", ["payload        an empty value"], 0),
    ("0:5", ["payload        no value (a tombstone)"], 0),
]  # fmt: skip


@pytest.mark.parametrize(("place", "parts", "marks"), SHOWN, ids=[place for place, *_ in SHOWN])
def test_a_letter_is_shown_for_what_it_is(
    shop: tuple[Kit, Cli], schema: Path, place: str, parts: list[str], marks: int
) -> None:
    """`show` says what the value is, why it cannot be read, and points at the byte in a hex view."""
    status, out, _ = shop[1]("show", place, "--schema", str(schema))
    assert status == 0
    for part in parts:
        assert part in out
    assert out.count("^^ byte") == marks
    assert json.loads(shop[1]("show", place, "--schema", str(schema), "--json")[1])["payload"] in out.lower() or marks


def test_any_payload_becomes_a_frame(schema: Path) -> None:
    """The frame's `payload` and `data` say what each value is; a header that is odd is in its notes."""
    told = {"partition": "3"}
    letters = [
        DeadLetterRecord("dlq", 0, i, 0, None, value, [], told, notes=("header x is odd",) if i == 1 else ())
        for i, value in enumerate([avro(SOLD), JSON, b"text", b"\xff\0"])
    ]
    frame = dead_letter_frame(letters, PayloadReader(schema))
    assert list(frame["payload"]) == ["avro", "json", "text", "bytes"]
    assert frame["data"][0] == SOLD
    assert frame["data"][1]["weight"] == 3
    assert frame["notes"][1] == ("header x is odd",)
    assert list(frame["undecodable"].isna()) == [True, True, False, False]
    assert list(frame["origin_partition"]) == [3, 3, 3, 3]
