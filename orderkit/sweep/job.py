"""One cell of a sweep: a run or a notebook, alone in a process, with a row of figures at the end."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orderkit.brokers import EmbeddedBroker
from orderkit.lab.arrival import quick
from orderkit.lab.experiment import experiment
from orderkit.sweep.figures import FIGURES

REPORT = re.compile(
    r"(\d+) produced = (\d+) averaged \+ (\d+) dead \+ (\d+) skipped \+ (\d+) in flight; (\d+) retries; "
    r"lost (\d+), duplicated (\d+); average (\d[\d.]*)"
)
RUNS_PER_BROKER = 100  # then a new one: it keeps all records of all runs

Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One cell of the grid.

    Args:
        values: all parameters by name.
        notebook: the text of a notebook; without one the cell is a `Run`.
        patience: seconds that the run, or one cell of the notebook, may take.
    """

    values: Mapping[str, Any]
    notebook: str | None = None
    patience: float = 120.0

    @property
    def key(self) -> str:
        """A name that is the same for the same cell of the same experiment."""
        told = json.dumps([dict(self.values), self.notebook], sort_keys=True)
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()

    def row(self, error: str | None = None, **figures: object) -> Row:
        """Give the cell's row: parameters, figures, and what went wrong."""
        return {**self.values, **dict.fromkeys(FIGURES), "seconds": None, **figures, "error": error}


def run_job(job: Job) -> tuple[str, Row, str | None]:
    """Run a cell; give its key, its row and, of a notebook, the notebook as it ended. Never raises."""
    start, output = time.perf_counter(), None
    try:
        if job.notebook is None:
            figures = _run(job)
        else:
            figures, output = _execute(job)
    except Exception as error:  # one bad cell must not end the sweep
        last = str(error).strip().splitlines()[-1:] or [""]
        row = job.row(last[0] if job.notebook else f"{type(error).__name__}: {last[0]}")
    else:
        row = job.row(**figures)
    row["seconds"] = round(time.perf_counter() - start, 3)
    return job.key, row, output


@cache
def _broker(_generation: int) -> EmbeddedBroker:
    """Open a broker of this process."""
    broker = EmbeddedBroker({})
    broker.connection = quick(broker)
    return broker


_made = 0


def _run(job: Job) -> Row:
    global _made  # noqa: PLW0603  counts the runs of this process
    if _made % RUNS_PER_BROKER == 0:
        _broker.cache_clear()
    broker = _broker(_made // RUNS_PER_BROKER)
    _made += 1
    told = experiment(broker, **job.values).start().wait(job.patience).report().as_dict()
    return {name: told[name] for name in FIGURES} | {"average": float(str(told["average"]))}


def _execute(job: Job) -> tuple[Row, str]:
    """Execute the notebook with these parameters; the figures are those of the first account it shows."""
    import papermill  # noqa: PLC0415  only for notebooks

    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "in.ipynb", Path(folder) / "out.ipynb"
        before.write_text(job.notebook or "", "utf-8")
        papermill.execute_notebook(
            str(before), str(after), dict(job.values), progress_bar=False, execution_timeout=int(job.patience)
        )
        text = after.read_text("utf-8")
    shown = [
        "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))
        for cell in json.loads(text)["cells"]
        for output in cell.get("outputs", ())
    ]
    found = REPORT.search("\n".join(shown))
    figures: Row = dict(zip(FIGURES, map(float, found.groups()), strict=True)) if found else {}
    return {name: value if name == "average" else int(value) for name, value in figures.items()}, text
