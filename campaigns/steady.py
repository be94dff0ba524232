"""The tests do not waver: all of them, many times, every other time beside a process that takes a core."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from _proof import pytest, record


@contextmanager
def beside_a_busy_process() -> Iterator[None]:
    """Let another process take a core for as long as the block runs."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            yield
        finally:
            busy.kill()


def main() -> int:
    """Run the suite so many times, and note the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    results = []
    for number in range(times):
        with beside_a_busy_process() if number % 2 else nullcontext():
            results.append(pytest("-n", "5"))
        print(f"{number + 1} {'busy' if number % 2 else 'calm'}: {results[-1]}", flush=True)
    green = sum(not result.failed for result in results)
    names = sorted({name for result in results for name in (*result.failed, *result.late, *result.frozen)})
    minutes = [f"{max(r.minutes for r in some):.1f}" for some in (results[::2], results[1::2]) if some]
    figures = f"{green} of {times} green; at most {' min, busy '.join(minutes)} min; failed or late: "
    record(
        "steady", f"python campaigns/steady.py --times {times}", "of each test", figures + (", ".join(names) or "none")
    )
    return int(green < times)


if __name__ == "__main__":
    sys.exit(main())
