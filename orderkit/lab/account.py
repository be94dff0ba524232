"""The report of a run as a table."""

from __future__ import annotations

from orderkit.audit import Report

NAMES = ("produced", "averaged", "dead", "skipped", "in_flight", "retries", "lost", "duplicated", "average")


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
        told = self.report.as_dict()
        head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in NAMES)
        cells = "".join(f"<td>{told[name]}</td>" for name in NAMES)
        verdict = "Every order is accounted for." if self.report.conserved else "The law is broken."
        return f"<table><tr>{head}</tr><tr>{cells}</tr></table><p>{verdict}</p>"
