"""Every combination of parameters, run once.

A cell that fails is kept and reported, and the rest goes on. With a folder, what is done stays done.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orderkit.errors import UsageError
from orderkit.sweep.shelf import Shelf
from orderkit.sweep.workers import missing, results

if TYPE_CHECKING:
    import pandas as pd

    from orderkit.sweep.job import Job, Row

PER_CORE = 4  # processes: a run mostly waits for its broker
PATIENCE = 120.0


def sweep(
    grid: Mapping[str, Sequence[Any]],
    fixed: Mapping[str, Any] | None = None,
    *,
    notebook: str | Path | None = None,
    folder: str | Path | None = None,
    workers: int | None = None,
    dask: str | None = None,
    progress: bool = True,
    patience: float = PATIENCE,
) -> pd.DataFrame:
    """Run every combination of a grid.

    Args:
        grid: for each parameter the values that it takes.
        fixed: parameters that are the same in all cells.
        notebook: a notebook with a `parameters` cell; by default each cell is a `lab.experiment`.
        folder: where finished cells are kept; what is there already is not run again, but for those that failed.
        workers: processes at one time; by default four for each core.
        dask: address of a Dask scheduler, whose workers run the cells instead.
        progress: show a bar, if there is a terminal.
        patience: seconds that one run, or one cell of a notebook, may take.

    Returns:
        A row for each cell, in the order of the grid: the parameters, the figures of the report, `seconds`, `error`.

    Raises:
        UsageError: no cells, or a parameter that is not there.
        OrderkitError: a library is missing, no scheduler answers, or the folder cannot be written.
    """
    jobs = _jobs(grid, fixed or {}, notebook, patience)
    shelf = Shelf(folder) if folder is not None else None
    done = shelf.kept(jobs) if shelf else {}
    todo = list({job.key: job for job in jobs if job.key not in done}.values())
    done |= _finish(todo, shelf, workers or PER_CORE * (os.cpu_count() or 1), dask, progress)
    import pandas as pd  # noqa: PLC0415  only those who sweep want a frame

    return pd.DataFrame([done[job.key] for job in jobs])


def _jobs(
    grid: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], notebook: str | Path | None, patience: float
) -> list[Job]:
    """Make the cells of the grid."""
    try:
        from orderkit.sweep.job import Job  # noqa: PLC0415  only those who sweep need the lab
    except ModuleNotFoundError as error:
        raise missing(error) from None
    text = _read(notebook) if notebook is not None else None
    _check_names({**fixed, **grid}, notebook)
    if empty := [name for name, values in grid.items() if not values]:
        raise UsageError(f"{empty[0]} has no values to take.")
    cells = product(*grid.values())
    return [Job({**fixed, **dict(zip(grid, values, strict=True))}, text, patience) for values in cells]


def _read(notebook: str | Path) -> str:
    try:
        return Path(notebook).read_text("utf-8")
    except OSError as error:
        raise UsageError(f"Notebook {notebook}: {error.strerror}.") from None


def _check_names(given: Mapping[str, Any], notebook: str | Path | None) -> None:
    """Refuse a parameter that nobody reads, before anything runs."""
    if notebook is None:
        from orderkit.lab import experiment  # noqa: PLC0415

        known = [name for name, one in inspect.signature(experiment).parameters.items() if one.kind is one.KEYWORD_ONLY]
    else:
        import papermill  # noqa: PLC0415

        known = list(papermill.inspect_notebook(str(notebook)))
    for name in given:
        if name not in known:
            there_are = f"There are: {', '.join(known)}" if known else "Its cell with the tag `parameters` names none"
            raise UsageError(f"There is no parameter {name!r}. {there_are}.")


def _finish(todo: Sequence[Job], shelf: Shelf | None, workers: int, dask: str | None, progress: bool) -> dict[str, Row]:
    """Run cells, and keep each as it comes."""
    done: dict[str, Row] = {}
    if shelf and todo:
        shelf.try_out()
    with _bar(len(todo), progress) as bar, closing(results(todo, workers, dask)) as finished:
        for key, row, output in finished:
            done[key] = row
            if shelf:
                shelf.keep(key, row, output)
            bar.update()
    return done


def _bar(many: int, progress: bool) -> Any:
    """Open a bar that shows on a terminal and nowhere else."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415  comes with papermill

    return tqdm(total=many, unit="run", disable=None if progress else True)
