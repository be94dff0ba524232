"""The report of a run as a table."""

from __future__ import annotations

from orderkit.account.report import Report


class Account:
    """A report that a notebook shows as a table, and everything else as its one line.

    Args:
        report: what `Run.report` gave.
    """

    def __init__(self, report: Report) -> None:
        self.report = report

    def __repr__(self) -> str:
        return str(self.report)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()
