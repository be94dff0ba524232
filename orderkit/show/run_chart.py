"""The picture of a run: the running average, the dead beside theory, and the attempts that failed, on one axis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from orderkit.account.expected import Change, Expected
from orderkit.account.frames import LiveFrame
from orderkit.account.tally import AVERAGED, DEAD, FATES, RETRY, SKIPPED
from orderkit.ledger import Ledger
from orderkit.show.chart import COLOURS, INK, every, open_figure

LABELS = 3  # changes that are named, each in a row of its own; of older ones only the line stays
SMALL = 8  # points
FEW = 20  # events that the axis has room for, at the least


class RunChart:
    """The running average over the fates of the attempts that failed, against the events in order.

    `update` redraws it from the ledger's frame. All events are counted; of a long run, not all are drawn.

    Args:
        ledger: whose events.
        expected: what theory says of the dead; with it there is a panel for them, and a line at each change.
        skips: whether orders may be skipped; their lane is there when some were, too.
    """

    def __init__(self, ledger: Ledger, expected: Expected | None = None, *, skips: bool = False) -> None:
        self._ledger, self._live, self._expected = ledger, LiveFrame(ledger), expected
        self.figure, axes = open_figure([5, 3, 2] if expected else [3, 1])
        self._top, self._low = axes[0], axes[-1]
        (self._curve,) = self._top.plot([], [], color=COLOURS["averaged"])
        self._top.set_ylabel("running average")
        self._deaths = _Deaths(axes[1], expected) if expected else None
        self._lanes = [RETRY, DEAD, *([SKIPPED] if skips or ledger.counts[SKIPPED] else [])]
        self._marks = [self._low.plot([], [], "|", color=COLOURS[FATES[fate]], markersize=9)[0] for fate in self._lanes]
        self._low.set_ylim(-len(self._lanes) + 0.4, 0.6)
        self._low.set_xlabel("delivery attempts, in order")
        self._named = 1  # changes that have their line; the first is the start
        self._labels: list[tuple[Change, Any]] = []
        self._moves = 0  # labels so far
        for panel in axes:
            panel.yaxis.set_major_locator(MaxNLocator(4, integer=panel is not self._top))
        self._axes = axes
        self._top.set_ylim(0, 100)  # until there is something to see

    def update(self, state: str = "", in_flight: int = 0) -> Figure:
        """Redraw from all events so far; safe while the worker appends.

        Args:
            state: a word for the beginning of the title.
            in_flight: orders that were produced and have no fate yet.
        """
        frame = self._live.update()
        fates, first = frame["fate"].cat.codes.to_numpy(), int(frame["seq"].iloc[0]) if len(frame) else 0
        many, step = len(fates), every(len(fates))
        at = np.arange(many - 1, -1, -step)[::-1]  # the newest event is always among the drawn
        self._curve.set_data(first + at, frame["running_average"].to_numpy()[at])
        for lane, (fate, marks) in enumerate(zip(self._lanes, self._marks, strict=True)):
            has_one = np.zeros(-(-many // step), bool)  # of a stretch that shares a mark; no failure goes unseen
            has_one[np.flatnonzero(fates == fate) // step] = True
            seen = np.flatnonzero(has_one) * step
            marks.set_data(first + seen, np.full(len(seen), -lane))
        if self._deaths:
            self._deaths.update(first, at, fates, self._ledger)
        self._name_changes()
        self._write(state, in_flight)
        self._fit(frame["running_average"].to_numpy()[at])
        wide = max(many, FEW)
        self._top.set_xlim(first - 0.01 * wide, first + 1.01 * wide)
        return self.figure

    def _fit(self, averages: Any) -> None:
        """Let the curve fill its panel, below the names of the changes."""
        if np.isfinite(averages).any():
            low, high = np.nanmin(averages), np.nanmax(averages)
            room = max(high - low, 0.01 * high, 0.01)
            self._top.set_ylim(low - 0.08 * room, high + (0.5 if self._labels else 0.08) * room)

    def _write(self, state: str, in_flight: int) -> None:
        """Put the counts where they belong: in the title, and beside the lanes."""
        ledger = self._ledger
        names = [f"{FATES[fate]} {ledger.counts[fate]}" for fate in self._lanes]
        self._low.set_yticks([-lane for lane in range(len(names))], names, fontsize=SMALL + 1)
        told = (
            f"{ledger.finished} orders: {ledger.counts[AVERAGED]} averaged, {ledger.counts[DEAD]} dead; "
            f"{ledger.retries} retries"
        )
        told = f"{state} · {told}" if state else told
        told = f"{told}; {in_flight} in flight" if in_flight > 0 else told
        self._top.set_title(told, y=1.0, fontsize=11)  # without y, a sixth of the time goes into looking for a place

    def _name_changes(self) -> None:
        """Draw a line through all panels for each change that has none yet, and say what it was."""
        changes: list[Change] = self._expected.changes if self._expected else []
        for change in changes[self._named :]:
            if (
                change.further and self._labels
            ):  # one hand on one slider is one change, from its first value to its last
                first, label = self._labels[-1]
                label.set_text(f" {replace(first, new=change.new).told} ")
                continue
            for panel in self._axes:
                panel.axvline(change.event, color=COLOURS["theory"], linewidth=0.8, linestyle=":")
            self._labels.append((change, self._label(change, self._moves % LABELS)))
            self._moves += 1
        self._named = len(changes)
        while len(self._labels) > LABELS:
            self._labels.pop(0)[1].remove()
        right = self._ledger.dropped + 0.55 * len(self._ledger)
        for _, label in self._labels:  # it lies on the side where there is room
            label.set_horizontalalignment("right" if label.get_position()[0] > right else "left")

    def _label(self, change: Change, row: int) -> Any:
        return self._top.text(
            change.event, 0.97 - 0.11 * row, f" {change.told} ", transform=self._top.get_xaxis_transform(),
            va="top", fontsize=SMALL, color=COLOURS["theory"],
        )  # fmt: skip


class _Deaths:
    """The panel with the dead so far, and what theory expects, with the band that 95 of 100 runs stay in.

    Args:
        axes: where.
        expected: what theory says.
    """

    def __init__(self, axes: Axes, expected: Expected) -> None:
        self._axes, self._expected = axes, expected
        self._band = axes.fill_between([], [], [], color=COLOURS["theory"], alpha=0.25, linewidth=0)
        (self._theory,) = axes.plot([], [], "--", color=COLOURS["theory"])
        (self._measured,) = axes.plot([], [], color=COLOURS["dead"])
        axes.set_ylabel("dead")
        axes.set_ylim(0, 4)
        self._told = axes.text(0.01, 0.92, "", transform=axes.transAxes, va="top", fontsize=SMALL, color=INK)

    def update(self, first: int, at: Any, fates: Any, ledger: Ledger) -> None:
        """Redraw from the events at some places; those dropped before them count as well."""
        final = np.isin(fates, (AVERAGED, DEAD, SKIPPED))
        earlier = ledger.finished - int(np.count_nonzero(final))
        orders = max(0, earlier) + np.cumsum(final)[at]
        dead = max(0, ledger.counts[DEAD] - int(np.count_nonzero(fates == DEAD))) + np.cumsum(fates == DEAD)[at]
        mean, band = self._expected.dead(orders)
        self._band.set_data(first + at, np.maximum(0, mean - band), mean + band)
        self._theory.set_data(first + at, mean)
        self._measured.set_data(first + at, dead)
        if len(at):
            self._axes.set_ylim(0, 1.1 * np.nanmax([4, dead[-1], (mean + band)[-1]]))
            told = f"expected {mean[-1]:.1f} ± {band[-1]:.1f}, " if self._expected.known else ""
            self._told.set_text(f"{told}measured {dead[-1]}")
