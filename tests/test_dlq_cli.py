"""`orderkit dlq` as a user meets it: every line, every exit status, with and without a terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import AT_ONCE, PATIENCE, Kit, Late, Record, average_of, send_odd, shorten_sessions, take_orders

from orderkit.cli import main
from orderkit.dead_letters import read_dead_letters
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.retry import Permanent

ORDERS = take_orders(30)
POISON = b"\xc3\x01broken bytes, longer than a line of the dump"


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> Kit:
    """Give topics with eleven dead letters: every third of 30 orders refused, and one that cannot be read."""
    shorten_sessions(monkeypatch)
    kit = Kit(4)
    kit.send_orders(ORDERS)
    kit.send([Record(POISON, b"broken", [("trace", b"abc")], 3)])

    def refuse_thirds(order: Order, _attempt: int) -> None:
        if int(order["orderId"]) % 3 == 0:
            raise Permanent(f"order {order['orderId']} is refused")

    kit.consumer(refuse_thirds, policy=AT_ONCE).run(orders=31)
    return kit


def orderkit(kit: Kit, *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a `dlq` command in this process; give exit status, output and errors."""
    there = ["--bootstrap-server", kit.connection.bootstrap, "--dlq-topic", kit.dead_letters]
    given = [*arguments] if "--dlq-topic" in arguments else [*arguments, *there[2:]]
    with pytest.raises(SystemExit) as ended:
        main(["dlq", *given, *there[:2]])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


Capture = pytest.CaptureFixture[str]


def test_list_shows_a_line_each(kit: Kit, capsys: Capture) -> None:
    """The table has a line for each letter with place, origin, reason, order and error; --limit cuts it."""
    status, out, _ = orderkit(kit, "list", capsys=capsys)
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 12)
    assert lines[0].split()[:5] == ["PLACE", "WRITTEN", "ORIGIN", "REASON", "TRIES"]
    assert sum("permanent" in line and "is refused" in line for line in lines) == 10
    assert len(orderkit(kit, "list", "--limit", "3", capsys=capsys)[1].splitlines()) == 4


def test_list_as_json_and_csv_say_the_same(kit: Kit, capsys: Capture) -> None:
    """JSON is one object, CSV has a header; both have all letters, with what can be read of their orders."""
    letters = json.loads(orderkit(kit, "list", "--json", capsys=capsys)[1])["dead_letters"]
    rows = list(csv.DictReader(io.StringIO(orderkit(kit, "list", "--format", "csv", capsys=capsys)[1])))
    assert len(letters) == len(rows) == 11
    for letter, row in zip(letters, rows, strict=True):
        assert row["place"] == f"{letter['partition']}:{letter['offset']}"
        assert row["reason"] == letter["dlq.reason"]
        assert row["orderId"] == (letter["order"]["orderId"] if letter["order"] else "")
    assert json.loads(orderkit(kit, "list", "--limit", "0", "--json", capsys=capsys)[1])["dead_letters"] == []


FILTERS: list[tuple[list[str], int]] = [
    (["--reason", "poison"], 1),
    (["--reason", "poison", "--reason", "permanent"], 11),
    (["--exception", "Permanent"], 10),
    (["--exception", "*.Permanent"], 10),
    (["--product", "Lamp"], sum(o["product"] == "Lamp" for o in ORDERS[2::3])),
    (["--key", "3", "--key", "6"], 2),
    (["--since", "1h"], 11),
    (["--until", "1h"], 0),
    (["--from-partition", "3"], 1 + sum(i % 4 == 3 for i in range(2, 30, 3))),
    (["--from-topic", "elsewhere"], 0),
    (["--attempts", "1"], 11),
    (["--attempts", "2-"], 0),
    (["--dialect", "orderkit"], 11),
    (["--dialect", "spring"], 0),
    (["--where", "price > 100"], sum(o["price"] > 100 for o in ORDERS[2::3])),
]


@pytest.mark.parametrize(("only", "many"), FILTERS, ids=[" ".join(only) for only, _ in FILTERS])
def test_filters_choose(kit: Kit, only: list[str], many: int, capsys: Capture) -> None:
    """`list` and `stats` mean the same letters by the same filter; a filter without a match says so."""
    status, out, _ = orderkit(kit, "list", *only, capsys=capsys)
    assert status == 0
    assert (
        (len(out.splitlines()) == many + 1) if many else out.startswith(f"No dead letters in {kit.dead_letters} with")
    )
    assert json.loads(orderkit(kit, "stats", *only, "--json", capsys=capsys)[1])["total"] == many


