"""Dead letters into a file and back: bit for bit, edited ones in the wire format they had, each once after any kill."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fastavro
import pytest
from helpers import Kit, Record, send_odd, take_orders, wait_for
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from orderkit.brokers import ApacheBroker
from orderkit.dead_letters import LetterFilter, header_list, read_topic
from orderkit.dead_letters.dialects import ORIGINAL_VALUE
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.kafka.configs import TOPIC, change_config
from orderkit.letter_files import bookmark as bookmarks
from orderkit.letter_files.columns import KINDS, letters_frame
from orderkit.letter_files.copies import COLUMNS
from orderkit.letter_files.exporting import export_letters
from orderkit.letter_files.importing import Import, Imported, open_letters, write_letters
from orderkit.letter_files.values import Values
from orderkit.orders.avro import Codec

KINDS_OF_FILES = ("jsonl", "parquet")
ORDERS = take_orders(20)
WIRES = ["raw", "single", "confluent"]
SCALARS = st.integers() | st.floats() | st.text(max_size=5) | st.none()
CONTENTS = (
    st.none()
    | st.binary(max_size=60)
    | st.text(max_size=30).map(str.encode)
    | st.builds(lambda order, wire: Codec(wire).encode(order), st.sampled_from(ORDERS), st.sampled_from(WIRES))
    | st.builds(lambda found, spaces: json.dumps(found, indent=spaces).encode(),
                st.dictionaries(st.text(max_size=5), SCALARS, max_size=4),
                st.sampled_from([None, 2]))
)  # fmt: skip
NAMES = st.sampled_from(["", "a", "orderkit.dlq.reason", "orderkit.dlq.original-value"]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8
)
LETTERS = st.builds(
    Record, CONTENTS, st.none() | st.binary(max_size=9) | st.text(max_size=5).map(str.encode),
    st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=12) | st.text(max_size=9).map(str.encode)), max_size=6),
    st.integers(0, 3),
)  # fmt: skip

Letter = tuple[int, int, bytes | None, bytes | None, tuple[Any, ...]]


def letters_of(connection: Connection, topic: str) -> list[Letter]:
    """Read a topic: partition, timestamp, key, value and headers of each record, in the order of each partition."""
    found = [
        (m.partition() or 0, m.timestamp()[1], m.key(), m.value(), tuple(header_list(m)))
        for m in read_topic(connection, topic)
    ]
    return sorted(found, key=lambda letter: letter[0])


def fresh(kit: Kit, name: str = "back") -> str:
    """Make one more topic."""
    topic = f"{kit.topic}.{name}"
    kit.connection.create_topics({topic: 4})
    return topic


def bring_back(connection: Connection, path: Path, to: str, **more: Any) -> Imported:
    """Import a file."""
    job = Import(connection, open_letters(path), to=to, **more)
    return job.run(job.look())


def examples(many: int) -> list[Record]:
    """Let Hypothesis make letters, always the same ones."""
    found: list[Record] = []

    @seed(20261129)
    @settings(max_examples=many, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(LETTERS)
    def collect(letter: Record) -> None:
        found.append(letter)

    collect()
    return found[:many]


@pytest.mark.parametrize("many", [300, pytest.param(10_000, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_whatever_a_letter_holds_comes_back_bit_for_bit(kind: str, many: int, tmp_path: Path) -> None:
    """Any key, value and headers (order, repeats, nulls) and the time are the same after a file, in the same order."""
    kit, records = Kit(4), examples(many)
    kit.send(records)
    first, second = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    assert export_letters(kit.connection, kit.topic, first).written == len(records)
    report = bring_back(kit.connection, first, to := fresh(kit))
    assert (report.written, report.found.edited) == ({to: len(records)}, 0)
    assert letters_of(kit.connection, to) == letters_of(kit.connection, kit.topic)
    assert export_letters(kit.connection, to, second).written == len(records)
    assert _without_places(second) == _without_places(first)


def _without_places(path: Path) -> Any:
    """Read a file as others would, by partition, without topic and offset, which are the target's own."""
    if path.suffix == ".jsonl":
        rows = map(json.loads, path.read_bytes().splitlines())
    else:
        import pyarrow.parquet as pq

        rows = iter(pq.read_table(path).to_pylist())
    kept = [{name: cell for name, cell in row.items() if name not in ("topic", "offset")} for row in rows]
    return sorted(kept, key=lambda row: row["partition"])


