"""Pictures of characters: a curve filled to the floor, and lanes of marks below it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from orderkit.show.course import Point

HEIGHT = 6  # lines of a curve
BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " ..::||##"  # the same, where only letters can be printed
MARK, ASCII_MARK = "╵", "|"


class Columns(NamedTuple):
    """What stands in each column of a picture.

    Args:
        means: the running average; as many as there are columns with orders in them.
        retried, died: the columns with such an attempt in them.
    """

    means: list[float]
    retried: set[int]
    died: set[int]


def columns(points: Sequence[Point], width: int, orders: int | None = None) -> Columns:
    """Spread points over a picture's columns, by the orders that were done with.

    Args:
        points: in order.
        width: of the picture, in characters.
        orders: that the whole width stands for; by default those of the points.
    """
    span = max(orders or 0, points[-1].orders if points else 0, 1)
    means: list[float] = []
    retried, died = set(), set()
    for point in points:
        column = max(0, point.orders * width - 1) // span
        retried |= {column} if point.retried else set()
        died |= {column} if point.died else set()
        if point.mean is not None:
            latest = means[-1] if means else point.mean
            means += [latest] * (column - len(means)) + [point.mean] * (column >= len(means))
            means[-1] = point.mean
    return Columns(means, retried, died)


def plot(values: Sequence[float], height: int = HEIGHT, blocks: str = BLOCKS) -> list[str]:
    """Draw values, one a column, as a filled curve; the lowest value sits on the floor, the highest at the top.

    Args:
        values: what to draw.
        height: of the picture, in lines.
        blocks: nine of them, from an empty one to a full one.
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    full = len(blocks) - 1
    steps = height * full
    levels = [1 + round((value - low) / (high - low or 1) * (steps - 1)) for value in values]
    rows = []
    for row in reversed(range(height)):
        rows.append("".join(blocks[max(0, min(full, level - row * full))] for level in levels))
    return rows


def lane(marked: set[int], width: int, mark: str = MARK) -> str:
    """Draw a mark in each of some columns."""
    return "".join(mark if column in marked else " " for column in range(width))
