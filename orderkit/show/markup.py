"""Reports and ledgers as HTML, for notebooks: plain tables that bring no colours, so light and dark themes both fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from orderkit.account.tally import FATES

if TYPE_CHECKING:
    from orderkit.account.report import Report
    from orderkit.ledger import Ledger

SUMS = (
    "produced", "averaged", "dead", "skipped", "in_flight", "expired", "retries", "lost", "lost_to_crashes",
    "duplicated", "average",
)  # fmt: skip
RARE = ("expired", "lost_to_crashes")  # shown when there are some
COLUMNS = ("topic", "partition", "offset", "order_id", "price", "attempt", "fate", "wait", "reason", "error")
LATEST = 10  # attempts of a ledger that are shown; the frame has all


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give rows under names; what could be markup is escaped."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(names, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"


def report_html(report: Report) -> str:
    """Give a report's sums, and its verdict."""
    told = report.as_dict()
    names = [name for name in SUMS if name not in RARE or told.get(name)]
    sums = table(_spoken(names), [[str(told[name]) for name in names]])
    return f"{sums}<p>{report.verdict.capitalize()}.</p>"


def ledger_html(ledger: Ledger) -> str:
    """Give how many attempts had which fate, and the latest of them; safe while the worker appends."""
    columns, dropped, _ = ledger.rows(*COLUMNS)
    many = dropped + len(columns[0])
    latest = [list(map(_told, COLUMNS, event)) for event in zip(*(column[-LATEST:] for column in columns), strict=True)]
    numbered = [[str(many - len(latest) + i), *event] for i, event in enumerate(latest)]
    told = dict(zip(FATES, ledger.counts, strict=True)) | ({"expired": ledger.expired} if ledger.expired else {})
    counts = table(list(told), [list(map(str, told.values()))])
    return f"{counts}<p>The latest {len(latest)} of {many} attempts:</p>{table(_spoken(('seq', *COLUMNS)), numbered)}"


def _spoken(names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names]


def _told(name: str, value: Any) -> str:
    """Give a cell; what is not there, as the price of an order that does not decode, stays empty."""
    if name == "fate":
        return FATES[value]
    if value is None or value != value:  # noqa: PLR0124  only NaN differs from itself
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
