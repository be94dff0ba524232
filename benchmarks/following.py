"""What following a run costs: the same run with a live chart and without, in turn, on the embedded broker.

    python benchmarks/following.py    # about two minutes

A run at full speed is the hard case: every frame takes the processor from it. The time is from the first attempt to the
last in the ledger, so starting, joining the group and the final frame are not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from typing import Any

from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from orderkit import EmbeddedBroker
from orderkit.lab import Live, experiment

PARTITIONS = 8  # the embedded broker keeps some 44,000 orders in each


def seconds(orders: int, *, followed: bool) -> float:
    """Give the seconds that a run takes from its first attempt to its last."""
    job: dict[str, Any] = {"orders": orders, "failure_rate": 0.1, "permanent_rate": 0.02, "partitions": PARTITIONS}
    with EmbeddedBroker() as broker:
        if followed:
            live = Live(broker, **job)
            asyncio.run(live.play())
            run = live.run
        else:
            run = experiment(broker, **job).start().wait()
        return max(run.ledger.at) - min(run.ledger.at)


def main() -> None:
    """Print each pair and the median of the ratios."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--orders", type=int, default=300_000, help="in each run")
    options.add_argument("--pairs", type=int, default=7, help="runs with a chart, and as many without")
    chosen = options.parse_args()
    shell, frames = InteractiveShell.instance(), CapturingDisplayPublisher()  # type: ignore[no-untyped-call]
    shell.display_pub = frames  # frames are made, and not printed
    ratios = []
    for number in range(chosen.pairs):
        order = (True, False) if number % 2 else (False, True)
        took = {followed: seconds(chosen.orders, followed=followed) for followed in order}
        ratios.append(took[True] / took[False])
        print(f"alone {took[False]:.2f} s, followed {took[True]:.2f} s: {ratios[-1]:.2f}x", flush=True)
    print(f"median of {len(ratios)}: {statistics.median(ratios):.2f}x, frames {len(frames.outputs)}")


if __name__ == "__main__":
    main()
