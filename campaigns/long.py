"""What takes too long for landing: every test that is marked `campaign`, or those of one file, once."""

from __future__ import annotations

import argparse
import sys

from _proof import pytest, record


def main() -> int:
    """Run them, and note the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="tests/test_notebooks.py, for example; all by default")
    files = parser.parse_args().files
    result = pytest("-n", "2", "--campaign", "-m", "campaign", *files)
    record("long", f"python campaigns/long.py {' '.join(files)}".strip(), "of each test", str(result))
    return int(bool(result.failed or result.frozen))


if __name__ == "__main__":
    sys.exit(main())
