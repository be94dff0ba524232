"""A member always leaves its group: members come and go at random, many times, on a crowded machine.

By default 1,000 times on the embedded broker, 100 times on real Kafka, and Ctrl-C in the middle of it 50 times.
"""

from __future__ import annotations

import argparse
import sys

from _proof import pytest, record

KINDS = {  # how many at once, and which test
    "embedded": (6, "tests/test_rebalance.py", "come_and_go and embedded"),
    "apache": (3, "tests/test_rebalance.py", "come_and_go and apache"),
    "ctrl-c": (4, "tests/test_cli.py", "ctrl_c_while_another_member_joins"),
}


def main() -> int:
    """Run each kind so many times, and note the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, often in zip(KINDS, (1000, 100, 50), strict=True):
        parser.add_argument(f"--{kind}", type=int, default=often, metavar="TIMES", dest=kind)
    given = vars(parser.parse_args())
    told, bad = [], False
    for kind, (workers, file, test) in KINDS.items():
        if often := given[kind]:
            # A frozen test is ended after a minute here; a second try would hide what is looked for.
            alone = ("--reruns", "0", "-o", "faulthandler_timeout=60")
            result = pytest("-n", str(workers), "--count", str(often), *alone, file, "-k", test)
            told.append(f"{kind}: {result}")
            print(told[-1], flush=True)
            bad |= bool(result.failed or result.frozen)
    record("leave", " ".join(["python campaigns/leave.py", *sys.argv[1:]]), "4, and chance", "; ".join(told))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