@pytest.mark.parametrize("many", [200, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_a_frame_in_is_a_frame_out(many: int) -> None:
    """A frame has the documented columns and types, and what is written from it is what was read."""
    kit = Kit(4)
    kit.send(examples(many))
    frame = letters_frame(kit.connection, kit.topic)
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == {n: KINDS.get(n, "object") for n in COLUMNS}
    write_letters(kit.connection, frame, to := fresh(kit))
    assert letters_of(kit.connection, to) == letters_of(kit.connection, kit.topic)
    assert len(letters_frame(kit.connection, to, LetterFilter(dialects=["spring"]))) == 0


def test_pandas_reads_and_writes_the_files(tmp_path: Path) -> None:
    """Both formats survive a way through pandas, and a value edited there goes through with the former one kept."""
    import pandas as pd

    kit, codec = Kit(4), Codec()
    kit.send(
        [Record(codec.encode(ORDERS[0]), b"17", [("trace", b"abc")]), Record(b'{"a":1}', b"j"), Record(None, None)]
    )
    for kind in KINDS_OF_FILES:
        path, to = tmp_path / f"letters.{kind}", fresh(kit, kind)
        export_letters(kit.connection, kit.topic, path)
        if kind == "jsonl":
            frame = pd.read_json(path, lines=True, dtype=False)
            frame.at[1, "value"] = {"json": {"a": 2}}  # type: ignore[assignment]
            frame.to_json(path, orient="records", lines=True)
        else:
            frame = pd.read_parquet(path)
            frame.at[1, "value"] = b'{"a":2}'
            frame.to_parquet(path)
        assert bring_back(kit.connection, path, to).found.edited == 1
        before, after = letters_of(kit.connection, kit.topic), letters_of(kit.connection, to)
        assert (after[0], after[2]) == (before[0], before[2])
        assert after[1][2:] == (b"j", b'{"a":2}', ((ORIGINAL_VALUE, b'{"a":1}'),))


@pytest.mark.parametrize("wire", WIRES)
def test_an_edited_order_has_the_wire_format_it_had(wire: str, tmp_path: Path) -> None:
    """A price edited in the file is written so, with the framing and the schema id of before; the rest is untouched."""
    kit, codec = Kit(), Codec(wire, schema_id=77)
    kit.send([Record(codec.encode(order), b"k") for order in ORDERS[:3]])
    export_letters(kit.connection, kit.topic, path := tmp_path / "l.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["value"]["avro"]["price"] = 2.5
    path.write_text("".join(json.dumps(line, indent=None) + "\n" for line in lines))
    to = fresh(kit)
    assert bring_back(kit.connection, path, to).found.edited == 1
    found = letters_of(kit.connection, to)
    assert found[1][3] == codec.encode({**ORDERS[1], "price": 2.5})
    assert found[1][4] == ((ORIGINAL_VALUE, codec.encode(ORDERS[1])),)
    assert [found[0][3], found[2][3]] == [codec.encode(ORDERS[0]), codec.encode(ORDERS[2])]


def test_an_edit_of_an_edit_keeps_the_first_value() -> None:
    """A letter that was mended before keeps the value that it had first, and has the header once."""
    kit = Kit()
    kit.send([Record(b"second", b"k", [(ORIGINAL_VALUE, b"first")])])
    frame = letters_frame(kit.connection, kit.topic)
    frame.at[0, "value"] = b"third"
    write_letters(kit.connection, frame, to := fresh(kit))
    assert letters_of(kit.connection, to)[0][3:] == (b"third", ((ORIGINAL_VALUE, b"first"),))


PAYMENT = {
    "type": "record", "name": "Payment", "fields": [
        {"name": "id", "type": "long"}, {"name": "mail", "type": ["null", "string"]}, {"name": "seal", "type": "bytes"},
        {"name": "when", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
            {"name": "what", "type": "string"}, {"name": "cents", "type": "int"}]}}}],
}  # fmt: skip


