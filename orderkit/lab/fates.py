"""Why orders died, and how long the others stood behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt

import numpy as np

from orderkit.account.tally import AVERAGED, DEAD, SKIPPED
from orderkit.lab.picture import Picture
from orderkit.lab.plots import GREY, legend, panel, theory
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.retry import Permanent, Transient
from orderkit.run import Run
from orderkit.show.chart import COLOURS

HUES = ("#0072B2", "#CC79A7")


def reasons_picture(run: Run, shares: Mapping[str, float]) -> Picture:
    """Draw the dead letters of each reason against theory, with the band of 95 of 100 runs.

    Args:
        run: what happened.
        shares: per reason, the share of all orders that theory says will die of it.
    """
    many, measured = run.ledger.finished, [run.ledger.reasons[reason] for reason in shares]
    told = ", ".join(f"{reason} {dead}" for reason, dead in zip(shares, measured, strict=True))
    figure, axes = panel("reason", "dead letters", f"{many} orders: {told}")
    axes.bar(list(shares), measured, color=COLOURS["dead"], width=0.5, label="measured")
    for i, share in enumerate(shares.values()):
        spread = 2 * sqrt(many * share * (1 - share))
        edge = [i - 0.4, i + 0.4]
        low, high = many * share - spread, many * share + spread
        theory(axes, edge, [many * share] * 2, ([low] * 2, [high] * 2), "theory" if i == 0 else "_")
    legend(axes, "best")
    return Picture(figure)


def progress(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Give the seconds since the first event at which orders got their fate, and how many had one then."""
    (at, fate), _, _ = run.ledger.rows("at", "fate")
    times, fates = np.asarray(at), np.asarray(fate)
    ended = np.sort(times[np.isin(fates, (AVERAGED, DEAD, SKIPPED))])
    return ended - times.min(), np.arange(1, len(ended) + 1)


def planned_retries(orders: Iterable[Order], faults: Faults, attempts: int, *, blind: bool = False) -> int:
    """Count the retries that the fault plan brings, from nothing but the plan.

    Args:
        orders: whose fates are asked.
        faults: the plan.
        attempts: of each order, at the most.
        blind: as if every failure were transient.
    """
    return sum(_retries(order, faults, attempts, blind) for order in orders)


def _retries(order: Order, faults: Faults, attempts: int, blind: bool) -> int:
    if faults.spoil(order["orderId"], b"bytes") != b"bytes":
        return 0
    for attempt in range(1, attempts):
        try:
            faults.strike(order, attempt)
        except Permanent:
            if not blind:
                return attempt - 1
        except Transient:
            pass
        else:
            return attempt - 1
    return attempts - 1


def wait_band(seconds: float) -> tuple[float, float]:
    """Give the least and the most seconds that a run takes whose waits, one after the other, add up to `seconds`."""
    return seconds, 1.2 * seconds + 1.0


def progress_picture(runs: Mapping[str, Run], seconds: Sequence[float]) -> Picture:
    """Draw how orders got their fates over time, and when theory says that each run is done.

    Args:
        runs: a label for each run.
        seconds: for each run, how long its waits are together.
    """
    figure, axes = panel("seconds", "orders with a fate", ", ".join(f"{name}: {one.ledger.retries} retries"
                                                                    for name, one in runs.items()))  # fmt: skip
    for (label, run), hue, planned in zip(runs.items(), HUES, seconds, strict=True):
        x, y = progress(run)
        axes.step(x, y, where="post", color=hue, label=label)
        low, high = wait_band(planned)
        axes.axvspan(low, high, color=GREY, alpha=0.2, linewidth=0)
        axes.axvline(planned, linestyle="--", color=GREY, label="theory: all waits together" if hue == HUES[0] else "_")
    legend(axes, "lower right")
    return Picture(figure)
