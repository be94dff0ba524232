"""Pictures of a run. One vocabulary for the whole kit: a fate has the same colour and mark wherever it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orderkit.account.tally import AVERAGED, DEAD, FATES, SKIPPED
from orderkit.errors import OrderkitError, UsageError
from orderkit.ledger import Ledger

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orderkit.comparison import Result

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
POINTS = 2_000  # of a curve are drawn, at most; the picture has fewer columns


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


def _sums(values: Any, at: Any) -> Any:
    """Give the sums of all values up to and with each place; adding up blocks is quicker than a sum at every place."""
    import numpy as np  # noqa: PLC0415  comes with matplotlib

    starts = np.concatenate([[0], at[:-1] + 1]) if len(at) else at
    return np.cumsum(np.add.reduceat(values, starts, dtype=float)) if len(at) else np.zeros(0)


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
        prices = np.asarray(price)  # a copy is ours to write in
        prices[~averaged] = 0.0
        total = earlier.mean * earlier.count + _sums(prices, at)
        count = earlier.count + _sums(averaged, at)
        self._curve.set_data(dropped + at, np.divide(total, count, out=np.full(len(at), np.nan), where=count > 0))
        for lane, (name, marks) in enumerate(self._marks.items()):
            has_one = np.zeros(-(-many // every), bool)  # of a stretch that shares a mark; no failure goes unseen
            has_one[np.flatnonzero(fates == FATES.index(name)) // every] = True
            seen = np.flatnonzero(has_one) * every
            marks.set_data(dropped + seen, np.full(len(seen), -lane))
        self._top.relim()
        self._top.autoscale_view()
        self._top.set_xlim(dropped - 0.01 * many - 1, dropped + 1.01 * many + 1)
        self._top.set_title(
            f"{ledger.finished} orders: {ledger.counts[AVERAGED]} averaged, {ledger.counts[DEAD]} dead; "
            f"{ledger.retries} retries",
            y=1.0,  # or a sixth of the frame's time goes into looking for a place
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


def draw_comparison(results: Sequence[Result]) -> Figure:
    """Draw engines side by side: how long healthy orders wait when some keys fail, and when none does."""
    figure, (axes,) = _figure(1)
    figure.subplots_adjust(left=0.18)
    rows = range(len(results))
    axes.barh([row - 0.2 for row in rows], [r.calm_p99 for r in results], 0.38, color=COLOURS["averaged"], label="none")
    axes.barh(
        [row + 0.2 for row in rows], [r.wait_p99 for r in results], 0.38, color=COLOURS["retry"], label="some keys"
    )
    for row, result in zip(rows, results, strict=True):
        told = f" {result.wait_p99:,.0f} ms, {result.inversions} out of order, {result.records:.2f} records"
        axes.annotate(told, (result.wait_p99, row + 0.2), va="center", fontsize=8)
    axes.set_yticks(list(rows), [result.engine for result in results])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(1, 20 * max(result.wait_p99 for result in results))  # room for the words
    axes.set_xlabel("p99 wait of orders that do not fail, milliseconds")
    axes.set_title("What a failing key costs the others")
    axes.legend(title="failing", loc="lower right", frameon=False)
    return figure


def save_comparison(results: Sequence[Result], path: str) -> None:
    """Save the picture of a comparison.

    Raises:
        OrderkitError: the file cannot be written.
    """
    _save(draw_comparison(results), path)


def save(ledger: Ledger, path: str) -> None:
    """Save the picture of a run.

    Raises:
        OrderkitError: the file cannot be written.
    """
    _save(draw(ledger), path)


def _save(figure: Figure, path: str) -> None:
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise OrderkitError(f"--chart {path}: {error.strerror}.") from None
