"""A figure as a notebook shows it: one image of a fixed size, and a line of text for those who see none."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from orderkit.run import Run
from orderkit.show.chart import draw, draw_dead

DPI = 100
QUICK = {"compress_level": 1}  # a live frame is drawn more often than it is stored; the file grows by a tenth


class Picture:
    """A figure with its picture. pyplot takes no part, so nothing is shown twice and no state is left behind.

    Args:
        figure: what to show.
        text: what stands for the image; by default its title.
    """

    def __init__(self, figure: Figure, text: str | None = None) -> None:
        self.figure = figure
        self._text = text

    def __repr__(self) -> str:
        return self._text or self.figure.axes[0].get_title()

    def png(self) -> bytes:
        """Give the image as a PNG file."""
        file = BytesIO()
        self.figure.savefig(file, format="png", dpi=DPI, pil_kwargs=QUICK)
        return file.getvalue()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "image/png": b64encode(self.png()).decode()}


def picture(run: Run) -> Picture:
    """Draw a run: the running average, and below it the attempts that failed."""
    return Picture(draw(run.ledger))


def dead_picture(run: Run, share: float) -> Picture:
    """Draw the dead letters of a run against the share of orders that theory says will die."""
    return Picture(draw_dead(run.ledger, share))
