"""Reports and ledgers in a notebook: their numbers, nothing that passes for markup, no colours of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

from helpers import note_failure, take_orders

from orderkit.account.report import Report
from orderkit.account.tally import DEAD, RETRY
from orderkit.ledger import Ledger
from orderkit.retry import Poison
from orderkit.show.markup import LATEST, table

REPORT = Report(
    produced=30, averaged=20, dead=8, skipped=1, in_flight=1, lost=0, duplicated=0, retries=7, average="12.3456",
    seed=7, broker="embedded",
)  # fmt: skip


def cells(html: str, tag: str = "td") -> list[str]:
    """List what stands in the cells."""
    return re.findall(f"<{tag}>(.*?)</{tag}>", html)


def filled(orders: int, keep: int | None = None) -> Ledger:
    """Make a ledger with orders that went well, and after them one that failed and one that is no order."""
    ledger = Ledger(keep)
    for offset, order in enumerate(take_orders(orders)):
        ledger.note(1.0, "orders", 0, [offset], [order])
    note_failure(ledger, "orders", 0, orders, RETRY, take_orders(1)[0], wait=0.25, error="E: <b>&</b>")
    note_failure(ledger, "orders", 3, 5, DEAD, Poison("cut off"), reason="poison")
    return ledger


def test_what_could_be_markup_is_escaped() -> None:
    """Names and cells are text, whatever stands in them."""
    html = table(["<i>"], [["<script>"], ["a & b"]])
    assert (
        html == "<table><tr><th>&lt;i&gt;</th></tr><tr><td>&lt;script&gt;</td></tr><tr><td>a &amp; b</td></tr></table>"
    )


def test_a_report_shows_its_sums_and_its_verdict() -> None:
    """Every number stands under its name; a report that does not add up says so."""
    html = REPORT._repr_html_()
    sums = dict(zip(cells(html, "th"), cells(html), strict=True))
    assert sums == {
        "produced": "30", "averaged": "20", "dead": "8", "skipped": "1", "in flight": "1", "retries": "7",
        "lost": "0", "duplicated": "0", "average": "12.3456",
    }  # fmt: skip
    assert html.endswith("<p>Every order is accounted for.</p>")
    assert replace(REPORT, lost=1)._repr_html_().endswith("<p>The law is broken.</p>")


def test_a_ledger_shows_its_counts_and_its_latest_attempts() -> None:
    """All attempts are counted, and the latest ones shown with their numbers; what is not there is an empty cell."""
    html = filled(20)._repr_html_()
    counts, latest = html.split(f"<p>The latest {LATEST} of 22 attempts:</p>")
    assert dict(zip(cells(counts, "th"), cells(counts), strict=True)) == {
        "averaged": "20", "retry": "1", "dead": "1", "skipped": "0", "undone": "0",
    }  # fmt: skip
    names = cells(latest, "th")
    rows = [dict(zip(names, cells(row), strict=True)) for row in re.findall("<tr>(<td>.*?)</tr>", latest)]
    assert [row["seq"] for row in rows] == [str(number) for number in range(12, 22)]
    assert rows[0] == {
        "seq": "12", "topic": "orders", "partition": "0", "offset": "12", "order id": "13",
        "price": f"{take_orders(13)[-1]['price']:g}", "attempt": "1", "fate": "averaged", "wait": "0", "reason": "",
        "error": "",
    }  # fmt: skip
    assert (rows[-2]["fate"], rows[-2]["wait"], rows[-2]["error"]) == ("retry", "0.25", "E: &lt;b&gt;&amp;&lt;/b&gt;")
    assert (rows[-1]["fate"], rows[-1]["reason"], rows[-1]["order id"], rows[-1]["price"]) == ("dead", "poison", "", "")


def test_a_ledger_that_forgets_counts_on() -> None:
    """Events that were dropped are still counted, and the others keep their numbers."""
    html = filled(20, keep=4)._repr_html_()
    assert " of 22 attempts:" in html
    assert cells(html)[0] == "20"
    assert cells(html.split("attempts:")[1])[-len(cells(html.split("attempts:")[1], "th"))] == "21"


def test_an_empty_ledger_is_shown_too() -> None:
    """Before the first attempt there are counts of nothing, and a head without rows."""
    html = Ledger()._repr_html_()
    assert "The latest 0 of 0 attempts:" in html
    assert cells(html) == ["0"] * 5


def test_no_colours_are_brought_along() -> None:
    """No style, class or colour: the tables are the theme's, on light and on dark."""
    for html in (REPORT._repr_html_(), filled(20)._repr_html_()):
        assert set(re.findall(r"<([^/>]*)>", html)) == {"table", "tr", "th", "td", "p"}


def test_no_table_needs_pandas() -> None:
    """Both are shown where the extra `lab` is not installed."""
    code = "import sys; sys.modules['pandas'] = sys.modules['IPython'] = None\n"
    code += "from orderkit.ledger import Ledger; print(Ledger()._repr_html_()[:7])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "<table>\n"
