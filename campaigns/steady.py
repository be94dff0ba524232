"""The tests do not waver: all of them, many times, every other time beside a process that takes a core."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from _proof import Result, pytest, record


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
    parser.add_argument("--busy", action="store_true", help="every run beside such a process, not every other")
    options = parser.parse_args()
    times = options.times
    calm, busy = list[Result](), list[Result]()
    for number in range(times):
        beside = options.busy or number % 2
        with beside_a_busy_process() if beside else nullcontext():
            result = pytest("-n", "5")
        (busy if beside else calm).append(result)
        print(f"{number + 1} {'busy' if beside else 'calm'}: {result}", flush=True)
    results = calm + busy
    green = sum(not result.failed for result in results)
    names = sorted({name for result in results for name in (*result.failed, *result.late, *result.frozen)})
    minutes = [f"{word}{max(r.minutes for r in some):.1f} min" for word, some in (("", calm), ("busy ", busy)) if some]
    figures = f"{green} of {times} green; at most {', '.join(minutes)}; failed or late: {', '.join(names) or 'none'}"
    command = f"python campaigns/steady.py --times {times}{' --busy' if options.busy else ''}"
    record("steady", command, "of each test", figures)
    return int(green < times)


if __name__ == "__main__":
    sys.exit(main())