def test_show_points_at_the_byte(kit: Kit, capsys: Capture) -> None:
    """Of what cannot be decoded `show` says why, and marks the byte; of the rest it shows the order."""
    letters = json.loads(orderkit(kit, "list", "--json", capsys=capsys)[1])["dead_letters"]
    places = {letter["dlq.reason"]: f"{letter['partition']}:{letter['offset']}" for letter in letters}
    status, out, _ = orderkit(kit, "show", places["poison"], capsys=capsys)
    assert status == 0
    assert "undecodable    written with another schema" in out
    assert "header trace = b'abc'" in out
    assert "000010" in out
    _, out, _ = orderkit(kit, "show", places["permanent"], capsys=capsys)
    assert '"orderId": "' in out
    shown = json.loads(orderkit(kit, "show", places["poison"], "--json", capsys=capsys)[1])
    assert (shown["value_hex"], shown["order"]) == (POISON.hex(), None)


def test_show_marks_the_byte_below_it(capsys: Capture) -> None:
    """The pointer stands under the byte at which decoding ended, in the line of the dump that has it."""
    kit = Kit(1)
    cut = Codec().encode(ORDERS[0])[:-1]
    kit.send([Record(cut, b"k")])
    kit.consumer().run(orders=1)
    lines = orderkit(kit, "show", "0:0", capsys=capsys)[1].splitlines()
    (mark,) = [line for line in lines if "^^" in line]
    assert f"byte {len(cut)}" in mark
    assert mark.index("^^") == 10 + 3 * (len(cut) % 16)


def test_stats_count_and_report_double_replays(kit: Kit, capsys: Capture) -> None:
    """`stats` counts; with --replayed it looks for orders replayed twice, and ends with 1 when there are any."""
    status, out, _ = orderkit(kit, "stats", capsys=capsys)
    assert (status, out.splitlines()[0].split(",")[0]) == (0, f"11 dead letters in {kit.dead_letters}")
    assert "reason           10  permanent" in out
    rows = list(csv.DictReader(io.StringIO(orderkit(kit, "stats", "--format", "csv", capsys=capsys)[1])))
    empty = dict.fromkeys(("first", "last", "partitions", "example"), "")
    assert {"name": "reason", "value": "poison", "count": "1", "share": "0.0909", **empty} in rows
    for group in "one", "two":
        orderkit(kit, "replay", "--yes", "--group", f"{kit.group}.{group}", "--no-check", capsys=capsys)
    status, out, _ = orderkit(kit, "stats", "--replayed", "--topic", kit.topic, capsys=capsys)
    assert status == 1
    assert "11 WERE REPLAYED TWICE" in out


def test_replay_without_a_terminal_is_a_dry_run_until_yes(kit: Kit, capsys: Capture) -> None:
    """In a pipe nothing moves without --yes; with it all move, and the average is whole."""
    status, out, _ = orderkit(kit, "replay", "--reason", "permanent", capsys=capsys)
    assert status == 0
    assert "10  would move to" in out
    assert "Add --yes to move" in out
    status, out, err = orderkit(kit, "replay", "--reason", "permanent", "--yes", capsys=capsys)
    assert (status, "10  moved to" in out, "looking through" in out + err) == (0, True, False)
    kit.consumer().run(orders=10)
    assert kit.state().average == average_of(ORDERS)
    status, out, _ = orderkit(kit, "replay", "--reason", "permanent", "--yes", capsys=capsys)
    assert (status, out.count("\n")) == (0, 1)
    assert "Nothing to replay" in out
    told = json.loads(orderkit(kit, "replay", "--yes", "--json", capsys=capsys)[1])
    assert (told["counts"], told["dry_run"]) == ({"doubled": 10, "moved": 1}, False)


