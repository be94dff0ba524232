"""The live view: what a terminal shows while orders flow."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from helpers import read_to_end
from rich.console import Console

from orderkit import EmbeddedBroker, Faults, Run
from orderkit.show.view import BLOCKS, View, plot

needs_terminals = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are not to be had on Windows")


@pytest.mark.parametrize("many", [1, 2, 60, 61, 1000])
def test_a_plot_keeps_its_size_and_its_ends(many: int) -> None:
    """However many values there are, the plot has its height, is never wider, and rises from floor to top."""
    rows = plot([float(value) for value in range(many)], width=60, height=6)
    assert len(rows) == 6
    assert {len(row) for row in rows} == {min(many, 60)}
    assert set("".join(rows)) <= set(BLOCKS)
    assert rows[-1][0] != " "
    if many > 1:
        assert rows[0][-1] == BLOCKS[-1]
        assert rows[0][0] == " "


def test_a_plot_of_nothing_is_empty() -> None:
    """Before the first order there is nothing to draw."""
    assert plot([], width=10, height=2) == [" " * 10] * 2


def test_a_frame_tells_the_fates_as_they_are() -> None:
    """The numbers in a frame are the ledger's and the producer's."""
    with EmbeddedBroker({}) as broker:
        run = Run(broker, orders=60, faults=Faults(7, transient_rate=0.4, poison_rate=0.1))
        view = View(run.consumer, run.produced, run.orders)
        assert "waiting for the first order" in shown(view)
        run.start().wait(30)
        text = shown(view)
    averaged, retries, dead, *_ = run.ledger.counts
    assert dead > 0
    for told in ("produced 60", f"averaged {averaged}", f"retries {retries}", f"dead {dead}", "waiting: nothing"):
        assert told in text


def shown(view: View) -> str:
    """Draw one frame as text."""
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115  closed with the console
    with console.file:
        console.print(view.render())
        return console.export_text()


@needs_terminals
@pytest.mark.parametrize("command", ["demo", "produce", "consume"])
def test_a_terminal_shows_progress_and_then_the_account(command: str) -> None:
    """On a terminal there is a live view; the last line is the account, as in a pipe."""
    with EmbeddedBroker() as broker:
        kept = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"}
        env = {**kept, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        if command != "demo":
            env["KAFKA_BOOTSTRAP_SERVERS"] = broker.bootstrap
        more = {"demo": [], "produce": ["--rate", "100"], "consume": ["--idle", "0.5"]}[command]
        text = on_a_terminal([command, *more, *(["--orders", "60"] if command != "consume" else [])], env)
    if command == "produce":
        assert "orders acknowledged; Ctrl-C ends it" in text
        assert "60 produced, 60 acknowledged, 0 failed" in text
    else:
        assert "running average" in text
        assert "every order is accounted for" in text


def on_a_terminal(arguments: list[str], env: dict[str, str]) -> str:
    """Run `orderkit` on a pseudo-terminal and give all it wrote."""
    ours, theirs = os.openpty()
    with subprocess.Popen([sys.executable, "-m", "orderkit", *arguments], stdout=theirs, env=env) as process:
        os.close(theirs)
        text = read_to_end(ours)
        assert process.wait(60) == 0
    os.close(ours)
    return text.decode(errors="replace")
