"""`orderkit dlq export` and `import` as a user meets them: every line, every exit status, nothing half done."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import AT_ONCE, Kit, Record, take_orders, wait_for
from test_dlq_cli import Capture, orderkit
from test_letter_files import IN_SMALL_PORTIONS, fresh, letters_of

from orderkit.dead_letters import read_dead_letters
from orderkit.errors import UsageError
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.retry import Permanent

ORDERS = take_orders(9)
GUIDE = (Path(__file__).parent.parent / "docs" / "dead-letters.md").read_text("utf-8")


@pytest.fixture
def kit() -> Kit:
    """Give topics with four dead letters: three orders refused, and one that cannot be read."""
    kit = Kit(4)
    kit.send_orders(ORDERS)
    kit.send([Record(b"\xc3\x01broken", b"broken", [("trace", b"abc"), ("trace", None)], 3)])

    def refuse_thirds(order: Order, _attempt: int) -> None:
        if int(order["orderId"]) % 3 == 0:
            raise Permanent(f"order {order['orderId']} is refused")

    kit.consumer(refuse_thirds, policy=AT_ONCE).run(orders=10)
    return kit


def run(kit: Kit, *words: str, capsys: Capture) -> tuple[int, str, str]:
    """Run a command; `import` has no --dlq-topic."""
    if words[0] == "export":
        return orderkit(kit, *words, capsys=capsys)
    from orderkit.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["dlq", *words, "--bootstrap-server", kit.connection.bootstrap])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


@pytest.mark.parametrize("name", ["l.jsonl", "l.parquet"])
def test_a_file_goes_out_and_comes_back(kit: Kit, name: str, tmp_path: Path, capsys: Capture) -> None:
    """Export, a look without --yes, import, and the same import again: each says what it did, and letters are whole."""
    file, to = str(tmp_path / name), fresh(kit)
    status, out, err = run(kit, "export", file, capsys=capsys)
    assert (status, err, out.startswith(f"4 dead letters of {kit.dead_letters} in {file}")) == (0, "", True)
    for words in ((), ("--dry-run",)):
        status, out, _ = run(kit, "import", file, "--to", to, *words, capsys=capsys)
        assert (status, "4  would be written to" in out, "Add --yes" in out) == (0, True, True)
    assert letters_of(kit.connection, to) == []
    status, out, _ = run(kit, "import", file, "--to", to, "--yes", capsys=capsys)
    assert (status, f"4  written to {to}" in out) == (0, True)
    assert letters_of(kit.connection, to) == letters_of(kit.connection, kit.dead_letters)
    status, out, _ = run(kit, "import", file, "--to", to, "--yes", capsys=capsys)
    assert (status, "is written already" in out, "--again" in out) == (0, True, True)
    told = json.loads(run(kit, "import", file, "--to", to, "--yes", "--again", "--json", capsys=capsys)[1])
    assert (told["written"], told["dry_run"]) == ({to: 4}, False)
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_export_takes_the_filters_of_list(kit: Kit, tmp_path: Path, capsys: Capture) -> None:
    """What `list` would show is what is in the file; - is standard output; --limit cuts it."""
    for words, many in (("--reason", "poison"), 1), (("--where", "price > 0"), 3), (("--limit", "2"), 2):
        file = tmp_path / f"{words[0]}.jsonl"
        assert run(kit, "export", str(file), *words, capsys=capsys)[0] == 0
        assert len(file.read_text().splitlines()) == many
    command = [sys.executable, "-m", "orderkit", "dlq", "export", "-", "--dlq-topic", kit.dead_letters]
    command += ["--bootstrap-server", kit.connection.bootstrap]
    told = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert len([json.loads(line) for line in told.stdout.splitlines()]) == 4
    assert b"4 dead letters" in told.stderr


def test_a_file_that_is_there_stays_without_overwrite(kit: Kit, tmp_path: Path, capsys: Capture) -> None:
    """An existing file is left alone, and so is it when an export fails; with --overwrite its place is taken."""
    (file := tmp_path / "l.jsonl").write_text("mine")
    status, _, err = run(kit, "export", str(file), capsys=capsys)
    assert (status, err.count("\n"), "--overwrite" in err, file.read_text()) == (2, 1, True, "mine")
    run(kit, "export", str(file), "--overwrite", "--dlq-topic", "gone", capsys=capsys)
    assert (file.read_text(), list(tmp_path.iterdir())) == ("mine", [file])
    assert run(kit, "export", str(file), "--overwrite", capsys=capsys)[0] == 0
    assert len(file.read_text().splitlines()) == 4


def broken(lines: list[bytes], name: str) -> bytes:
    """Break the third line of a file."""
    row = json.loads(lines[2])
    changed: dict[str, Any] = {
        "no JSON": None,
        "no key": {name: cell for name, cell in row.items() if name != "key"},
        "text for a number": {**row, "partition": "1"},
        "a number for text": {**row, "key": 17},
        "bad base64": {**row, "value": {"base64": "%%%"}},
        "no such order": {**row, "value": {"avro": {"orderId": 1}}},
        "headers": {**row, "headers": 5},
        "a list": [1],
    }
    third = lines[2][:20] + b"\n" if changed[name] is None else json.dumps(changed[name]).encode() + b"\n"
    return b"".join([*lines[:2], third, *lines[3:]])


NAMES = [
    "no JSON",
    "no key",
    "text for a number",
    "a number for text",
    "bad base64",
    "no such order",
    "headers",
    "a list",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_line_is_named_and_keeps_the_rest_back(kit: Kit, name: str, tmp_path: Path, capsys: Capture) -> None:
    """One line says which line and why, with status 1, and nothing is written; with --skip-bad the others are."""
    file, to = tmp_path / "l.jsonl", fresh(kit)
    run(kit, "export", str(file), capsys=capsys)
    file.write_bytes(broken(file.read_bytes().splitlines(keepends=True), name))
    for words in (("--yes",), ()):
        status, out, err = run(kit, "import", str(file), "--to", to, *words, capsys=capsys)
        assert (status, out, err.count("\n"), "line 3: " in err, "--skip-bad" in err) == (1, "", 1, True, True)
    assert letters_of(kit.connection, to) == []
    status, out, err = run(kit, "import", str(file), "--to", to, "--yes", "--skip-bad", capsys=capsys)
    assert (status, f"3  written to {to}" in out, "1  lines LEFT OUT" in err) == (1, True, True)
    assert len(letters_of(kit.connection, to)) == 3


@pytest.mark.parametrize("name", ["l.jsonl", "l.parquet"])
def test_a_file_that_was_cut_off_is_not_imported(kit: Kit, name: str, tmp_path: Path, capsys: Capture) -> None:
    """The end of a file is missing: that is said, and nothing of it is written."""
    file, to = tmp_path / name, fresh(kit)
    run(kit, "export", str(file), capsys=capsys)
    file.write_bytes(file.read_bytes()[:-30])
    status, out, err = run(kit, "import", str(file), "--to", to, "--yes", capsys=capsys)
    assert (status, out, err.count("\n"), "cut off" in err) == (1, "", 1, True)
    assert letters_of(kit.connection, to) == []


def _line(**more: Any) -> bytes:
    row = {"topic": "x", "partition": 0, "offset": 0, "timestamp": 5, "key": None, "value": "v", "headers": {}}
    return json.dumps({**row, **more}).encode() + b"\n"


WRONG: list[tuple[str, bytes | None, list[str], int, str]] = [
    ("gone.jsonl", None, ["--to", "{to}"], 2, "is not there"),
    ("l.jsonl", b"orderId,price\n1,2\n", ["--to", "{to}"], 2, "is no export of dead letters: line 1"),
    ("l.jsonl", b"\x89PNG\r\n\x1a\n\0\0", ["--to", "{to}"], 2, "is no export of dead letters"),
    ("l.jsonl", b'{"a": 1}\n', ["--to", "{to}"], 2, "has no topic and no partition"),
    ("l.parquet", b"PAR1 is no Parquet", ["--to", "{to}"], 1, "cannot be read as Parquet"),
    ("l.parquet", b"", ["--to", "{to}"], 1, "cannot be read as Parquet"),
    ("l.jsonl", _line(), ["--to", "nobody-made-it"], 1, "orderkit topics create --dlq-topic nobody-made-it"),
    ("l.jsonl", _line(), [], 1, "'x' does not exist"),
    ("l.jsonl", _line(partition=9), ["--to", "{to}"], 2, "--by-key"),
    ("l.jsonl", _line(), ["--to", "a b"], 2, "Kafka allows"),
    ("l.jsonl", _line(), ["--to", "{to}", "--dry-run"], 2, "exclude each other"),
]


@pytest.mark.parametrize(("name", "content", "words", "status", "told"), WRONG)
def test_bad_input_is_one_line(
    name: str, content: bytes | None, words: list[str], status: int, told: str, tmp_path: Path, capsys: Capture
) -> None:
    """Whatever is wrong with file or target is one line on standard error, with the right status."""
    kit = Kit(4)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    given = [word.format(to=kit.dead_letters) for word in words]
    ended, out, err = run(kit, "import", str(tmp_path / name), *given, "--yes", capsys=capsys)
    assert (ended, out, err.count("\n")) == (status, "", 1)
    assert told in err


def test_a_parquet_file_without_a_column_is_one_line(kit: Kit, tmp_path: Path, capsys: Capture) -> None:
    """The missing columns are named; a column of another kind is, too."""
    import pandas as pd

    file = tmp_path / "l.parquet"
    run(kit, "export", str(file), capsys=capsys)
    frame = pd.read_parquet(file)
    for changed, told in ((frame.drop(columns="key"), "no column key"), (frame.assign(partition="x"), "partition")):
        changed.to_parquet(file)
        status, out, err = run(kit, "import", str(file), "--to", kit.topic, "--yes", capsys=capsys)
        assert (status, out, err.count("\n"), told in err) == (2, "", 1, True)


def test_an_empty_file_is_nothing_to_do_and_by_key_takes_any_partition(tmp_path: Path, capsys: Capture) -> None:
    """An export without a letter is imported without complaint; --by-key needs no partition of the letter's."""
    kit = Kit(4)
    (file := tmp_path / "l.jsonl").write_bytes(b"")
    status, out, _ = run(kit, "import", str(file), "--to", kit.topic, "--yes", capsys=capsys)
    assert (status, "holds no dead letters" in out) == (0, True)
    file.write_bytes(b"\xef\xbb\xbf" + _line(partition=9) + b"\r\n" + _line(partition=8).rstrip())
    assert run(kit, "import", str(file), "--to", kit.topic, "--by-key", "--yes", capsys=capsys)[0] == 0
    assert len(letters_of(kit.connection, kit.topic)) == 2


