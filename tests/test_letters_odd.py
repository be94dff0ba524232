"""Odd topics and odd letters: no dead letters at all, a topic deleted meanwhile, 16 MB, and headers of any bytes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from helpers import Kit, Record, take_orders
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_dialects import SHAPES, Stored
from test_payload import Cli

from orderkit.brokers import ApacheBroker
from orderkit.cli import main
from orderkit.cli.anatomy import print_letter, whole_letter
from orderkit.cli.letters import print_csv, print_rows, print_table
from orderkit.cli.numbers import print_numbers, print_numbers_as_csv
from orderkit.dead_letters import DeadLetterRecord, LetterFilter, Where, dead_letter_frame, read_batches
from orderkit.dead_letters.bulk import sight
from orderkit.dead_letters.filters import parse_header, parse_origin
from orderkit.dead_letters.labels import Trouble
from orderkit.dead_letters.payload import PayloadReader
from orderkit.dead_letters.stats import Stats, _count_one, _tell
from orderkit.dead_letters.strangers import LOOK
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection

HEAVY = 16 * 1024 * 1024 - 1024
MOST_MEMORY = 300  # MB


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Give the command line: status, output, errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["dlq", *arguments])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run


def test_a_topic_that_is_no_dead_letter_topic_is_said_to_be_none(cli: Cli) -> None:
    """Where no record has a known header, one line names the remedy; with --any all are listed and counted."""
    kit = Kit(2)
    kit.send_orders(take_orders(6))
    where = ["--bootstrap-server", kit.connection.bootstrap, "--dlq-topic", kit.topic]
    for command in (["list"], ["list", "--json"], ["list", "--format", "csv"], ["stats"], ["stats", "--since", "1h"]):
        status, out, err = cli(*command, *where)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "holds no dead letters: none of the 6 records" in err
        assert "--any" in err
    assert len(cli("list", "--any", *where)[1].splitlines()) == 7
    assert json.loads(cli("stats", "--any", "--json", *where)[1])["total"] == 6
    assert json.loads(cli("stats", "--any", "--since", "1h", "--json", *where)[1])["dialect"] == {"?": 6}


def test_a_large_topic_of_strangers_is_not_read_to_its_end() -> None:
    """After so many records without a known header it is said at once; one known record among the first is enough."""
    kit = Kit()
    stranger, letter = Record(b"{}", b"k", [("mine", b"1")]), Record(b"{}", b"k", list(SHAPES[0][1]))
    kit.send([stranger] * (LOOK - 1) + [letter] + [stranger] * 10)
    from orderkit.dead_letters import read_dead_letters
    from orderkit.dead_letters.stats import count_letters

    assert len(list(read_dead_letters(kit.connection, kit.topic, any_topic=False))) == LOOK + 10
    assert count_letters(kit.connection, kit.topic, any_topic=False).total == LOOK + 10
    other = Kit()
    other.send([stranger] * LOOK + [letter])
    with pytest.raises(OrderkitError, match=f"none of the {LOOK} records"):
        list(read_dead_letters(other.connection, other.topic, any_topic=False))


def test_an_empty_topic_is_no_stranger(cli: Cli) -> None:
    """A dead-letter topic without letters is good news, and one line."""
    kit = Kit()
    for command in ("list", "stats"):
        told = cli(command, "--bootstrap-server", kit.connection.bootstrap, "--dlq-topic", kit.topic)
        assert told == (0, f"No dead letters in {kit.topic}.\n", "")


BROKEN = [
    ("kafka_dlt-original-partition", b"\0\0\0\0\0\0\3", SHAPES[1][1]),
    ("orderkit.dlq.partition", b"\0\0\0\0\0\0\3", SHAPES[0][1]),
]


@pytest.mark.parametrize(("name", "value", "headers"), BROKEN, ids=[name for name, *_ in BROKEN])
def test_a_malformed_header_is_a_note_in_every_view(cli: Cli, name: str, value: bytes, headers: Any) -> None:
    """List, CSV, JSON, `show` and the frame say which header is not what it should be; nothing else is lost."""
    kit = Kit()
    kit.send([Record(b"{}", b"k", [(each, value if each == name else content) for each, content in headers])])
    where = ["--bootstrap-server", kit.connection.bootstrap, "--dlq-topic", kit.topic]
    told = f"header {name} is not "
    assert told in cli("list", *where)[1]
    assert told in next(csv.DictReader(io.StringIO(cli("list", "--format", "csv", *where)[1])))["notes"]
    assert told in json.loads(cli("list", "--json", *where)[1])["dead_letters"][0]["notes"][0]
    assert f"note           {told}" in cli("show", "0:0", *where)[1]
    assert cli("stats", *where)[0] == 0
    (letter,) = [DeadLetterRecord.of(message) for batch in read_batches(kit.connection, kit.topic) for message in batch]
    assert told in dead_letter_frame([letter])["notes"][0][0]
    assert letter.origin == ("orders", -1, 1234)


@pytest.mark.parametrize("text", ["", ":3", "orders:", "orders:x", "orders:-1"])
def test_an_origin_that_is_none_is_refused(text: str) -> None:
    """What is no topic, or no topic and partition, is wrong usage with the right way to write it."""
    with pytest.raises(UsageError, match="TOPIC:PARTITION"):
        parse_origin(text)
    with pytest.raises(UsageError, match="NAME=VALUE"):
        parse_header("=x")
    assert (parse_origin("orders"), parse_origin("orders:3")) == (("orders", None), ("orders", 3))
    assert (parse_header("a=b=c"), parse_header("a")) == (("a", "b=c"), ("a", "*"))


@pytest.mark.kafka
def test_a_topic_that_is_deleted_meanwhile_is_one_clear_line(apache: ApacheBroker) -> None:
    """A dead-letter topic that goes while it is read ends the reading with a line that says so."""
    kit = Kit(1, apache)
    kit.send([Record(b"x" * 50_000, b"k") for _ in range(200)])
    slow = {"fetch.message.max.bytes": "60000", "queued.min.messages": "1", "queued.max.messages.kbytes": "100"}
    batches = read_batches(Connection(apache.bootstrap, slow), kit.topic, most=1)
    assert len(next(batches)) == 1
    kit.connection.delete_topics([kit.topic])
    with pytest.raises(OrderkitError, match="was deleted while it was read"):
        list(batches)


MEASURED = """
import pathlib, re, sys
from orderkit.cli import main
try:
    main(sys.argv[1:])
