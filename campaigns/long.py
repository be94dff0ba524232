"""What takes too long for landing: every test that is marked `campaign`, or those of one file, once.

`ORDERKIT_LONG=1` makes some of them longer still: 50 rebalances, 20 restarts of the broker, 100,000 fuzzed records.
"""

from __future__ import annotations

import argparse
import os
import sys

from _proof import pytest, record


def main() -> int:
    """Run them, and note the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="tests/test_notebooks.py, for example; all by default")
    files = parser.parse_args().files
    result = pytest("-n", "2", "--campaign", "-m", "campaign", "-o", "faulthandler_timeout=1200", *files)
    setting = "ORDERKIT_LONG=1 " if os.environ.get("ORDERKIT_LONG") == "1" else ""
    record("long", f"{setting}python campaigns/long.py {' '.join(files)}".strip(), "of each test", str(result))
    return int(bool(result.failed or result.frozen))


if __name__ == "__main__":
    sys.exit(main())
