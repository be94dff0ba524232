"""Who runs the cells: processes on this machine, or a Dask cluster's workers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any

from orderkit.errors import OrderkitError

if TYPE_CHECKING:
    from orderkit.sweep.job import Job, Row

    Results = Generator[tuple[str, Row, str | None], None, None]  # a cell's key, its figures, its notebook

# The process that tidies up for joblib may come too late after Ctrl-C, and would warn of that.
TRACKER = "ignore::UserWarning:joblib.externals.loky.backend.resource_tracker"


def results(jobs: Sequence[Job], workers: int, dask: str | None) -> Results:
    """Run cells, and yield their results as they come.

    A process that dies takes all others with it; then the rest goes one by one.

    Args:
        jobs: which.
        workers: processes at one time.
        dask: address of a Dask scheduler, whose workers run them instead.

    Raises:
        OrderkitError: a library is missing, or no scheduler answers.
    """
    try:
        import joblib  # type: ignore[import-untyped]  # noqa: PLC0415
        from joblib.externals.loky import process_executor  # type: ignore[import-untyped]  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise missing(error) from None
    left = {job.key: job for job in jobs}
    with ExitStack() as stack:
        stack.enter_context(_quiet_tracker())
        backend = "dask" if dask is not None else "loky"
        if dask is not None:
            stack.enter_context(_client(dask))
        stack.enter_context(joblib.parallel_config(backend, n_jobs=max(2, workers)))
        try:
            for result in stack.enter_context(closing(_parallel(joblib, jobs))):
                del left[result[0]]
                yield result
        except process_executor.TerminatedWorkerError:
            for job in list(left.values()):
                try:
                    yield from _parallel(joblib, [job])
                except process_executor.TerminatedWorkerError:
                    yield job.key, job.row("the process died"), None


def missing(error: ModuleNotFoundError, extra: str = "lab") -> OrderkitError:
    """Say which library is missing, and which extra brings it."""
    return OrderkitError(f'A sweep needs {error.name}: pip install "orderkit[{extra}]".')


@contextmanager
def _quiet_tracker() -> Iterator[None]:
    """Let processes that start meanwhile not warn of what is tidied up too late; then all is as it was before."""
    before = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = f"{before},{TRACKER}" if before else TRACKER
    try:
        yield
    finally:
        del os.environ["PYTHONWARNINGS"]
        if before is not None:
            os.environ["PYTHONWARNINGS"] = before


def _parallel(joblib: Any, jobs: Sequence[Job]) -> Results:
    from orderkit.sweep.job import run_job  # noqa: PLC0415  loads the lab

    parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
    cells = parallel(joblib.delayed(run_job)(job) for job in jobs)
    try:
        for cell in cells:  # noqa: UP028  `yield from` would end it before the block below
            yield cell
    finally:
        with warnings.catch_warnings():  # joblib warns of what was not waited for; whoever left early knows why
            warnings.simplefilter("ignore", UserWarning)
            cells.close()


def _client(address: str) -> Any:
    """Connect to a Dask scheduler; joblib's backend finds the connection by itself."""
    try:
        from distributed import Client  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise missing(error, "dask") from None
    try:
        return Client(address, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, TimeoutError) as error:
        raise OrderkitError(f"No Dask scheduler answers at {address}: {type(error).__name__}. Is it up?") from None
