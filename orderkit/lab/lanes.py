"""Dead letters over time, a lane for each kind: what comes in a spike, and what drips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from orderkit.lab.picture import Picture
from orderkit.lab.plots import GREY, panel
from orderkit.show.chart import COLOURS

HEIGHT = 0.6  # of a lane's highest column, where the lanes are 1 apart
HOUR = pd.Timedelta("1h")


def lanes_picture(letters: pd.DataFrame, by: str) -> Picture:
    """Draw when dead letters were written, hour by hour, in a lane for each kind; each lane has a scale of its own.

    Args:
        letters: a row for each, as `dead_letter_frame` gives it.
        by: the column that says which kind it is.
    """
    written = letters["written"]
    first, last = written.min().floor("h"), written.max().floor("h") + HOUR
    edges = np.arange((last - first) // HOUR + 1)
    lanes = sorted(letters.groupby(by, observed=True)["written"], key=lambda lane: lane[1].median(), reverse=True)
    figure, axes = panel("", "", f"{len(letters):,} dead letters, hour by hour", left=0.04, right=0.98)
    for lane, (name, times) in enumerate(lanes):
        many = np.histogram((times - first) // HOUR, edges)[0]
        heights = HEIGHT * many / max(1, many.max())
        axes.stairs(lane + heights, edges, baseline=lane, fill=True, color=COLOURS["dead"])
        told = f"{name}  ({len(times):,}, at most {many.max():,} in an hour)"
        axes.text(0, lane + HEIGHT + 0.06, told, color=GREY, fontsize=8)
    days: Any = pd.date_range(first.ceil("D"), last.floor("D"), freq="D")
    axes.set_xticks((days - first) / HOUR, [f"{day:%a %d %b}" for day in days])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return Picture(figure)
