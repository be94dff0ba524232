"""Rounds of contenders: all once, then all once again, so that whatever the machine does meets each of them."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orderkit.bench.contenders import Entry
from orderkit.bench.environments import Missing, command
from orderkit.bench.stage import Result, Stage

LIMIT = 300.0  # seconds for one run; what takes longer counts as hanging
LEAST = 1000  # orders for a slow contender, at least

Told = Callable[[str], object]


@dataclass
class Row:
    """What one contender did in all rounds.

    Args:
        entry: who.
        orders: in each of its runs.
        results: of its good runs, in order.
        wrong: why a run did not count, if one did not.
        absent: why it could not run at all.
    """

    entry: Entry
    orders: int
    results: list[Result] = field(default_factory=list)
    wrong: str | None = None
    absent: str | None = None

    @property
    def rates(self) -> list[float]:
        """Orders a second of each run, if all were right."""
        return [] if self.wrong else [self.orders / result.seconds for result in self.results]

    @property
    def rate(self) -> float:
        """The median rate; 0 if there is none."""
        return statistics.median(self.rates) if self.rates else 0.0

    @property
    def spread(self) -> float:
        """Half the distance from the slowest to the fastest run, as a share of the median."""
        return (max(self.rates) - min(self.rates)) / 2 / self.rate if self.rates else 0.0

    @property
    def cpu(self) -> float:
        """Microseconds of processor time for an order, its process's start included; the median."""
        return statistics.median(result.cpu for result in self.results) / self.orders * 1e6 if self.results else 0.0

    @property
    def memory(self) -> float:
        """Largest resident memory in MB; the median."""
        return statistics.median(result.memory for result in self.results) if self.results else 0.0

    def as_dict(self, reference: float) -> dict[str, Any]:
        """Give the row as JSON has it."""
        return {
            "name": self.entry.contender.name,
            "settings": self.entry.settings,
            "title": self.entry.title,
            "orders": self.orders,
            "rate": round(self.rate),
            "rates": [round(rate) for rate in self.rates],
            "spread": round(self.spread, 3),
            "ratio": round(reference / self.rate, 2) if self.rate else None,
            "cpu_us": round(self.cpu, 2),
            "memory_mb": round(self.memory),
            "wrong": self.wrong,
            "absent": self.absent,
        }


def contest(
    stage: Stage, entries: Sequence[Entry], orders: int, rounds: int, told: Told = lambda _: None, produce: bool = False
) -> list[Row]:
    """Let each contender do the job in each round, and check what it did.

    Args:
        stage: the topics.
        entries: who takes part.
        orders: in one run; slow contenders get a share of them.
        rounds: how often.
        told: called with a line before each run.
        produce: the job is to produce the orders, not to consume them.
    """
    rows = [Row(entry, max(orders // entry.contender.share, min(orders, LEAST))) for entry in entries]
    for row in rows:
        try:
            told(f"{row.entry.title}: making sure that all it needs is there")
            command(row.entry)
        except Missing as error:
            row.absent = str(error)
    for number in range(rounds):
        for row in rows:
            if row.wrong is None and row.absent is None:
                told(f"round {number + 1} of {rounds}: {row.entry.title}")
                (_produce if produce else _consume)(stage, row)
    return rows


def _consume(stage: Stage, row: Row) -> None:
    topic, _ = stage.filled(row.orders)
    letters, group = stage.new_topic("dlq"), f"bench-{uuid.uuid4().hex}"
    arguments = [stage.connection.bootstrap, topic, letters, group, str(row.orders), row.entry.settings]
    result = run(row, arguments)
    if result is not None:
        row.wrong = stage.check(row.orders, group, letters, result)
        row.results.append(result)
    stage.drop(letters)


def _produce(stage: Stage, row: Row) -> None:
    topic = stage.new_topic("produced")
    arguments = [stage.connection.bootstrap, topic, "-", "-", str(row.orders), row.entry.settings]
    result = run(row, arguments)
    if result is not None:
        told = None if result.count == row.orders else f"{result.count:,} acknowledged, not {row.orders:,}"
        row.wrong = told or stage.check_topic(topic, stage.orders(row.orders))
        row.results.append(result)
    stage.drop(topic)


def run(row: Row, arguments: list[str]) -> Result | None:
    """Run a contender's process once; give its result, or note in `row` why there is none."""
    start, environment = command(row.entry)
    text: Any = {"mode": "w+", "encoding": "utf-8", "errors": "replace"}
    with tempfile.TemporaryFile(**text) as out, tempfile.TemporaryFile(**text) as err:
        process = subprocess.Popen([*start, *arguments], stdout=out, stderr=err, env=environment)  # noqa: S603
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        peak = _Peak(process.pid)
        try:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:  # Ctrl-C: the child ends with us
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
            peak.done.set()
        out.seek(0)
        err.seek(0)
        lines = [line for line in out.read().splitlines() if line.startswith("{")]
        complaint = err.read().strip().splitlines()
    if process.returncode or not lines:
        hung = process.returncode == -9
        row.wrong = f"no end after {LIMIT:g} s" if hung else (complaint or [f"exit status {process.returncode}"])[-1]
        return None
    return Result(**{**json.loads(lines[-1]), "cpu": used.ru_utime + used.ru_stime, "memory": peak.megabytes})


class _Peak(threading.Thread):
    """Follows the largest resident memory of a process, where /proc tells it.

    What `wait4` says of it starts at the size of the process that started it, which is us.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0
        self.done = threading.Event()
        self._status = Path(f"/proc/{pid}/status")
        self.start()

    def run(self) -> None:
        """Look until the process has ended."""
        while not self.done.wait(0.1):
            try:
                found = re.search(r"VmHWM:\s*(\d+) kB", self._status.read_text(encoding="utf-8"))
            except OSError:
                return
            if found:
                self.megabytes = int(found[1]) * 1024 / 1e6