def test_letters_that_still_lie_there_are_not_doubled_by_default(kit: Kit, tmp_path: Path, capsys: Capture) -> None:
    """Without --to letters go to where they lay; while they are there, that takes a --to that says so."""
    file = str(tmp_path / "l.jsonl")
    run(kit, "export", file, capsys=capsys)
    status, _, err = run(kit, "import", file, "--yes", capsys=capsys)
    assert (status, err.count("\n"), f"--to {kit.dead_letters}" in err) == (2, 1, True)
    assert run(kit, "import", file, "--to", kit.dead_letters, "--yes", capsys=capsys)[0] == 0
    assert len(kit.letters()) == 8


def test_without_pyarrow_there_is_advice(
    kit: Kit, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet without its library is one line that says what to install, and leaves no file."""
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    status, _, err = run(kit, "export", str(tmp_path / "l.parquet"), capsys=capsys)
    assert (status, err.count("\n"), "orderkit[lab]" in err, list(tmp_path.iterdir())) == (1, 1, True, [])


def _start(kit: Kit, *words: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", IN_SMALL_PORTIONS, "dlq", *words, "--bootstrap-server", kit.connection.bootstrap]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_a_full_disk_leaves_no_file(kit: Kit, tmp_path: Path) -> None:
    """A file that may not grow any more ends the export in one line; nothing is there, not even half."""

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))

    words = ("export", str(tmp_path / "l.jsonl"), "--dlq-topic", kit.dead_letters)
    process = _start(kit, *words, preexec_fn=little_room)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n"), "cannot be written: File too large" in err) == (1, 1, True)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_far_it_is_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """An import that is interrupted ends with 130 and its line; an export leaves no file; then all goes on."""
    kit, many = Kit(4), 20_000
    kit.send([Record(b"value %d" % i, b"k", [("n", b"x" * 60)], i % 4) for i in range(many)])
    file, to = tmp_path / "l.jsonl", fresh(kit)
    process = _start(kit, "export", str(file), "--dlq-topic", kit.topic)
    wait_for(lambda: list(tmp_path.iterdir()) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode:  # else it was through already
        assert (process.returncode, err.strip(), [*tmp_path.iterdir()]) == (130, "orderkit: interrupted.", []), err
    process = _start(kit, "export", str(file), "--dlq-topic", kit.topic, "--overwrite")
    assert (process.communicate(timeout=60), process.returncode)[1] == 0
    words = ("import", str(file), "--to", to, "--yes")
    process = _start(kit, *words)
    wait_for(lambda: sum(high for _, high in kit.connection.watermarks(to).values()) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode:
        found = re.search(rf"interrupted: (\d+) of {many} lines are done; the same command goes on\.\n", err)
        assert (process.returncode, bool(found)) == (130, True), err
        assert int(found[1]) == len(letters_of(kit.connection, to)) < many  # type: ignore[index]
    process = _start(kit, *words)
    assert (process.communicate(timeout=60), process.returncode)[1] == 0
    assert letters_of(kit.connection, to) == letters_of(kit.connection, kit.topic)


def test_an_interrupt_that_the_client_makes_an_error_of_is_one(
    kit: Kit, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a signal raises while the client reads its settings comes out as an error of theirs; it ends with 130."""

    def lost(*_given: Any, **_more: Any) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise UsageError("expected configuration property name as type unicode string")

    monkeypatch.setattr("orderkit.cli.dlq_files.export_letters", lost)
    status, _, err = orderkit(kit, "export", str(tmp_path / "l.jsonl"), capsys=capsys)
    assert (status, err) == (130, "orderkit: interrupted.\n")


def test_the_worked_example_of_the_guide_is_true(
    kit: Kit, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide's edit, run as it is printed: the mended price is averaged, and the old value is in the header."""
    monkeypatch.chdir(tmp_path)
    mended = f"{kit.dead_letters}-mended"
    kit.connection.create_topics({mended: 4})
    (example,) = re.findall(r"^    # (edit_letters\.py\n(?:    .*\n|\n)+?)^$", GUIDE, re.MULTILINE)
    script = "\n".join(line.removeprefix("    ") for line in example.splitlines()[1:])
    lines = re.findall(r"^    (orderkit dlq (?:export|import|replay) .*orders-dlq.*)$", GUIDE, re.MULTILINE)
    assert len(lines) == 3
    for number, line in enumerate(lines):
        words = line.partition("  #")[0].replace("orders-dlq-mended", mended).split()[2:]
        asked = [*words, "--to", kit.topic, "--yes"] if words[0] == "replay" else words
        assert orderkit_or_run(kit, *asked, capsys=capsys) == 0
        if not number:
            exec(compile(script, "edit_letters.py", "exec"), {"__name__": "__main__"})
    codec = Codec()
    found = [codec.decode(it.value) for it in read_dead_letters(kit.connection, kit.topic) if it.replays]
    assert sorted(order["orderId"] for order in found) == ["3", "6", "9"]
    assert {order["price"] for order in found} == {1.0}


def orderkit_or_run(kit: Kit, *words: str, capsys: Capture) -> int:
    """Run a command of the guide; give its status."""
    return (run if words[0] == "import" else orderkit)(kit, *words, capsys=capsys)[0]
