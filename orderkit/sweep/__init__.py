"""A grid of parameters, each cell a run or a notebook in a process of its own; one tidy frame at the end."""

from orderkit.sweep.figures import picture, varied
from orderkit.sweep.grid import sweep

__all__ = ["picture", "sweep", "varied"]
