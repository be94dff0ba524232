"""The kit's way to draw: theory is dashed grey with its band, and measurement has the colour of its fate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from orderkit.show.chart import COLOURS, open_figure

GREY = COLOURS["theory"]
# For lines that are no fates: the palette's colours that no fate has.
LINES = ("#0072B2", "#CC79A7", "#009E73", "#E69F00", "#56B4E9", "#D55E00")


def panel(xlabel: str, ylabel: str, title: str, **layout: float) -> tuple[Figure, Axes]:
    """Open a figure with one panel. pyplot takes no part."""
    figure, (axes,) = open_figure(margins=layout)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    return figure, axes


def columns(names: Sequence[str], xlabel: str, ylabel: str, **layout: float) -> tuple[Figure, list[Axes]]:
    """Open a figure with a panel for each name, side by side on the same scales. pyplot takes no part."""
    figure, panels = open_figure(margins={"wspace": 0.08, **layout}, columns=len(names))
    for axes, name in zip(panels, names, strict=True):
        axes.set(xlabel=xlabel, title=name)
    panels[0].set_ylabel(ylabel)
    return figure, panels


def theory(axes: Axes, x: ArrayLike, y: ArrayLike, band: tuple[Any, Any] | None = None, label: str = "theory") -> None:
    """Draw what theory says: a dashed line and, if given, the lower and the upper edge of its band."""
    if band is not None:
        axes.fill_between(np.asarray(x), *band, color=GREY, alpha=0.2, linewidth=0)
    axes.plot(np.asarray(x), np.asarray(y), "--", color=GREY, label=label)


def legend(axes: Axes, place: Any = "best") -> None:
    """Say what is what."""
    axes.legend(loc=place, frameon=False)
