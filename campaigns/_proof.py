"""What the campaigns share: run pytest many times, count what came of it, and keep the figures in docs/proof.md."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROOF = ROOT / "docs" / "proof.md"
OUTCOME = re.compile(r"(\d+) (passed|failed|skipped|error|rerun)")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", re.MULTILINE)
LATE = re.compile(r"^RERUN (.+?)(?: - .*)?$", re.MULTILINE)
FEW = 4  # names are told of so many tests
FROZEN = re.compile(r"worker '\w+' crashed while running '([^']+)'")


@dataclass
class Result:
    """What came of one run of pytest."""

    minutes: float
    counts: Counter[str]
    failed: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    frozen: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        names = [*self.failed, *(f"{name} (second try)" for name in self.late)]
        more = [f"and {len(names) - FEW} more"] if len(names) > FEW else []
        return "; ".join([f"{told}, {len(self.frozen)} frozen, {self.minutes:.1f} min", *names[:FEW], *more])


def pytest(*arguments: str) -> Result:
    """Run pytest with the real broker required, and count."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=ROOT,
        env={**os.environ, "ORDERKIT_REQUIRE_KAFKA": "1", "ORDERKIT_REQUIRE_BROWSER": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    minutes = (time.monotonic() - start) / 60
    last = done.stdout.strip().splitlines()[-1]
    counts = Counter({what: int(count) for count, what in OUTCOME.findall(last)})
    result = Result(minutes, counts, *(sorted(set(some.findall(done.stdout))) for some in (FAILED, LATE, FROZEN)))
    if done.returncode not in (0, 1) or not counts:
        sys.exit(f"pytest could not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if done.returncode:
        log = ROOT / f"campaign-{time.time():.0f}.log"
        log.write_text(done.stdout + done.stderr)  # a worker's last words are in the second
        print(f"  kept in {log.name}", flush=True)
    return result


def record(campaign: str, command: str, seed: str, figures: str) -> None:
    """Add a row to a campaign's table in docs/proof.md, the newest first."""
    kafka, python = version("confluent-kafka"), platform.python_version()
    row = f"| {date.today()} | confluent-kafka {kafka}, Python {python} | `{command}` | {seed} | {figures} |"
    head, rule, rest = PROOF.read_text().partition(f"## {campaign}\n")
    before, dashes, after = rest.partition("|---|---|---|---|---|\n")
    if not (rule and dashes):
        sys.exit(f"docs/proof.md has no table for {campaign!r}; the row would be:\n{row}")
    PROOF.write_text(f"{head}{rule}{before}{dashes}{row}\n{after}")
    print(row)