finally:
    print(re.findall(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[0], file=sys.stderr)
"""


@pytest.mark.kafka
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("times", [1, pytest.param(4, marks=pytest.mark.campaign)])
def test_letters_of_16_mb_are_read_within_bounds(apache: ApacheBroker, times: int) -> None:
    """Letters of 16 MB, JSON, text and bytes, are listed, counted and shown within 300 MB."""
    kit = Kit(1, apache)
    kit.dead_letters = f"{kit.topic}.heavy"
    kit.connection.create_topics({kit.dead_letters: 1}, {"max.message.bytes": str(16 * 1024 * 1024 + 4096)})
    kit.topic, headers = kit.dead_letters, list(SHAPES[0][1])
    json_value = b'{"a": "' + b"x" * (HEAVY - 9) + b'"}'
    for _ in range(times):
        kit.send([Record(value, b"k", headers) for value in (json_value, b"t" * HEAVY, b"\xff" * HEAVY)])
    where = ["--bootstrap-server", apache.bootstrap, "--dlq-topic", kit.dead_letters]
    for command in (["list"], ["show", "0:0"], ["stats"], ["stats", "--where", "a == 'y'"])[: 2 * times]:
        line = [sys.executable, "-c", MEASURED, "dlq", *command, *where]
        done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        memory = int(done.stderr.splitlines()[-1]) * 1024 / 1e6
        print(command, f"{memory:.0f} MB")
        assert memory < MOST_MEMORY, command
        assert len(done.stdout) < 100_000


NAMES = [*sorted({name for _, headers, *_ in SHAPES for name, _ in headers}), "orderkit.dlq.replay-count", "é", ""]
BYTES = (
    st.none() | st.binary(max_size=24) | st.sampled_from([b"", b"3", b"-1", b"9" * 30, b"\0\0\0\3", b"a\nb", b"0x7f"])
)
HEADERS = st.lists(st.tuples(st.sampled_from(NAMES) | st.text(max_size=8), BYTES), max_size=12)
SHAPED = st.sampled_from([headers for _, headers, *_ in SHAPES])
VALUES = (
    st.none() | st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode(errors="replace"))
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5),
                   lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                   max_leaves=6).map(lambda data: json.dumps(data).encode())
)  # fmt: skip
READER, WHERE = PayloadReader(), Where("a > 1 or b.c == 'x' and 'y' in d")
FILTERS = [
    LetterFilter(where=WHERE), LetterFilter(products=["Lamp"]), LetterFilter(attempts=(1, 3)), LetterFilter(keys=["k"]),
    LetterFilter(origins=[("orders", None)]), LetterFilter(headers=[("é", "*"), ("", "0x00")]), LetterFilter(since=0.0),
]  # fmt: skip


LETTER = st.tuples(HEADERS, SHAPED | st.just([]), VALUES)


def check_all(drawn: list[tuple[Any, Any, bytes | None]]) -> None:
    """Read, list, show, filter, frame and count letters, whatever is in them."""
    stored: list[Any] = [Stored([*shaped, *headers], value) for headers, shaped, value in drawn]
    letters = list(map(DeadLetterRecord.of, stored))
    payloads = READER.read_batch([letter.value for letter in letters])
    pairs = list(zip(letters, payloads, strict=True))
    one, many = Stats("dlq"), Stats("dlq")
    kinds: dict[tuple[Any, ...], Trouble] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for letter, payload in pairs:
            print_letter(letter, READER)
            assert json.loads(json.dumps(whole_letter(letter, payload), allow_nan=False))
            assert all(only.matches(letter, payload) in (True, False) for only in FILTERS)
            _count_one(letter, one)
        print_rows("dlq", pairs)
        assert print_table(pairs) == len(pairs)
        print_csv(pairs)
        print_numbers(one)
        print_numbers_as_csv(one)
    assert list(dead_letter_frame(letters, READER)["payload"]) == [payload.kind for payload in payloads]
    sight(stored, kinds)
    _tell(kinds, many)
    many.span([letter.timestamp for letter in letters])
    many.size = one.size
    assert one.as_dict() == many.as_dict()


@settings(max_examples=25, deadline=None)
@given(st.lists(LETTER, min_size=1, max_size=4))
def test_any_letter_goes_through_every_view(drawn: list[tuple[Any, Any, bytes | None]]) -> None:
    """No headers and no bytes break a view, and both ways of counting say the same."""
    check_all(drawn)


@pytest.mark.campaign
@pytest.mark.timeout(590)
@settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(LETTER, min_size=10, max_size=10))
def test_10_000_letters_go_through_every_view(drawn: list[tuple[Any, Any, bytes | None]]) -> None:
    """The same with 10,000 letters."""
    check_all(drawn)


def test_40_000_letters_are_five_lines() -> None:
    """Errors that differ in numbers, ids, addresses and quotations are one, with count, share, times and an example."""
    stats, expected = Stats("dlq"), Counter[str]()
    texts = [
        ("shop.TimeoutError", "no answer from 10.0.0.{s}:9092 within {n}.5 s", "no answer from <address> within # s"),
        ("Permanent", "order {n} is refused", "order # is refused"),
        ("", "customer 3f2504e0-4f89-11d3-9a0c-{n:012x} is unknown", "customer <id> is unknown"),
        ("ValueError", "price '{n}' of \"Lamp {n}\" at {n:#x}", "price '…' of '…' at <address>"),
        (
            "E",
            "since 2026-11-29T08:00:{s:02d}Z: a.b{n}@shop.de, https://a.de/{n}",
            "since <time>: <address>, <address>",
        ),
    ]
    for number in range(40_000):
        exception, text, label = texts[number % 7 % 5]
        name = exception.rpartition(".")[2]
        expected[f"{name}: {label}" if name else label] += 1
        _count_one(
            DeadLetterRecord("dlq", number % 4, number, 1000 + number, None, b"", [], {
                "exception": exception, "message": text.format(n=number, s=number % 60), "partition": str(number % 2),
            }),
            stats,
        )  # fmt: skip
    rows = stats.rows()
    assert {row["label"]: row["count"] for row in rows} == expected
    first = rows[0]
    assert (first["first"], first["example"], first["partitions"]) == ("1970-01-01T00:00:01.000+00:00", "0:0", 1.0)
    assert sum(float(str(row["share"])) for row in rows) == pytest.approx(1.0, abs=1e-3)
    assert stats.as_dict()["errors"] == rows


def test_troubles_keep_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many different errors the rare ones are counted together, and none is lost."""
    monkeypatch.setattr("orderkit.dead_letters.stats.MOST_VALUES", 5)
    stats = Stats("dlq")
    for i in range(100):
        stats.note(chr(1000 + i), Trouble(1, i, i, {str(i)}, (0, i)))
        stats.note("often", Trouble(1, i, i, {"0"}, (0, i)))
    assert len(stats.troubles) <= 11
    assert stats.troubles["often"].count == 100
    assert sum(trouble.count for trouble in stats.troubles.values()) == 200
