"""How long each notebook takes unattended.

    python benchmarks/notebooks.py           # about three minutes; two of them start a real broker
    python benchmarks/notebooks.py 00 12     # only those

Papermill runs them one after the other, with their own parameters. Where others work on the same cores the seconds say
little, so the processor's are there, too: what is left of them is the notebook's own waiting, and the machine's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "notebooks"


def seconds(path: Path, folder: str) -> tuple[float, float]:
    """Run a notebook, the start of its kernel included; give the seconds, and those of the processor."""
    command = [sys.executable, "-m", "papermill", str(path), str(Path(folder) / path.name), "--no-progress-bar"]
    start, worked = time.perf_counter(), os.times()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)  # noqa: S603  our own interpreter
    took, done = time.perf_counter() - start, os.times()
    return took, sum(done[2:4]) - sum(worked[2:4])  # of the children


def main() -> None:
    """Print the seconds of each, their median and their sum."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("number", nargs="*", help="two digits; by default all")
    numbers = tuple(options.parse_args().number) or ("",)
    took = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(path for path in FOLDER.glob("*.ipynb") if path.name.startswith(numbers)):
            whole, processor = seconds(path, folder)
            took.append(whole)
            print(f"{path.stem:40} {whole:5.1f} s, processor {processor:5.1f} s", flush=True)
    print(f"median {statistics.median(took):.1f} s, sum {sum(took):.1f} s")


if __name__ == "__main__":
    main()
