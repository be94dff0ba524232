"""The running average against the truth that the random orders have by their making."""

from __future__ import annotations

from math import sqrt

import numpy as np

from orderkit.lab.picture import Picture
from orderkit.lab.plots import legend, panel, theory
from orderkit.orders.order import PRODUCTS
from orderkit.run import Run
from orderkit.show.chart import COLOURS


def true_mean() -> float:
    """Give the average price that endless random orders tend to: each product is as likely as the next."""
    return sum((low + high) / 2 for low, high in PRODUCTS.values()) / len(PRODUCTS) / 100


def true_spread() -> float:
    """Give the standard deviation of the prices of random orders, in closed form."""
    squares = 0.0
    for low, high in PRODUCTS.values():
        cents = high - low + 1
        squares += (cents**2 - 1) / 12 + (
            (low + high) / 2
        ) ** 2  # variance of a uniform whole number, plus mean squared
    return sqrt(squares / len(PRODUCTS) / 100**2 - true_mean() ** 2)


def funnel(run: Run) -> Picture:
    """Draw the running average of a run in the band of two standard deviations around the truth."""
    frame = run.frame()
    average = frame.loc[frame["fate"] == "averaged", "running_average"].to_numpy()
    n = np.arange(1, len(average) + 1)
    mean, spread = true_mean(), true_spread()
    width = 2 * spread / np.sqrt(n)
    title = f"{len(n)} orders: average {average[-1]:.2f}, theory {mean:.2f} ± {width[-1]:.2f}"
    figure, axes = panel("orders averaged", "average price", title)
    theory(axes, n, np.full(len(n), mean), (mean - width, mean + width), "theory, ± two standard deviations")
    axes.plot(n, average, color=COLOURS["averaged"], label="running average")
    axes.set_xscale("log")
    axes.set_ylim(mean - 1.2 * spread, mean + 1.2 * spread)
    legend(axes, "upper right")
    return Picture(figure)
