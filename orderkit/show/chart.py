"""Pictures of a run. One vocabulary for the whole kit: a fate has the same colour and mark wherever it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orderkit.account.tally import AVERAGED, DEAD, SKIPPED
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
INK = "#777777"  # of axes and words: 4.5 to 1 on white, 4.2 to 1 on #111
FORMATS = (".png", ".svg", ".pdf")
SIZE = (8, 4)  # inches: with its controls, a live chart fits on a screen of 1280x720
MARGINS = {"left": 0.1, "right": 0.98, "top": 0.92, "bottom": 0.13, "hspace": 0.1}  # an automatic layout is slow
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


def open_figure(
    heights: Sequence[float] = (1,), margins: Mapping[str, float] | None = None, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """Open a figure with panels of these heights below each other, and so many of them side by side.

    pyplot does not know of it, so that nothing shows or keeps it a second time.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  only pictures need it

    figure = Figure(figsize=SIZE)
    figure.subplots_adjust(**{**MARGINS, **(margins or {})})
    panels = list(
        figure.subplots(
            len(heights), columns, sharex=True, sharey=columns > 1, squeeze=False, height_ratios=heights
        ).flat
    )
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def fit_any_ground(figure: Figure) -> Figure:
    """Let axes and words be read on white as well as on black: they are grey, and the ground is transparent.

    What is written inside a panel keeps its colour; it may lie on a coloured bar.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, which="both")
        axes.spines[:].set_color(INK)
        legend = axes.get_legend()
        words = [*legend.get_texts(), legend.get_title()] if legend else []
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label, *words):
            text.set_color(INK)
    return figure


def every(many: int) -> int:
    """Say how many events share one drawn point."""
    return max(1, -(-many // POINTS))


def draw(ledger: Ledger) -> Figure:
    """Draw a run: the running average, and below it the attempts that failed."""
    from orderkit.show.run_chart import RunChart  # noqa: PLC0415  it needs pandas, too

    return RunChart(ledger).update()


def draw_dead(ledger: Ledger, share: float) -> Figure:
    """Draw the dead letters so far against theory, with the band that 95 of 100 runs stay in at any one point.

    Args:
        ledger: what happened.
        share: of all orders, those that theory says will die.
    """
    figure, (axes,) = open_figure()
    add_dead(axes, ledger, share)
    axes.set_ylabel("dead letters")
    axes.set_xlabel("orders, in the order of their fates")
    axes.set_title(f"{ledger.finished} orders: {ledger.counts[DEAD]} dead, {ledger.finished * share:.1f} expected")
    axes.legend(loc="upper left", frameon=False)
    return figure


def add_dead(axes: Axes, ledger: Ledger, share: float) -> None:
    """Draw them on a panel; where theory does not know the share (NaN), without theory."""
    import numpy as np  # noqa: PLC0415  comes with matplotlib

    from orderkit.account.expected import Expected  # noqa: PLC0415  it needs numpy

    (fate,), _, _ = ledger.rows("fate")
    fates = np.asarray(fate)
    final = fates[np.isin(fates, (AVERAGED, DEAD, SKIPPED))]
    step = every(len(final))
    dead = np.concatenate([[0], np.cumsum(final == DEAD)])[::step]
    orders = np.arange(len(final) + 1)[::step]
    theory = Expected(share)
    if theory.known:
        expected, spread = theory.dead(orders)
        axes.fill_between(orders, expected - spread, expected + spread, color=COLOURS["theory"], alpha=0.2, linewidth=0)
        axes.plot(orders, expected, "--", color=COLOURS["theory"], label="theory")
    axes.plot(orders, dead, color=COLOURS["dead"], label="measured")


def draw_comparison(results: Sequence[Result]) -> Figure:
    """Draw engines side by side: how long healthy orders wait when some keys fail, and when none does."""
    figure, (axes,) = open_figure()
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
