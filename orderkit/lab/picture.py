"""A figure as a notebook shows it: one image of a fixed size, and a line of text for those who see none."""

from __future__ import annotations

from base64 import b64encode
from struct import pack
from typing import Any
from zlib import compress, crc32

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from orderkit.run import Run
from orderkit.show.chart import draw, draw_dead, fit_any_ground

DPI = 100  # of the image as it is shown
SHARP = 2  # points of the image for each of those, along either side: a high-density screen shows them all
QUICK, SMALL = 1, 9  # levels of compression
SIGNATURE, UP = b"\x89PNG\r\n\x1a\n", 2  # how a PNG file begins, and its word for "the difference from the row above"


class Picture:
    """A figure with its picture. pyplot takes no part, so nothing is shown twice and no state is left behind.

    Args:
        figure: what to show.
        text: what stands for the image; by default its title.
        live: it is drawn again and again, and better written quickly than small.
    """

    def __init__(self, figure: Figure, text: str | None = None, *, live: bool = False) -> None:
        self.figure = fit_any_ground(figure)
        self.figure.set_dpi(SHARP * DPI)
        self._canvas: Any = FigureCanvasAgg(self.figure)  # matplotlib's own types leave its methods out
        self._text, self._level = text, QUICK if live else SMALL

    def __repr__(self) -> str:
        return self._text or self.figure.axes[0].get_title()

    def png(self) -> bytes:
        """Give the image as a PNG file."""
        self._canvas.draw()
        return _png(np.asarray(self._canvas.buffer_rgba()), self._level)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        width, height = self.figure.get_size_inches() * DPI
        size = {"width": round(width), "height": round(height)}
        bundle = {"text/plain": repr(self), "image/png": b64encode(self.png()).decode()}
        return bundle, {"image/png": size}


def _png(pixels: np.ndarray[Any, Any], level: int) -> bytes:
    """Write pixels (height, width, 4; uint8) as a PNG file.

    Each row is stored as its difference from the one above, which suits a chart. The usual writers try five ways for
    each row, and take three times as long.
    """
    height, width, _ = pixels.shape
    lines = np.full((height, 1 + 4 * width), UP, np.uint8)
    lines[:, 1:] = pixels.reshape(height, 4 * width)
    lines[1:, 1:] -= lines[:-1, 1:].copy()
    head = pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)  # 8 bits a channel; red, green, blue, alpha
    chunks = ((b"IHDR", head), (b"IDAT", compress(lines.tobytes(), level)), (b"IEND", b""))
    return SIGNATURE + b"".join(
        pack(">I", len(data)) + kind + data + pack(">I", crc32(kind + data)) for kind, data in chunks
    )


def picture(run: Run) -> Picture:
    """Draw a run: the running average, and below it the attempts that failed."""
    return Picture(draw(run.ledger))


def dead_picture(run: Run, share: float) -> Picture:
    """Draw the dead letters of a run against the share of orders that theory says will die."""
    return Picture(draw_dead(run.ledger, share))
