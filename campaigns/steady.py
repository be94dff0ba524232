"""The tests do not waver: all of them, many times, every other time beside a process that takes a core."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from _proof import pytest, record

BUSY = [sys.executable, "-c", "while True: pass"]


def main() -> int:
    """Run the suite so many times, and note the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    os.environ["ORDERKIT_REQUIRE_KAFKA"] = "1"
    results = []
    for number in range(times):
        with subprocess.Popen(BUSY if number % 2 else [sys.executable, "-c", ""]) as busy:
            try:
                results.append(pytest("-n", "4"))
            finally:
                busy.kill()
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