def test_avro_of_any_schema_is_read_and_edited(tmp_path: Path) -> None:
    """A record of another schema than an order's is an object in the file, and an edit of it is encoded again."""
    (schema := tmp_path / "payment.avsc").write_text(json.dumps(PAYMENT))
    values = Values(schema)
    payment = {
        "id": 2**60,
        "mail": "a@b",
        "seal": b"\x00\xff",
        "when": 1764000000000,
        "lines": [{"what": "x", "cents": 5}],
    }
    framing, body = b"\0\0\0\0\7", _encoded(payment)
    (shown, other) = values.show([framing + body, b"\xff\xfe"])
    assert shown["avro"] == {**payment, "seal": {"base64": "AP8="}}
    assert other == {"base64": "//4="}
    assert values.read(shown, framing + body) == framing + body
    shown["avro"]["lines"][0]["cents"] = 6
    changed = {**payment, "lines": [{"what": "x", "cents": 6}]}
    assert values.read(shown, framing + body) == framing + _encoded(changed)
    for wrong in ({**shown["avro"], "more": 1}, {**shown["avro"], "id": "1"}, {"id": 1}, 5):
        with pytest.raises(ValueError, match="cannot be written as Payment"):
            values.read({"avro": wrong}, framing + body)


def _encoded(record: Any) -> bytes:
    from io import BytesIO

    out = BytesIO()
    plain = json.loads(json.dumps(PAYMENT).replace('{"type": "long", "logicalType": "timestamp-millis"}', '"long"'))
    fastavro.schemaless_writer(out, fastavro.parse_schema(plain), record)
    return out.getvalue()


def test_a_poison_letter_is_mended_into_an_order() -> None:
    """Bytes that nobody could read may become an order: framed as they were, or in Avro's single-object encoding."""
    values, order = Values(), {"orderId": "1", "product": "Lamp", "price": 2.0}
    assert values.read({"avro": order}, b"\xff") == Codec().encode(order)  # type: ignore[arg-type]
    assert values.read({"avro": order}, b"\0\0\0\0\5\xff") == Codec("confluent", schema_id=5).encode(order)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cannot be written as orderkit\.Order"):
        values.read({"avro": {**order, "price": -1.0}}, b"\xff")


FORMS: list[tuple[bytes | None, Any]] = [
    (None, None), (b"", ""), (b"plain", "plain"), (b"\xff", {"base64": "/w=="}), (b'{"a":1}', {"json": {"a": 1}}),
    (b'{"a": 1, "b": [null]}', {"json": {"a": 1, "b": [None]}}), (b'{"a":1.10}', '{"a":1.10}'),
    (b'{"a":1,"a":2}', '{"a":1,"a":2}'), (b"[NaN]", "[NaN]"), (b'{"a":1', '{"a":1'), (b"5", "5"),
]  # fmt: skip


