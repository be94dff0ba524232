"""Pictures of a run. One vocabulary for the whole kit: a fate has the same colour and mark wherever it is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orderkit.errors import OrderkitError, UsageError
from orderkit.ledger import AVERAGED, DEAD, FATES, SKIPPED, Ledger

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by the colour-blind, on light and on dark ground.
COLOURS = {
    "averaged": "#0072B2",
    "retry": "#E69F00",
    "dead": "#D55E00",
    "skipped": "#999999",
    "replayed": "#009E73",
    "theory": "#7F7F7F",
}
LANES = ("retry", "dead", "skipped")
FORMATS = (".png", ".svg", ".pdf")
SIZE = (8, 4.5)  # inches
MARGINS = {"left": 0.1, "right": 0.98, "top": 0.92, "bottom": 0.12, "hspace": 0.08}  # an automatic layout is slow
POINTS = 10_000  # of a curve are drawn, at most; a screen has fewer columns


def can_save(path: str) -> None:
    """Make sure that a picture can be saved there, before the run and not after it.

    Raises:
        UsageError: an unknown format or a folder that does not exist.
        OrderkitError: matplotlib is not installed.
    """
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise UsageError(f"--chart {path}: the name must end in {', '.join(FORMATS)}.")
    if not file.parent.is_dir():
        raise UsageError(f"--chart {path}: there is no folder {file.parent}.")
    try:
        import matplotlib.figure  # noqa: F401, PLC0415  only pictures need it
    except ImportError:
        raise OrderkitError('Pictures need matplotlib: pip install "orderkit[lab]".') from None


def _figure(rows: int, **layout: Any) -> tuple[Figure, list[Axes]]:
    """Open a figure that pyplot does not know of, so that nothing shows or keeps it a second time."""
    from matplotlib.figure import Figure  # noqa: PLC0415  only pictures need it

    figure = Figure(figsize=SIZE)
    figure.subplots_adjust(**MARGINS)
    all_axes = list(figure.subplots(rows, 1, sharex=True, squeeze=False, **layout)[:, 0])
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, all_axes


def _every(many: int) -> int:
    """Say how many events share one drawn point."""
    return max(1, -(-many // POINTS))


class RunChart:
    """The running average over the fates of the attempts that failed, against the events in order.

    `update` redraws it from a ledger. All events are counted; of a long run, not all are drawn.
    """

    def __init__(self) -> None:
        self.figure, (self._top, low) = _figure(2, height_ratios=[3, 1])
        (self._curve,) = self._top.plot([], [], color=COLOURS["averaged"])
        self._marks = {fate: low.plot([], [], "|", color=COLOURS[fate], markersize=9)[0] for fate in LANES}
        self._top.set_ylabel("running average")
        low.set_yticks([-lane for lane in range(len(LANES))], LANES)
        low.set_ylim(-len(LANES) + 0.4, 0.6)
        low.set_xlabel("delivery attempts, in order")

    def update(self, ledger: Ledger) -> Figure:
        """Redraw from all events so far; safe while the worker appends."""
        import numpy as np  # noqa: PLC0415  comes with matplotlib

        (price, fate), dropped, earlier = ledger.rows("price", "fate")
        fates = np.asarray(fate)
        many, every = len(fates), _every(len(fates))
        averaged = fates == AVERAGED
        at = np.arange(many - 1, -1, -every)[::-1]  # the newest event is always among the drawn
        total = earlier.mean * earlier.count + np.cumsum(np.where(averaged, price, 0.0))[at]
        count = earlier.count + np.cumsum(averaged)[at]
        self._curve.set_data(dropped + at, np.divide(total, count, out=np.full(len(at), np.nan), where=count > 0))
        for lane, (name, marks) in enumerate(self._marks.items()):
            seen = np.unique(np.flatnonzero(fates == FATES.index(name)) // every) * every  # no failure goes unseen
            marks.set_data(dropped + seen, np.full(len(seen), -lane))
        self._top.relim()
        self._top.autoscale_view()
        self._top.set_xlim(dropped - 0.01 * many - 1, dropped + 1.01 * many + 1)
        self._top.set_title(
            f"{ledger.finished} orders: {ledger.counts[AVERAGED]} averaged, {ledger.counts[DEAD]} dead; "
            f"{ledger.retries} retries"
        )
        return self.figure


def draw(ledger: Ledger) -> Figure:
    """Draw a run: the running average, and below it the attempts that failed."""
    return RunChart().update(ledger)


def draw_dead(ledger: Ledger, share: float) -> Figure:
    """Draw the dead letters so far against theory, with the band that 95 of 100 runs stay in at any one point.

    Args:
        ledger: what happened.
        share: of all orders, those that theory says will die.
    """
    import numpy as np  # noqa: PLC0415  comes with matplotlib

    (fate,), _, _ = ledger.rows("fate")
    fates = np.asarray(fate)
    final = fates[np.isin(fates, (AVERAGED, DEAD, SKIPPED))]
    every = _every(len(final))
    dead = np.concatenate([[0], np.cumsum(final == DEAD)])[::every]
    orders = np.arange(len(final) + 1)[::every]
    expected, spread = orders * share, 2 * np.sqrt(orders * share * (1 - share))
    figure, (axes,) = _figure(1)
    axes.fill_between(orders, expected - spread, expected + spread, color=COLOURS["theory"], alpha=0.2, linewidth=0)
    axes.plot(orders, expected, "--", color=COLOURS["theory"], label="theory")
    axes.plot(orders, dead, color=COLOURS["dead"], label="measured")
    axes.set_ylabel("dead letters")
    axes.set_xlabel("orders, in the order of their fates")
    axes.set_title(f"{len(final)} orders: {ledger.counts[DEAD]} dead, {len(final) * share:.1f} expected")
    axes.legend(loc="upper left", frameon=False)
    return figure


def save(ledger: Ledger, path: str) -> None:
    """Save the picture of a run.

    Raises:
        OrderkitError: the file cannot be written.
    """
    try:
        draw(ledger).savefig(path, dpi=120)
    except OSError as error:
        raise OrderkitError(f"--chart {path}: {error.strerror}.") from None
