"""What goes wrong in a notebook ends with one clear line: a misspelt parameter, a dead broker, cells in any order."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orderkit.brokers import EmbeddedBroker
from orderkit.errors import OrderkitError, UsageError

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

from orderkit import lab

GUARD = sys.modules["orderkit.lab.parameters"]  # the package's name for it is the function's
NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


# Parameters


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let the guard believe that it runs in a kernel; give that kernel's memory of its cells."""
    names: dict[str, Any] = {"In": [""]}
    monkeypatch.setattr(GUARD, "get_ipython", lambda: SimpleNamespace(user_ns=names))
    return names


def test_a_name_that_no_notebook_reads_is_refused(shell: dict[str, Any]) -> None:
    """What papermill injected is held against what the notebook has."""
    shell["In"] += ["orders = 5", "# Parameters\norders = 7\nodrers = 8\n"]
    with pytest.raises(UsageError) as caught:
        lab.parameters(orders=7, seed=1)
    assert str(caught.value) == "This notebook has no parameter 'odrers'. It has: orders, seed."


def test_other_cells_may_assign_what_they_like(shell: dict[str, Any]) -> None:
    """Only the injected cell is looked at; known names in it are fine."""
    shell["In"] += ["anything = 5", "# Parameters\norders = 7\n", "more = anything"]
    assert lab.parameters(orders=7) == {"orders": 7}


def test_without_a_kernel_values_are_still_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain script has no injected cell, but its numbers can be wrong all the same."""
    monkeypatch.setattr(GUARD, "get_ipython", lambda: None)
    with pytest.raises(UsageError, match=r"^pace is 0; it must be orders a second, from 1 to 1000\.$"):
        lab.parameters(pace=0)


@pytest.mark.parametrize("name", ["00_start_here", "04_commit_before_or_after", "07_transient_or_poison"])
def test_a_misspelt_parameter_stops_papermill(name: str, tmp_path: Path) -> None:
    """The run ends at the guard, with a line that names it; papermill alone would only warn."""
    papermill = pytest.importorskip("papermill")  # here: every worker collects this file, and it takes long to load
    with pytest.raises(papermill.PapermillExecutionError) as caught:
        papermill.execute_notebook(
            NOTEBOOKS / f"{name}.ipynb", tmp_path / "out.ipynb", {"odrers": 8}, progress_bar=False
        )
    assert caught.value.ename == "UsageError"
    assert caught.value.evalue.startswith("This notebook has no parameter 'odrers'. It has: ")


# A broker that dies


def test_a_dead_broker_ends_the_cell_and_a_new_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one line with all numbers, the chart shows what is in flight, and the cell runs again."""
    monkeypatch.setattr("orderkit.lab.watch.QUIET", 0.5)
    monkeypatch.setattr("orderkit.lab.live.has_a_page", lambda: True)

    def make(broker: EmbeddedBroker) -> lab.Live:
        return lab.Live(broker, predict=False, every=0.05, orders=400, rate=400, failure_rate=0.2)

    async def watch(broker: EmbeddedBroker, view: lab.Live) -> None:
        task = asyncio.ensure_future(view.play())
        while not view.run.ledger.finished:
            await asyncio.sleep(0.01)
        broker.down()
        await asyncio.wait_for(task, 30)

    with EmbeddedBroker({}) as broker:
        view = make(broker)
        run = view.run
        with pytest.raises(OrderkitError) as caught:
            asyncio.run(watch(broker, view))
        in_flight = run.produced.sent - run.ledger.finished
        assert in_flight > 0
        assert str(caught.value).startswith(f"The broker is gone: {run.produced.sent} produced, ")
        assert str(caught.value).endswith(f" {in_flight} in flight. Open a new broker, and run the cell again.")
        assert "\n" not in str(caught.value)
        assert view.picture.figure.axes[0].get_title().endswith(f"; {in_flight} in flight")
        broker.up()
        run.join(40)
        assert not run.alive
    with EmbeddedBroker({}) as fresh:
        again = make(fresh)
        asyncio.run(again.play())
        assert again.run.report().conserved
        assert again.run.ledger.finished == 400


def test_a_quiet_run_is_not_a_dead_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long back-offs give no news for a while; the broker answers, and the run goes on to its end."""
    monkeypatch.setattr("orderkit.lab.watch.QUIET", 0.05)
    monkeypatch.setattr("orderkit.lab.live.has_a_page", lambda: True)
    with EmbeddedBroker({}) as broker:
        waits: dict[str, Any] = {"backoff": "fixed", "backoff_base": 0.5, "failure_rate": 1, "max_attempts": 3}
        view = lab.Live(broker, predict=False, every=0.02, orders=4, **waits)
        asyncio.run(view.play())
        assert view.run.report().dead == 4


# Cells in any order


def code_cells(name: str, *ids: str) -> str:
    """Join cells of a notebook, in the order asked for."""
    found = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8"))["cells"]
    texts = {cell["id"]: "".join(cell["source"]) for cell in found}
    return "\n".join(texts[name] for name in ids)


def test_cells_run_twice_do_not_mix_runs() -> None:
    """The cells of a run, run again, make a run of their own: the same numbers, other topics."""
    start = code_cells("05_try_again", "parameters", "imports", "guard", "go")
    twice = code_cells("05_try_again", "go")
    space: dict[str, Any] = {}
    exec(start.replace("orders = 2000", "orders = 200"), space)
    first = space["run"]
    exec(twice, space)
    second = space["run"]
    assert first.topic != second.topic
    assert first.report().as_dict() == second.report().as_dict()
    exec("run = lab.experiment(broker, **settings).start()", space)  # left alone in the middle, as by an interrupt
    left = space["run"]
    left.stop()
    exec(twice, space)
    assert space["run"].report().as_dict() == first.report().as_dict()
    left.join(20)
    assert not left.alive


def test_a_gallery_run_twice_gives_the_same() -> None:
    """A crash has a group of its own each time, so that nothing is left over from the run before."""
    ids = ("parameters", "guard", "before", "after", "run")
    space: dict[str, Any] = {}
    exec(code_cells("04_commit_before_or_after", *ids), space)
    first = space["lives"]
    exec(code_cells("04_commit_before_or_after", "after", "run", "before", "run"), space)
    assert space["lives"] == first


def test_a_cell_before_its_time_names_what_is_missing() -> None:
    """Out of order is a `NameError` at once, not a hang."""
    with pytest.raises(NameError, match="lab"):
        exec(code_cells("05_try_again", "go"), {"EmbeddedBroker": EmbeddedBroker})