def test_a_transform_that_raises_is_told_and_ends_with_1(
    kit: Kit, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records that the hook could not mend are counted, with the first errors; the others have moved."""
    (tmp_path / "mend_by_test.py").write_text(
        "def mend(order, letter):\n    if order is None: raise LookupError('what is this?')\n    return order\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    status, out, err = orderkit(kit, "replay", "--yes", "--transform", "mend_by_test:mend", capsys=capsys)
    assert status == 1
    assert "10  moved to" in out
    assert "1  left: THE TRANSFORM FAILED" in out
    assert "LookupError: what is this?" in err


WRONG: list[tuple[list[str], int, str]] = [
    (["replay", "--to", "{dlq}", "--yes"], 2, "Source and target are both"),
    (["replay", "--parking", "{dlq}", "--yes"], 2, "Source and target are both"),
    (["replay", "--to", "gone", "--yes"], 1, "'gone' does not exist"),
    (["replay", "--dlq-topic", "gone", "--yes"], 1, "'gone' does not exist"),
    (["replay", "--dlq-topic", "{topic}", "--yes"], 1, "holds no dead letters"),
    (["replay", "--transform", "nothing:here", "--yes"], 2, "ModuleNotFoundError"),
    (["replay", "--rate", "0", "--yes"], 2, "'--rate': 0"),
    (["replay", "--limit", "-1", "--yes"], 2, "'--limit': -1"),
    (["replay", "--max-replays", "0", "--yes"], 2, "'--max-replays': 0"),
    (["replay", "--exactly-once", "--yes"], 2, "real broker"),
    (["replay", "--yes", "--dry-run"], 2, "exclude each other"),
    (["replay", "--where", "weight + 1 > 1", "--yes"], 2, "is not understood here"),
    (["list", "--where", "price >"], 2, "--where"),
    (["list", "--since", "yesterday"], 2, "--since 'yesterday'"),
    (["list", "--attempts", "many"], 2, "--attempts 'many'"),
    (["list", "--reason", "bad"], 2, "bad"),
    (["list", "--dlq-topic", "gone"], 1, "'gone' does not exist"),
    (["stats", "--dlq-topic", "gone"], 1, "'gone' does not exist"),
    (["show", "0:99"], 1, "There is no dead letter 0:99"),
    (["show", "99:0"], 1, "There is no dead letter 99:0"),
]


@pytest.mark.parametrize(("arguments", "status", "told"), WRONG, ids=[" ".join(a) for a, *_ in WRONG])
def test_bad_input_is_one_clear_line(kit: Kit, arguments: list[str], status: int, told: str, capsys: Capture) -> None:
    """Whatever is wrong is one line on standard error with the right status, and nothing moves."""
    given = [part.format(dlq=kit.dead_letters, topic=kit.topic) for part in arguments]
    ended, out, err = orderkit(kit, *given, capsys=capsys)
    assert (ended, err.count("\n"), out) == (status, 1, "")
    assert told in err
    assert not [record for record in read_dead_letters(kit.connection, kit.topic) if record.replays]


def test_a_filter_without_a_match_moves_nothing_and_says_so(kit: Kit, capsys: Capture) -> None:
    """Nothing that is meant is no error: one line."""
    status, out, _ = orderkit(kit, "replay", "--product", "Nothing", "--yes", capsys=capsys)
    assert (status, out) == (0, f"No dead letter in {kit.dead_letters} matches the filter; there is nothing to move.\n")


@pytest.mark.parametrize(("answer", "moved"), [("y", 11), ("n", 0)])
def test_on_a_terminal_replay_shows_and_asks(kit: Kit, answer: str, moved: int) -> None:
    """On a terminal the dry run comes first, with a progress bar; only a yes moves the records."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "orderkit", "dlq", "replay", "--dlq-topic", kit.dead_letters]
    command += ["--bootstrap-server", kit.connection.bootstrap]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True) as process:
        os.close(theirs)
        seen = _read_until(ours, f"Move {11} records?")
        assert "11  would move to" in seen
        assert f"looking through {kit.dead_letters}" in seen
        os.write(ours, f"{answer}\n".encode())
        rest = _read_until(ours, None)
        assert process.wait(20) == 0
    os.close(ours)
    assert ("11  moved to" in rest) is bool(moved)
    assert sum(record.replays for record in read_dead_letters(kit.connection, kit.topic)) == moved


def _read_until(terminal: int, wanted: str | None, seconds: float = 40.0) -> str:
    """Read a terminal up to some words, or to its end."""
    seen, deadline = "", time.monotonic() + seconds * PATIENCE
    while wanted is None or wanted not in seen:
        if time.monotonic() > deadline:
            raise Late(seen)
        if not select.select([terminal], [], [], 0.2)[0]:
            continue
        try:
            got: Any = os.read(terminal, 4096)
        except OSError:  # the other side has gone
            got = b""
        if not got:
            assert wanted is None, seen
            break
        seen += got.decode()
    return seen


def test_a_header_name_that_is_no_text_stops_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A record whose headers the client cannot give is listed, counted and shown, and stays in a replay."""
    kit = Kit()
    send_odd(kit.connection, kit.dead_letters, b"value", [(b"\xff\xfe", b"v")])
    for command in (["list", "--json"], ["list"], ["stats"], ["show", "0:0"]):
        status, out, _ = orderkit(kit, *command, capsys=capsys)
        assert status == 0, command
        assert out
    assert "unreadable" in orderkit(kit, "show", "0:0", capsys=capsys)[1]
    status, _, told = orderkit(kit, "replay", "--yes", capsys=capsys)
    assert (status, len(kit.letters()), "holds no dead letters" in told) == (1, 1, True)
