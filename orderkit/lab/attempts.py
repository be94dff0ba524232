"""How many attempts are made, and how many orders fail them all: a geometric series, counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orderkit.account.tally import AVERAGED, DEAD, RETRY
from orderkit.lab.picture import Picture
from orderkit.lab.plots import legend, panel, theory
from orderkit.run import Run
from orderkit.show.chart import COLOURS


def attempts_made(run: Run) -> list[int]:
    """Count the first attempts, the second attempts, and so on, from the ledger."""
    (attempt, fate), _, _ = run.ledger.rows("attempt", "fate")
    real = np.isin(np.asarray(fate), (AVERAGED, RETRY, DEAD))
    return [int(many) for many in np.bincount(np.asarray(attempt)[real])[1:]]


def attempts_picture(run: Run, expected: Sequence[float]) -> Picture:
    """Draw how many orders came to their first, second, ... attempt, against theory and the band of 95 of 100 runs.

    Args:
        run: what happened.
        expected: what theory says, from the first attempt on; the last number is of those who fail them all.
    """
    made = [*attempts_made(run), run.ledger.counts[DEAD]]
    made[:-1] = (made[:-1] + [0] * len(expected))[: len(expected) - 1]
    x, share = range(1, len(made) + 1), np.array(expected) / expected[0]
    spread = 2 * np.sqrt(expected[0] * share * (1 - share))
    told = f"{sum(made[:-1])} attempts, {sum(expected[:-1]):.0f} expected"
    figure, axes = panel("attempt", "orders that came so far", told)
    colours = [COLOURS["retry"]] * (len(made) - 1) + [COLOURS["dead"]]
    axes.bar(x, made, color=colours, width=0.6, label="measured")
    theory(axes, x, list(expected), (expected - spread, expected + spread), "theory")
    axes.set_xticks(x, [*map(str, x[:-1]), "dead"])
    legend(axes, "upper right")
    return Picture(figure)


def heat_map(
    values: Sequence[Sequence[float]],
    down: Sequence[object],
    across: Sequence[object],
    title: str,
    xlabel: str,
    ylabel: str,
    expected: Sequence[Sequence[float]] | None = None,
) -> Picture:
    """Draw a table of numbers as a heat map, each number in its field, and in brackets what theory says.

    Args:
        values: a row for each of `down`, in it a number for each of `across`; NaN stays empty.
        down: labels of the rows.
        across: labels of the columns.
        title: what the numbers are.
        xlabel: what the columns are.
        ylabel: what the rows are.
        expected: of the same shape.
    """
    field = np.asarray(values, dtype=float)
    figure, axes = panel(xlabel, ylabel, title)
    image = axes.imshow(field, aspect="auto", cmap="cividis", origin="lower")
    middle = (np.nanmin(field) + np.nanmax(field)) / 2 if np.isfinite(field).any() else 0.0
    for (row, column), value in np.ndenumerate(field):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            told = f"{value:.3g}" if expected is None else f"{value:.3g}\n({expected[row][column]:.3g})"
            axes.text(column, row, told, ha="center", va="center", color=colour)
    axes.set_xticks(range(len(across)), [str(name) for name in across])
    axes.set_yticks(range(len(down)), [str(name) for name in down])
    figure.colorbar(image, ax=axes, pad=0.02)
    return Picture(figure)
