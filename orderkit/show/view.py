"""The live view on a terminal. It only reads what producer, consumer and ledger already keep."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orderkit.account.report import Report
from orderkit.account.tally import AVERAGED, DEAD, RETRY, SKIPPED
from orderkit.consuming.loop import Loop
from orderkit.producer import OrderProducer, Produced
from orderkit.run import Run
from orderkit.show.course import Course, Holdings
from orderkit.show.plot import ASCII, ASCII_MARK, BLOCKS, HEIGHT, MARK, columns, lane, plot
from orderkit.show.printable import printable

FRAMES = 8  # a second
NARROWEST = 24  # characters: what is narrower is folded
COLOURS = {"averaged": "blue", "retry": "yellow", "dead": "red"}


@dataclass(frozen=True)
class Numbers:
    """All that a frame says in numbers; while a run goes on it counts them itself, and at the end the report has."""

    averaged: int
    retries: int
    dead: int
    skipped: int
    average: str
    count: int
    made: tuple[str, int] | None  # "produced" or "taken", and how many

    @property
    def finished(self) -> int:
        """Orders that are done with."""
        return self.averaged + self.dead + self.skipped


class View:
    """Progress, running average, fates, and what is being retried.

    Args:
        consumer: whose work to show.
        produced: the producer's count, when it is in this process.
        total: how many orders there will be, if that is known.
        hidden: a run's id, that its names end in: left out.
    """

    def __init__(
        self, consumer: Loop, produced: Produced | None = None, total: int | None = None, hidden: str = ""
    ) -> None:
        self.report: Report | None = None  # when there is one, it has the last word
        self.console = Console()
        self._consumer = consumer
        self._produced = produced
        self._total = total
        self._hidden = hidden
        self._course = Course(consumer.ledger)
        self._holdings = Holdings()

    def render(self) -> RenderableType:
        """Draw one frame."""
        consumer = self._consumer
        self._holdings.look((consumer.gave_back | consumer.member.parts).values())
        self._course.follow(self._holdings.inherited)
        numbers = self._numbers()
        width = max(NARROWEST, self.console.width)
        parts = [*self._progress(numbers, width - 4), self._fates(numbers), *self._picture(numbers, width - 4)]
        if self.report is None:
            parts.append(self._waiting())
        if trouble := self._consumer.trouble:
            parts.append(Text(self._named(trouble), style="bold yellow"))
        return Panel(Group(*parts), title="orderkit", width=width)

    def _numbers(self) -> Numbers:
        report, counts = self.report, self._consumer.ledger.counts
        if report is not None:
            return Numbers(
                report.averaged, report.retries, report.dead, report.skipped,
                report.average, report.count, (report.counted, report.produced),
            )  # fmt: skip
        average, made = self._holdings.average, self._produced
        own = counts[AVERAGED] if self._holdings.inherited.count else average.count
        produced = None if made is None else ("produced", made.acknowledged)
        return Numbers(
            own, counts[RETRY], counts[DEAD], counts[SKIPPED], average.rounded(), average.count, produced
        )  # fmt: skip

    def _progress(self, numbers: Numbers, width: int) -> list[RenderableType]:
        if not self._total:
            return []
        told = f"{numbers.finished} of {self._total}"
        bar = Table.grid(padding=(0, 1))
        for _ in range(2):
            bar.add_column(overflow="fold")  # an ellipsis is not for every terminal
        bar.add_row(
            ProgressBar(total=self._total, completed=numbers.finished, width=max(1, width - len(told) - 2)), told
        )
        return [bar]

    def _fates(self, numbers: Numbers) -> Text:
        cells = [
            ("averaged", numbers.averaged, COLOURS["averaged"]),
            ("retries", numbers.retries, COLOURS["retry"]),
            ("dead", numbers.dead, COLOURS["dead"]),
        ]
        if numbers.skipped:
            cells.append(("skipped", numbers.skipped, ""))
        if numbers.made:
            cells.insert(0, (*numbers.made, ""))
        return Text("  ", overflow="fold").join(Text(f"{name} {many}", style=style) for name, many, style in cells)

    def _picture(self, numbers: Numbers, width: int) -> list[RenderableType]:
        """Draw the running average with its scale, and lanes below it for attempts that failed."""
        points, ascii_only = self._course.points, self.console.options.ascii_only
        told = f"running average {numbers.average} over {numbers.count} orders"
        if not points or not points[-1].orders:
            return [Text(told if numbers.count else "running average: waiting for the first order")]
        side = max(len("retry"), *(len(f"{point.mean or 0.0:.2f}") for point in points)) + 1
        shown = columns(points, max(1, width - side), self._total)
        labels = [f"{max(shown.means):.2f}", *[""] * (HEIGHT - 2), f"{min(shown.means):.2f}"]
        rows = plot(shown.means, blocks=ASCII if ascii_only else BLOCKS)
        lines = [(label, row, COLOURS["averaged"]) for label, row in zip(labels, rows, strict=True)]
        mark = ASCII_MARK if ascii_only else MARK
        lines += [
            ("retry", lane(shown.retried, width - side, mark), COLOURS["retry"]),
            ("dead", lane(shown.died, width - side, mark), COLOURS["dead"]),
        ]
        drawn: list[RenderableType] = [
            Text.assemble((label.rjust(side - 1) + " ", "dim"), (row, style)) for label, row, style in lines
        ]
        return [*drawn, Text(told)]

    def _waiting(self) -> Text:
        now = time.monotonic()
        told = []
        for part in list(self._consumer.member.parts.values()):
            for offset, history in list(part.failed.items()):
                left = max(0.0, part.next_due() - now)
                told.append(f"{part}@{offset} attempt {history.attempts + 1} in {left:.2f} s")
        text = self._named("waiting: " + (", ".join(told) or "nothing"))
        return Text(text, style="dim", no_wrap=True, overflow="crop" if self.console.options.ascii_only else "ellipsis")

    def _named(self, text: str) -> str:
        return printable(text.replace(self._hidden, "") if self._hidden else text)


@contextmanager
def shown(view: View | None) -> Iterator[None]:
    """Show a view while the block runs, and its last frame when it ends; `None` shows nothing."""
    if view is None:
        yield
        return
    with Live(get_renderable=view.render, refresh_per_second=FRAMES, console=view.console, screen=False):
        yield


def run_view(run: Run, quiet: bool) -> View | None:
    """Make the view of a run; in a pipe, or when `quiet`, there is none."""
    if quiet or not sys.stdout.isatty():
        return None
    return View(run.consumer, run.produced, run.orders, hidden=f".{run.name}")


def consumer_view(consumer: Loop, total: int | None, quiet: bool) -> View | None:
    """Make the view of a consumer; in a pipe, or when `quiet`, there is none."""
    return None if quiet or not sys.stdout.isatty() else View(consumer, total=total)


@contextmanager
def producing(producer: OrderProducer, total: int | None, quiet: bool) -> Iterator[None]:
    """Show a producer's count while the block runs; in a pipe, or when `quiet`, nothing."""
    if quiet or not sys.stdout.isatty():
        yield
        return
    of = "" if total is None else f" of {total}"

    def line() -> Text:
        return Text(f"{producer.produced.acknowledged}{of} orders acknowledged; Ctrl-C ends it")

    with Live(get_renderable=line, refresh_per_second=FRAMES, transient=True):
        yield
