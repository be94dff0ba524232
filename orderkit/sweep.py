"""A grid of parameters, each cell a run or a notebook in a process of its own; one tidy frame at the end.

A cell that fails is kept and reported, and the rest goes on. With a folder, what is done stays done.
"""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orderkit.errors import OrderkitError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from orderkit.lab.job import Job, Row
    from orderkit.lab.picture import Picture

    Results = Generator[tuple[str, Row, str | None], None, None]  # a cell's key, its figures, its notebook

PER_CORE = 4  # processes: a run mostly waits for its broker
PATIENCE = 120.0
# The process that tidies up for joblib may come too late after Ctrl-C, and would warn of that.
TRACKER = "ignore::UserWarning:joblib.externals.loky.backend.resource_tracker"


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
        OrderkitError: a library is missing, or no scheduler answers.
    """
    jobs = _jobs(grid, fixed or {}, notebook, patience)
    shelf = Path(folder) if folder is not None else None
    done = _kept(jobs, shelf)
    todo = list({job.key: job for job in jobs if job.key not in done}.values())
    done |= _finish(todo, shelf, workers or PER_CORE * (os.cpu_count() or 1), dask, progress)
    import pandas as pd  # noqa: PLC0415  only those who sweep want a frame

    return pd.DataFrame([done[job.key] for job in jobs])


def _jobs(
    grid: Mapping[str, Sequence[Any]], fixed: Mapping[str, Any], notebook: str | Path | None, patience: float
) -> list[Job]:
    """Make the cells of the grid."""
    try:
        from orderkit.lab.job import Job  # noqa: PLC0415  only those who sweep need the lab
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    text = _read(notebook) if notebook is not None else None
    _check_names({**fixed, **grid}, notebook)
    if empty := [name for name, values in grid.items() if not values]:
        raise UsageError(f"{empty[0]} has no values to take.")
    cells = product(*grid.values())
    return [Job({**fixed, **dict(zip(grid, values, strict=True))}, text, patience) for values in cells]


def _missing(error: ModuleNotFoundError, extra: str = "lab") -> OrderkitError:
    return OrderkitError(f'A sweep needs {error.name}: pip install "orderkit[{extra}]".')


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


def _kept(jobs: Sequence[Job], shelf: Path | None) -> dict[str, Row]:
    """Read what an earlier sweep has finished; failed cells are run again."""
    found: dict[str, Row] = {}
    for job in jobs if shelf is not None else ():
        try:
            row = json.loads((Path(shelf or "") / f"{job.key}.json").read_text("utf-8"))
        except (OSError, ValueError):  # not there, or cut short
            continue
        if row["error"] is None:
            found[job.key] = row
    return found


def _keep(shelf: Path | None, key: str, row: Row, output: str | None) -> None:
    """Write a finished cell down, whole or not at all."""
    if shelf is None:
        return
    for name, text in ((f"{key}.ipynb", output), (f"{key}.json", json.dumps(row))):
        if text is not None:
            part = shelf / f"{name}.part"
            try:
                shelf.mkdir(parents=True, exist_ok=True)
                part.write_text(text, "utf-8")
                part.replace(shelf / name)
            except OSError as error:
                raise OrderkitError(f"{shelf / name} cannot be written: {error.strerror}.") from None


def _finish(todo: Sequence[Job], shelf: Path | None, workers: int, dask: str | None, progress: bool) -> dict[str, Row]:
    """Run cells, and keep each as it comes."""
    done: dict[str, Row] = {}
    with _bar(len(todo), progress) as bar, closing(_results(todo, workers, dask)) as results:
        for key, row, output in results:
            done[key] = row
            _keep(shelf, key, row, output)
            bar.update()
    return done


def _bar(many: int, progress: bool) -> Any:
    """Open a bar that shows on a terminal and nowhere else."""
    from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415  comes with papermill

    return tqdm(total=many, unit="run", disable=None if progress else True)


def _results(jobs: Sequence[Job], workers: int, dask: str | None) -> Results:
    """Yield results as they come. A process that dies takes all others with it; then the rest goes one by one."""
    from orderkit.lab.job import run_job  # noqa: PLC0415

    try:
        import joblib  # type: ignore[import-untyped]  # noqa: PLC0415
        from joblib.externals.loky import process_executor  # type: ignore[import-untyped]  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    left = {job.key: job for job in jobs}
    if TRACKER not in (filters := os.environ.get("PYTHONWARNINGS", "")):
        os.environ["PYTHONWARNINGS"] = f"{filters},{TRACKER}".lstrip(",")
    with ExitStack() as stack:
        backend = "dask" if dask is not None else "loky"
        if dask is not None:
            stack.enter_context(_client(dask))
        stack.enter_context(joblib.parallel_config(backend, n_jobs=max(2, workers)))
        try:
            for result in stack.enter_context(closing(_parallel(joblib, run_job, jobs))):
                del left[result[0]]
                yield result
        except process_executor.TerminatedWorkerError:
            for job in list(left.values()):
                try:
                    yield from _parallel(joblib, run_job, [job])
                except process_executor.TerminatedWorkerError:
                    yield job.key, job.row("the process died"), None


def _parallel(joblib: Any, work: Any, jobs: Sequence[Job]) -> Results:
    parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
    results = parallel(joblib.delayed(work)(job) for job in jobs)
    try:
        for result in results:  # noqa: UP028  `yield from` would end it before the block below
            yield result
    finally:
        with warnings.catch_warnings():  # joblib warns of what was not waited for; whoever left early knows why
            warnings.simplefilter("ignore", UserWarning)
            results.close()


def _client(address: str) -> Any:
    """Connect to a Dask scheduler; joblib's backend finds the connection by itself."""
    try:
        from distributed import Client  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error, "dask") from None
    try:
        return Client(address, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise OrderkitError(f"No Dask scheduler answers at {address}: {type(error).__name__}. Is it up?") from None


def varied(frame: pd.DataFrame, grid: Mapping[str, Sequence[Any]], value: str) -> pd.DataFrame:
    """Average a figure over seeds: a row for each combination of the other parameters that vary.

    Args:
        frame: what `sweep` gave.
        grid: as `sweep` took it.
        value: the figure.

    Raises:
        UsageError: there is no such figure.
    """
    if value not in frame.columns or value in grid or value == "error":
        raise UsageError(f"There is no figure {value!r} to show.")
    names = [name for name, values in grid.items() if len(values) > 1 and name != "seed"]
    good = frame[frame["error"].isna()].astype({value: float})
    if not names:
        return good[[value]].mean().to_frame().T
    return good.groupby(names, sort=False)[value].mean().reset_index()


def picture(frame: pd.DataFrame, grid: Mapping[str, Sequence[Any]], value: str = "dead") -> Picture:
    """Draw a figure as a heat map over the first two parameters that vary, averaged over all others.

    Args:
        frame: what `sweep` gave.
        grid: as `sweep` took it.
        value: the figure.
    """
    from orderkit.lab.attempts import heat_map  # noqa: PLC0415

    table = varied(frame, grid, value)
    names = [name for name in table.columns if name != value]
    across = names[1] if len(names) > 1 else None
    down = names[0] if names else None
    rows = list(grid[down]) if down else [""]
    columns = list(grid[across]) if across else [""]
    field = [[_mean(table, {down: row, across: column}, value) for column in columns] for row in rows]
    return heat_map(field, rows, columns, f"{value}, averaged", across or "", down or "")


def _mean(table: pd.DataFrame, where: Mapping[str | None, Any], value: str) -> float:
    for name, wanted in where.items():
        if name is not None:
            table = table[table[name] == wanted]
    return float(table[value].mean())
