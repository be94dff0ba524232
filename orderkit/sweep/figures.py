"""A figure of a sweep: averaged over its seeds, as a table or as a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orderkit.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from orderkit.lab.picture import Picture

FIGURES = ("produced", "averaged", "dead", "skipped", "in_flight", "retries", "lost", "duplicated", "average")


def check_figure(name: str) -> None:
    """Refuse a figure that no sweep gives.

    Raises:
        UsageError: there is none of that name; the message says which there are.
    """
    if name not in (known := (*FIGURES, "seconds")):
        raise UsageError(f"There is no figure {name!r} to show. There are: {', '.join(known)}.")


def varied(frame: pd.DataFrame, grid: Mapping[str, Sequence[Any]], value: str) -> pd.DataFrame:
    """Average a figure over seeds: a row for each combination of the other parameters that vary.

    Args:
        frame: what `sweep` gave.
        grid: as `sweep` took it.
        value: the figure.

    Raises:
        UsageError: there is no such figure.
    """
    check_figure(value)
    names = [name for name, values in grid.items() if len(values) > 1 and name != "seed"]
    good = frame[frame["error"].isna()].astype({value: float})
    if not names:
        return good[[value]].mean().to_frame().T
    return good.groupby(names, sort=False)[value].mean().reset_index()


def picture(frame: pd.DataFrame, grid: Mapping[str, Sequence[Any]], value: str = "dead") -> Picture:
    """Draw a figure as a heat map over the first two parameters that vary, averaged over all others.

    Args:
        frame: what `sweep` gave.
        grid: as `sweep` took it.
        value: the figure.
    """
    from orderkit.lab.attempts import heat_map  # noqa: PLC0415

    table = varied(frame, grid, value)
    names = [name for name in table.columns if name != value]
    across = names[1] if len(names) > 1 else None
    down = names[0] if names else None
    rows = list(grid[down]) if down else [""]
    columns = list(grid[across]) if across else [""]
    field = [[_mean(table, {down: row, across: column}, value) for column in columns] for row in rows]
    return heat_map(field, rows, columns, f"{value}, averaged", across or "", down or "")


def _mean(table: pd.DataFrame, where: Mapping[str | None, Any], value: str) -> float:
    for name, wanted in where.items():
        if name is not None:
            table = table[table[name] == wanted]
    return float(table[value].mean())
