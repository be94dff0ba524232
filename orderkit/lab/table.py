"""A small table: aligned text everywhere, and HTML in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orderkit.show.markup import table


class Table:
    """Rows under names.

    Args:
        names: of the columns.
        rows: one value for each column.
    """

    def __init__(self, names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        self.names = tuple(names)
        self.rows = [tuple(map(_told, row)) for row in rows]

    def __repr__(self) -> str:
        lines = [self.names, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def _repr_html_(self) -> str:
        return table(self.names, self.rows)


def _told(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
