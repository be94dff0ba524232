"""Whatever a terminal can print, and whatever strangers wrote: it is shown, and never obeyed."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from helpers import read_to_end, shared
from hypothesis import given
from hypothesis import strategies as st
from test_view import needs_terminals

from orderkit import EmbeddedBroker
from orderkit.cli import main, tidy_settings
from orderkit.dead_letters.story import OWN, Headers
from orderkit.kafka import connect, named_broker
from orderkit.kafka.properties import read_properties
from orderkit.orders.avro import Codec
from orderkit.show.logs import TextLines
from orderkit.show.plot import ASCII, BLOCKS, plot
from orderkit.show.printable import printable

ENCODINGS = ["ascii", "cp1252", "cp437", "latin-1", "utf-8"]
EVIL = [
    "\x1b[31mred\x1b[0m\x1b]0;title\x07", "over\rwritten", "two\nforged line", "bidi\u202eevil\u2066", "nul\x00",
    "c1\x9b31m", "tab\t", "del\x7f", "line\u2028separator", "zero\u200bwidth", "emoji 😀 日本 ü", "x" * 10_000,
]  # fmt: skip
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # what the live view itself sends


@given(st.text(st.characters(exclude_characters="\\")))
def test_printable_text_is_shown_as_it_is_and_nothing_else_is(text: str) -> None:
    """Printable characters stay; all others, lone surrogates too, are written as escapes in one line."""
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
    assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text


@given(st.text(st.characters()))
def test_a_log_line_is_one_line(text: str) -> None:
    """An error may quote anything, and its line is still one line that a terminal does not obey."""
    record = logging.LogRecord("orderkit", logging.ERROR, "", 0, "%s", (text,), None)
    assert TextLines("orderkit: %(message)s").format(record) == f"orderkit: {printable(text)}"


@needs_terminals
@pytest.mark.parametrize(
    ("encoding", "rows_and_columns"),
    [*((encoding, (24, 80)) for encoding in ENCODINGS), ("ascii", (5, 20)), ("cp437", (0, 0)), ("utf-8", (1, 1))],
)
def test_demo_works_on_every_terminal(encoding: str, rows_and_columns: tuple[int, int]) -> None:
    """Whatever a terminal's encoding and size, the live view and the account come in characters that it has."""
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *rows_and_columns, 0, 0))
    left_out = {"COLUMNS", "LINES", "KAFKA_BOOTSTRAP_SERVERS"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    env = {**kept, "TERM": "xterm", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "orderkit", "demo", "--orders", "40", "--rate", "200"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        written = read_to_end(ours)
        status = process.wait(60)
    os.close(ours)
    text = ESCAPES.sub("", written.decode(encoding))
    assert status == 0, text
    assert "every order is accounted for" in text
    assert "Error" not in text
    assert encoding == "utf-8" or "\\u" not in text  # no picture of escapes


def test_a_plain_plot_has_the_same_shape() -> None:
    """Where no blocks can be printed, the curve is drawn in ASCII: as high, as wide, and empty in the same places."""
    fine, plain = (plot([1.0, 2.0, 5.0], 4, blocks) for blocks in (BLOCKS, ASCII))
    assert "".join(plain).isascii()
    assert [[sign == " " for sign in row] for row in plain] == [[sign == " " for sign in row] for row in fine]
    assert len(ASCII) == len(BLOCKS)


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli() -> Cli:
    """Run the command line in this process; give its status and all that it printed."""

    def run(*arguments: str, out: io.StringIO | None = None) -> tuple[int, str]:
        out = out or io.StringIO()
        with redirect_stdout(out), redirect_stderr(out), pytest.raises(SystemExit) as end:
            main([*arguments])
        return int(end.value.code or 0), out.getvalue()

    return run


@pytest.fixture(scope="module")
def hostile() -> Iterator[EmbeddedBroker]:
    """Open a broker with orders and dead letters whose every text is evil."""
    with EmbeddedBroker({"orders": 1, "orders-dlq": 1}) as broker:
        producer, codec = broker.connection.producer(), Codec()
        for text in EVIL:
            value, told = codec.encode({"orderId": text, "product": text, "price": 1.5}), text.encode()
            producer.produce("orders", value, told, 0)
            names = [*OWN, "mine" + text.replace("\0", "")[:99]]
            headers: Headers = [(name, told) for name in names]
            producer.produce("orders-dlq", value, told, 0, headers=headers)
        producer.produce("orders-dlq", b"\xff\x1b[2J", b"\xff\x1b[2J", 0, timestamp=2**62)
        assert producer.flush(10) == 0
        yield broker


COMMANDS = [
    ["consume", "-v", "--idle", "0.2", "--failure-rate", "0.5", "--backoff-base", "0"],
    ["dlq", "list"],
    ["dlq", "list", "--product", "\x1b[31m\ud8ff"],
    ["dlq", "stats"],
    *(["dlq", "show", f"0:{number}"] for number in range(len(EVIL) + 1)),
    ["dlq", "list", "--from-topic", "\x1b\n"],
    ["consume", "--topic", "\x1b[31m\ud8ff"],
    ["consume", "--engine", "\u202eesuap\n"],
    ["average", "--group", "half \ud8ff"],
    ["topics", "list", "--no\x1bsuch"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda it: " ".join(it)[:40].encode("unicode_escape").decode())
def test_no_text_of_a_stranger_is_obeyed(command: list[str], cli: Cli, hostile: EmbeddedBroker) -> None:
    """Every command shows ids, keys, headers, errors and arguments in printable characters, a line for each."""
    status, text = cli(*command, "--bootstrap-server", hostile.bootstrap)
    assert status in (0, 1, 2)
    assert all(line.isprintable() for line in text.split("\n")), text
    assert "\nforged" not in text
    assert "Traceback" not in text
    if status:
        assert text.count("\n") == 1
        assert "--debug" not in text  # a message of its own, not that of a bug


@pytest.mark.parametrize("command", [["dlq", "list"], ["dlq", "stats"]])
def test_a_table_for_programs_is_faithful_in_a_file_and_harmless_on_a_terminal(
    command: list[str], cli: Cli, hostile: EmbeddedBroker
) -> None:
    """CSV holds each text as it is; only a terminal is spared what it would obey."""
    command = [*command, "--format", "csv", "--bootstrap-server", hostile.bootstrap]
    cells = {cell for row in csv.reader(io.StringIO(cli(*command)[1], newline="")) for cell in row}
    assert {text for text in EVIL if text not in cells} <= {"nul\x00"}
    shown = cli(*command, out=Terminal())[1].replace("\r\n", "\n")
    assert all(line.isprintable() for line in shown.split("\n"))


def test_a_long_text_does_not_flood_a_table(cli: Cli, hostile: EmbeddedBroker) -> None:
    """A line of a table quotes the beginning of a text, whatever its length."""
    _, text = cli("dlq", "list", "--bootstrap-server", hostile.bootstrap)
    assert max(map(len, text.split("\n"))) < 2_500


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_stop_nothing(closed: str) -> None:
    """A run whose output nobody wants still runs."""
    command = f"exec {sys.executable} -m orderkit demo --orders 20 --rate 0 {closed}"
    kept = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
    assert subprocess.run(["sh", "-c", command], env=kept, capture_output=True, check=False).returncode == 0


SPACE = ["{}\n", " {} ", "\ufeff{}", "\t{}\r\n", "{}\u00a0", "\ufeff {}\r\n"]


@pytest.mark.parametrize("form", SPACE)
def test_white_space_round_a_setting_is_nobodys_error(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """White space, line ends and a byte order mark round a setting are no part of it, wherever it stands."""
    there = shared().bootstrap
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", form.format(there))
    monkeypatch.setenv("ORDERKIT_TOPIC", form.format("mine"))
    assert named_broker() == there
    assert connect().bootstrap == connect(form.format(there)).bootstrap == there
    tidy_settings()
    assert os.environ["ORDERKIT_TOPIC"] == "mine"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", form.format(""))
    assert named_broker() is None
    assert connect().bootstrap == "localhost:9092"


@pytest.mark.parametrize("form", ["{} ", "{}\t", "{}\u00a0", "  {}"])
def test_a_properties_file_may_have_space_round_a_value(form: str, tmp_path: Path) -> None:
    """Values are trimmed, as Kafka's own ConfigDef does it; a byte order mark begins no name."""
    file = tmp_path / "client.properties"
    text = f"security.protocol={form.format('SSL')}\nsasl.mechanism={form.format('PLAIN')}\n"
    file.write_text(text, encoding="utf-8-sig")
    assert read_properties(file) == {"security.protocol": "SSL", "sasl.mechanism": "PLAIN"}
