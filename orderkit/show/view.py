"""The live view on a terminal. It only reads what producer, consumer and ledger already keep."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orderkit.account.average import RunningAverage
from orderkit.consuming.loop import Loop
from orderkit.producer import OrderProducer, Produced
from orderkit.run import Run
from orderkit.show.printable import printable

PLOT_WIDTH, PLOT_HEIGHT = 60, 6
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " ..::||##"  # the same, where only letters can be printed
FRAMES = 8  # a second


def plot(values: list[float], width: int = PLOT_WIDTH, height: int = PLOT_HEIGHT, blocks: str = BLOCKS) -> list[str]:
    """Draw values as a filled curve of characters; the lowest value sits on the floor, the highest at the top.

    Args:
        values: what to draw.
        width: of the picture, in characters.
        height: of the picture, in lines.
        blocks: nine of them, from an empty one to a full one.
    """
    if not values:
        return [" " * width] * height
    columns = [values[i * len(values) // width] for i in range(width)] if len(values) > width else values
    low, high = min(columns), max(columns)
    steps = height * (len(blocks) - 1)
    levels = [1 + round((value - low) / (high - low or 1) * (steps - 1)) for value in columns]
    rows = []
    for row in reversed(range(height)):
        filled = (level - row * (len(blocks) - 1) for level in levels)
        rows.append("".join(blocks[max(0, min(len(blocks) - 1, part))] for part in filled))
    return rows


class View:
    """Progress, running average, fates, and what is being retried.

    Args:
        consumer: whose work to show.
        produced: the producer's count, when it is in this process.
        total: how many orders there will be, if that is known.
    """

    ascii_only = False  # what the terminal can print

    def __init__(self, consumer: Loop, produced: Produced | None = None, total: int | None = None) -> None:
        self._consumer = consumer
        self._produced = produced
        self._total = total
        self._means: list[float] = []
        self._latest = RunningAverage()

    def render(self) -> RenderableType:
        """Draw one frame."""
        ledger = self._consumer.ledger
        parts: list[RenderableType] = []
        if self._total:
            bar = Table.grid(padding=(0, 1))
            for _ in range(2):
                bar.add_column(overflow="fold")  # an ellipsis is not for every terminal
            bar.add_row(
                ProgressBar(total=self._total, completed=ledger.finished, width=PLOT_WIDTH - 8), f"{ledger.finished}"
            )
            parts.append(bar)
        parts += [self._fates(), *self._average(), self._waiting()]
        if trouble := self._consumer.trouble:
            parts.append(Text(printable(trouble), style="bold yellow"))
        return Panel(Group(*parts), title="orderkit", width=PLOT_WIDTH + 14)

    def _fates(self) -> Text:
        ledger = self._consumer.ledger
        averaged, retries, dead, skipped, _ = ledger.counts
        cells = [f"[blue]averaged {averaged}", f"[yellow]retries {retries}", f"[red]dead {dead}"]
        if skipped:
            cells.append(f"skipped {skipped}")
        if self._produced is not None:
            cells.insert(0, f"produced {self._produced.acknowledged}")
        return Text("  ", overflow="fold").join(map(Text.from_markup, cells))

    def _average(self) -> list[RenderableType]:
        """Draw the running average, a point for each frame in which it moved."""
        average = RunningAverage()
        for part in list(self._consumer.member.parts.values()):
            average = average.merge(part.average)
        if average.count > self._latest.count:  # a partition that was given back takes its part along
            self._means.append(average.mean)
            self._latest = average
        if not self._means:
            return [Text("running average: waiting for the first order")]
        recent = self._means[-4 * PLOT_WIDTH :]
        rows = [Text(row, style="blue") for row in plot(recent, blocks=ASCII if self.ascii_only else BLOCKS)]
        low, high = min(recent), max(recent)
        caption = Text(
            f"running average {self._latest.rounded(2)}  ({low:.2f} to {high:.2f}, {self._latest.count} orders)"
        )
        return [*rows, caption]

    def _waiting(self) -> Text:
        now = time.monotonic()
        told = []
        for part in list(self._consumer.member.parts.values()):
            for offset, history in list(part.failed.items()):
                left = max(0.0, part.next_due() - now)
                told.append(f"{part}@{offset} attempt {history.attempts + 1} in {left:.2f} s")
        text = printable("waiting: " + (", ".join(told) or "nothing"))
        return Text(text, style="dim", no_wrap=True, overflow="crop" if self.ascii_only else "ellipsis")


@contextmanager
def _shown(view: View | None) -> Iterator[None]:
    if view is None or not sys.stdout.isatty():
        yield
        return
    console = Console()
    view.ascii_only = console.options.ascii_only
    with Live(get_renderable=view.render, refresh_per_second=FRAMES, console=console, screen=False):
        yield


def follow(run: Run, live: bool) -> None:
    """Wait until a started run is over, and show it meanwhile if `live`."""
    view = View(run.consumer, run.produced, run.orders) if live else None
    with _shown(view):
        while run.alive:
            run.join(0.1)


@contextmanager
def consuming(consumer: Loop, total: int | None, quiet: bool) -> Iterator[None]:
    """Show a consumer at work while the block runs; in a pipe, or when `quiet`, nothing."""
    with _shown(None if quiet else View(consumer, total=total)):
        yield


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