@pytest.mark.parametrize("fast", [True, False], ids=["orjson", "json"])
@pytest.mark.parametrize(("value", "shown"), FORMS, ids=repr)
def test_a_value_has_the_first_form_that_gives_its_bytes(
    value: bytes | None, shown: Any, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON is an object only where that loses nothing; the library that reads it makes no difference."""
    if not fast:
        _without_orjson(monkeypatch)
    values = Values()
    assert values.show([value]) == [shown]
    assert values.read(shown, value) == value


def _without_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    from orderkit.letter_files import lines, texts, values

    for module in (lines, texts, values):
        for name, slow in (("loads", texts._slow_loads), ("compact", texts._slow_dumps)):
            monkeypatch.setattr(module, name, slow, raising=False)
    for module in (texts, values):
        monkeypatch.setattr(module, "STYLES", (texts._slow_dumps, texts.spaced))


def test_without_orjson_the_file_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra brings speed alone: what one installation writes, another reads as the same letters."""
    kit = Kit(4)
    kit.send(examples(100))
    export_letters(kit.connection, kit.topic, tmp_path / "fast.jsonl")
    _without_orjson(monkeypatch)
    export_letters(kit.connection, kit.topic, tmp_path / "slow.jsonl")
    for name in ("fast", "slow"):
        bring_back(kit.connection, tmp_path / f"{name}.jsonl", to := fresh(kit, name))
        assert letters_of(kit.connection, to) == letters_of(kit.connection, kit.topic)


def _many(kit: Kit, many: int, twins: int = 5) -> None:
    """Write letters of which some are the same as others."""
    kit.send([Record(b"value %d" % (i % (many // twins)), b"k", [("n", b"x" * 40)], i % 4) for i in range(many)])


IN_SMALL_PORTIONS = """
import sys
from orderkit.cli import main
from orderkit.letter_files import columns, lines, tables
lines.PORTION, tables.PORTION = 20_000, 100
main(sys.argv[1:])
"""


def _start(kit: Kit, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", IN_SMALL_PORTIONS, "dlq", *words, "--bootstrap-server", kit.connection.bootstrap]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _high(connection: Connection, topic: str) -> int:
    return sum(high for _, high in connection.watermarks(topic).values())


@pytest.mark.parametrize("kind", KINDS_OF_FILES)
def test_an_import_that_is_killed_loses_nothing_and_doubles_nothing(kind: str, tmp_path: Path) -> None:
    """Killed at random points, twice, and run again: each letter is there as often as in the file, twins included."""
    kit, chance = Kit(4), random.Random(7)
    _many(kit, 6_000)
    export_letters(kit.connection, kit.topic, path := tmp_path / f"l.{kind}")
    words = ("import", str(path), "--to", fresh(kit), "--yes")
    for _ in range(2):
        least = _high(kit.connection, words[3]) + chance.randrange(1, 1_500)
        process = _start(kit, *words)
        wait_for(lambda: _high(kit.connection, words[3]) >= least or process.poll() is not None)  # noqa: B023
        process.kill()
        process.communicate()
    process = _start(kit, *words)
    told, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, ""), told
    assert letters_of(kit.connection, words[3]) == letters_of(kit.connection, kit.topic)


@pytest.mark.parametrize("die", range(1, 12))
def test_an_import_that_dies_at_any_note_goes_on(die: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dying before each of its notes in turn, again and again, it has every letter at the end, and none twice."""
    monkeypatch.setattr("orderkit.letter_files.lines.PORTION", 8_000)
    kit = Kit(4)
    _many(kit, 600)
    export_letters(kit.connection, kit.topic, path := tmp_path / "l.jsonl")
    to, save, dead = fresh(kit), bookmarks.Bookmark.save, [0]

    def dies(self: bookmarks.Bookmark, done: int, marks: Any) -> None:
        dead[0] += 1
        if dead[0] % die == 0 and dead[0] < 40:
            raise KeyboardInterrupt
        save(self, done, marks)

    monkeypatch.setattr(bookmarks.Bookmark, "save", dies)
    for _ in range(50):
        try:
            bring_back(kit.connection, path, to)
        except KeyboardInterrupt:
            continue
        break
    found = letters_of(kit.connection, to)
    assert Counter(found) == Counter(letters_of(kit.connection, kit.topic))


def test_an_edited_frame_is_another_import_and_the_same_one_is_not() -> None:
    """The same contents are written to a target once, unless that is asked for; other contents are another import."""
    kit = Kit()
    kit.send([Record(b"a"), Record(b"b")])
    frame, to = letters_frame(kit.connection, kit.topic), fresh(kit)
    assert write_letters(kit.connection, frame, to).written == {to: 2}
    assert write_letters(kit.connection, frame, to).written == {}
    assert write_letters(kit.connection, frame, to, again=True).written == {to: 2}
    frame.at[0, "value"] = "c"
    assert write_letters(kit.connection, frame, to).written == {to: 2}


def test_headers_that_the_client_cannot_give_are_left_out_and_told(tmp_path: Path) -> None:
    """A letter whose headers cannot be read is not exported as another one: it is counted."""
    kit = Kit()
    send_odd(kit.connection, kit.topic, b"value", [(b"\xff\xfe", b"v")])
    kit.send([Record(b"good")])
    report = export_letters(kit.connection, kit.topic, tmp_path / "l.jsonl")
    assert (report.written, report.unreadable, report.looked) == (1, 1, 2)


def test_a_frame_without_a_column_or_with_a_wrong_cell_is_refused() -> None:
    """What is missing is named, and so is the row of what is no letter; nothing is written."""
    kit = Kit()
    kit.send([Record(b"a"), Record(b"b")])
    frame, to = letters_frame(kit.connection, kit.topic), fresh(kit)
    with pytest.raises(UsageError, match="no column key"):
        write_letters(kit.connection, frame.drop(columns="key"), to)
    for name, cell in (
        ("headers", 5),
        ("headers", [(1, b"")]),
        ("value", 5),
        ("partition", -1),
        ("headers", [("a", 5)]),
    ):
        bad = frame.copy().astype(object)
        bad.at[1, name] = cell  # type: ignore[assignment]
        with pytest.raises(OrderkitError, match="row 2"):
            write_letters(kit.connection, bad, to)
    assert _high(kit.connection, to) == 0


@pytest.mark.kafka
def test_letters_older_than_the_target_keeps_records_are_refused(apache: ApacheBroker, tmp_path: Path) -> None:
    """A broker would delete them soon and silently; a topic that keeps records for ever takes them."""
    kit = Kit(broker=apache)
    path = tmp_path / "l.jsonl"
    place = {"topic": "x", "partition": 0, "offset": 0, "timestamp": 1_000_000_000_000}
    path.write_text(json.dumps({**place, "key": None, "value": "v", "headers": {}}) + "\n")
    with pytest.raises(UsageError, match="keeps records for 7 days"):
        bring_back(apache.connection, path, kit.topic)
    apache.connection.create_topics({f"{kit.topic}.kept": 1}, {"retention.ms": "-1"})
    bring_back(apache.connection, path, f"{kit.topic}.kept")
    assert letters_of(apache.connection, f"{kit.topic}.kept") == [(0, 1_000_000_000_000, None, b"v", ())]


@pytest.mark.kafka
def test_a_letter_that_the_target_refuses_is_named_and_the_import_goes_on(apache: ApacheBroker, tmp_path: Path) -> None:
    """A letter of 16 MB at a topic that takes 1 MB: its line; once the cause is mended, none is lost or doubled."""
    kit, chance = Kit(broker=apache), random.Random(1)
    source, target = f"{kit.topic}.large", f"{kit.topic}.small"
    apache.connection.create_topics({source: 1, target: 1}, {"retention.ms": "-1", "max.message.bytes": "20000000"})
    producer = apache.connection.producer(message_max_bytes=20_000_000)
    for value in (b"first", chance.randbytes(16_000_000), b"last"):
        producer.produce(source, value, b"k", 0)
    assert producer.flush(30) == 0
    export_letters(apache.connection, source, path := tmp_path / "l.jsonl")
    admin = apache.connection.admin()
    change_config(admin, TOPIC, target, {"max.message.bytes": "1000000"})
    with pytest.raises(OrderkitError, match=r"line 2 could not be written: .*(size|large)"):
        bring_back(apache.connection, path, target)
    change_config(admin, TOPIC, target, {"max.message.bytes": "20000000"})
    wait_for(lambda: _goes_on(apache.connection, path, target), 60)
    assert sorted(letters_of(apache.connection, target)) == sorted(letters_of(apache.connection, source))


def _goes_on(connection: Connection, path: Path, target: str) -> bool:
    """Import again; the broker takes a moment to hear of its new limit."""
    try:
        bring_back(connection, path, target)
    except OrderkitError:
        time.sleep(0.2)
        return False
    return True
