"""The engines side by side: one seed, one plan of failures, one broker, each engine in a process of its own."""

from __future__ import annotations

import os
import re
import resource
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING

from orderkit.comparison.phase import BROKER_DLQ, Phase
from orderkit.comparison.plan import Plan
from orderkit.consuming.consumers import ENGINE_NAMES
from orderkit.errors import UsageError, check_known
from orderkit.kafka import Connection

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CONTESTANTS", "Plan", "Result", "as_frame", "as_table", "compare"]

CONTESTANTS = (*ENGINE_NAMES, BROKER_DLQ)


@dataclass(frozen=True)
class Result:
    """What one engine did.

    Args:
        engine: its name.
        throughput: orders a second while all lie ready, with the failures.
        wait_p50, wait_p99: milliseconds from production to success, of orders that do not fail.
        calm_p99: the same when nothing fails.
        inversions: orders done after a younger one of their key.
        duplicates: fates beyond an order's first.
        lost: orders without a fate.
        records: records written for each order, the order itself included.
        memory: largest resident memory of the process, in MB.
    """

    engine: str
    throughput: float
    wait_p50: float
    wait_p99: float
    calm_p99: float
    inversions: int
    duplicates: int
    lost: int
    records: float
    memory: float


def compare(
    connection: Connection,
    engines: Sequence[str] | None = None,
    plan: Plan | None = None,
    told: Callable[[str], object] | None = None,
) -> list[Result]:
    """Let each engine do the same work, one after the other.

    Args:
        connection: the cluster.
        engines: names out of `CONTESTANTS`; by default all that the cluster can do.
        plan: the work.
        told: called with the name of each engine before its turn.

    Raises:
        UsageError: an unknown engine, or one that the cluster cannot do.
        OrderkitError: an engine does not come to an end.
    """
    possible = [name for name in CONTESTANTS if not name.startswith("share") or not connection.is_embedded]
    engines = possible if engines is None else engines
    for name in engines:
        check_known("engine", name, CONTESTANTS)
        if name not in possible:
            raise UsageError(f"The engine {name!r} needs a real broker: the embedded one has no share groups.")
    results = []
    for name in engines:
        if told:
            told(name)
        results.append(_measured_aside(connection, name, plan or Plan()))
    return results


def _measured_aside(connection: Connection, engine: str, plan: Plan) -> Result:
    """Run the phases of one engine in a process that ends with them, or when they are interrupted."""
    others = active_children()
    with ProcessPoolExecutor(1, get_context("spawn"), _end_with_parent) as pool:
        try:
            return pool.submit(_measure, connection.bootstrap, connection.config, engine, plan).result()
        except KeyboardInterrupt:  # nobody waits for the rest of it
            for process in active_children():
                if process not in others:
                    process.terminate()
            raise


def _end_with_parent() -> None:
    """Let this process end when its parent is killed: a pool's process would wait for ever."""

    def wait() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def as_frame(results: Sequence[Result]) -> pd.DataFrame:
    """Give results as a frame, one row an engine, with the columns of `Result`."""
    import pandas as pd  # noqa: PLC0415  pandas is loaded by those who want a frame

    return pd.DataFrame([asdict(result) for result in results]).set_index("engine")


def as_table(results: Sequence[Result]) -> str:
    """Give results as text in columns."""
    rows: list[tuple[str, ...]] = [
        ("engine", "orders/s", "wait p50", "p99", "calm p99", "inversions", "twice", "lost", "records", "memory")
    ]
    for r in results:
        waits = (f"{value:.0f} ms" for value in (r.wait_p50, r.wait_p99, r.calm_p99))
        counts = map(str, (r.inversions, r.duplicates, r.lost))
        rows.append((r.engine, f"{r.throughput:,.0f}", *waits, *counts, f"{r.records:.3f}", f"{r.memory:.0f} MB"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


def _measure(bootstrap: str, config: Mapping[str, str], engine: str, plan: Plan) -> Result:
    """Run the three phases of one engine, in a process of its own."""
    connection = Connection(bootstrap, config)
    calm = Phase(connection, engine, plan, failing=set()).run(plan.rate)
    loaded = Phase(connection, engine, plan, failing=plan.failing_keys()).run(plan.rate)
    flat_out = Phase(connection, engine, plan, failing=plan.failing_keys())
    waits = loaded.waits()
    return Result(
        engine=engine,
        throughput=flat_out.flat_out(),
        wait_p50=_percentile(waits, 50),
        wait_p99=_percentile(waits, 99),
        calm_p99=_percentile(calm.waits(), 99),
        inversions=loaded.inversions(),
        duplicates=loaded.duplicates,
        lost=loaded.lost,
        records=loaded.records,
        memory=_peak_memory(),
    )


def _peak_memory() -> float:
    """Give the largest resident memory of this process in MB; on Linux `getrusage` begins with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text("utf-8"))[0]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _percentile(values: list[float], percent: int) -> float:
    """Give the smallest value that `percent` of all do not exceed."""
    values = sorted(values)
    return values[max(0, -(-len(values) * percent // 100) - 1)] if values else float("nan")
