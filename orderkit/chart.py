"""Pictures of a run. One vocabulary for the whole kit: a fate has the same colour and mark wherever it is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orderkit.errors import OrderkitError, UsageError
from orderkit.ledger import Ledger

if TYPE_CHECKING:
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
        import pandas as pd  # noqa: F401, PLC0415
    except ImportError:
        raise OrderkitError('Pictures need matplotlib and pandas: pip install "orderkit[lab]".') from None


def draw(ledger: Ledger) -> Figure:
    """Draw the running average over the fates of the attempts that failed, against the events in order."""
    from matplotlib.figure import Figure  # noqa: PLC0415  only pictures need it

    frame = ledger.frame()
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    top, low = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    top.plot(frame["seq"], frame["running_average"], color=COLOURS["averaged"])
    top.set_ylabel("running average")
    top.set_title(
        f"{ledger.finished} orders: {ledger.counts[0]} averaged, {ledger.counts[2]} dead; {ledger.retries} retries"
    )
    for lane, fate in enumerate(LANES):
        at = frame.loc[frame["fate"] == fate, "seq"]
        low.plot(at, [-lane] * len(at), "|", color=COLOURS[fate], markersize=9)
    low.set_yticks([-lane for lane in range(len(LANES))], LANES)
    low.set_ylim(-len(LANES) + 0.4, 0.6)
    low.set_xlabel("delivery attempts, in order")
    for axes in (top, low):
        axes.spines[["top", "right"]].set_visible(False)
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
