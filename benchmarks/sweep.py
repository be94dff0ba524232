"""How long a sweep takes.

    python benchmarks/sweep.py               # 1,000 runs of 50 orders, about a minute
    python benchmarks/sweep.py --runs 200

Small runs on the embedded broker, with four processes for each core, as `sweep` has it by default. Where others work on
the same cores the seconds say little, so the processor's are there, too.
"""

from __future__ import annotations

import argparse
import os
import time

from joblib.externals.loky import get_reusable_executor  # type: ignore[import-untyped]

from orderkit.sweep import sweep


def main() -> None:
    """Sweep over seeds, and print the seconds."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=1000)
    options.add_argument("--orders", type=int, default=50, help="in each run")
    options.add_argument("--workers", type=int, help="processes; by default as the sweep chooses")
    chosen = options.parse_args()
    start = time.perf_counter()
    frame = sweep({"seed": range(chosen.runs)}, {"orders": chosen.orders}, workers=chosen.workers)
    took = time.perf_counter() - start
    failed = int(frame["error"].notna().sum())
    get_reusable_executor().shutdown(wait=True)  # only what a process that has ended has used is known
    processor = sum(os.times()[:4])
    told = f"{took:.1f} s, processor {processor:.1f} s; one run takes {frame['seconds'].median():.2f} s"
    print(f"{len(frame)} runs on {os.cpu_count()} cores, {failed} failed: {told}")


if __name__ == "__main__":
    main()
