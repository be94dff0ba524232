"""The lab: a chart that follows, sliders that tune, checks that can fail."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import islice
from typing import Any

import pytest
from helpers import fate, shared, soon

from orderkit.account.block import Attempt
from orderkit.account.tally import RETRY
from orderkit.errors import Interrupted, OrderkitError
from orderkit.ledger import Ledger
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order
from orderkit.run import Run
from orderkit.show.chart import POINTS

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

from orderkit import lab
from orderkit.account.expected import Change, Expected
from orderkit.lab.controls import Controls
from orderkit.show.run_chart import RunChart


def threads(run: Run) -> list[str]:
    """List the threads of a run that are still there."""
    return [thread.name for thread in threading.enumerate() if thread.name.endswith(run.name)]


def big_ledger(orders: int) -> Ledger:
    """Fill a ledger: one failed attempt for every ten orders."""
    ledger, many = Ledger(), 1000
    batch: list[Order] = [{"orderId": str(i), "product": "Lamp", "price": float(i % 97)} for i in range(many)]
    for start in range(0, orders, many):
        failed = [Attempt(i, 0.0, 1, RETRY, 0.0, "transient", "") for i in range(0, many, 10)]
        ledger.note(0.0, "orders", 0, range(start, start + many), batch, failed)
    return ledger


class Slot:
    """A display slot that remembers what it was shown."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def update(self, shown: lab.Picture) -> None:
        """Take a frame."""
        self.frames.append(shown.png())


def in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> Slot:
    """Let the chart believe that it has a display."""
    slot = Slot()

    def show(shown: lab.Picture | Controls, *, display_id: bool = False) -> Slot:
        assert display_id is isinstance(shown, lab.Picture)
        if isinstance(shown, lab.Picture):
            slot.update(shown)
        return slot

    monkeypatch.setattr("orderkit.lab.live.display", show)
    monkeypatch.setattr("orderkit.lab.live.get_ipython", object)
    monkeypatch.setattr("orderkit.lab.live.has_a_page", lambda: True)
    return slot


# The live view


def live(**settings: Any) -> lab.Live:
    """Make a live view that begins at once; by default it would take minutes."""
    return lab.Live(
        shared(), predict=False, every=0.05, **{"orders": 20_000, "rate": 200, "failure_rate": 0, **settings}
    )


def test_play_works_in_a_plain_script(capsys: pytest.CaptureFixture[str]) -> None:
    """Outside of a notebook nobody is asked, and nothing waited for: the run ends soon, and the picture is there."""
    view = lab.Live(shared(), orders=200, rate=1, failure_rate=0.3, backoff_base=60)
    asyncio.run(view.play())
    assert view.run.report().conserved
    assert view.run.ledger.finished == 200
    assert view.picture.figure.axes[0].get_title().startswith("finished · 200 orders: ")
    assert capsys.readouterr().out == ""


def test_play_draws_while_orders_flow_and_once_more_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One display slot, several frames, and the last of them shows the end."""
    slot, view = in_a_notebook(monkeypatch), live(orders=100, rate=100)
    asyncio.run(view.play())
    assert len(set(slot.frames)) > 2
    assert slot.frames[-1] == view.draw().png()


def test_play_raises_what_the_run_raised() -> None:
    """A handler with a bug ends the cell with its error, and no thread is left."""

    def handler(order: Order, _attempt: int) -> None:
        raise TypeError(order["orderId"])

    view = live(orders=10, handler=handler)
    with pytest.raises(OrderkitError, match="The handler broke"):
        asyncio.run(view.play())
    assert view.state == "failed"
    assert threads(view.run) == []


def interrupted(what: Callable[[], Awaitable[None]], when: Callable[[], bool]) -> None:
    """Cancel what is awaited as soon as a condition holds, as a kernel does on an interrupt."""

    async def both() -> None:
        task = asyncio.ensure_future(what())
        met = soon(when)
        while not met():
            await asyncio.sleep(0.01)
        task.cancel()
        await task

    asyncio.run(both())


def test_an_interrupt_stops_the_run_and_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled in the middle: both threads end, what is done is committed, and the cell ends with a line of words."""
    slot, view = in_a_notebook(monkeypatch), live()
    with pytest.raises(Interrupted) as caught:
        interrupted(view.play, lambda: view.run.ledger.finished > 50)
    assert threads(view.run) == []
    report = view.run.report()
    assert report.conserved, str(report)
    assert 50 < report.averaged < 20_000
    assert slot.frames[-1] == view.draw().png()
    (line,) = caught.value._render_traceback_()
    assert line.startswith(f"Interrupted: {report.averaged} of {report.produced} orders are done with, and committed.")


def test_an_interrupt_in_a_script_stays_what_it_is() -> None:
    """Without a notebook the caller's own loop hears of the cancellation; the run is stopped all the same."""
    view = live()
    with pytest.raises(asyncio.CancelledError):
        interrupted(view.play, lambda: view.run.started and view.run.produced.sent > 0)
    assert threads(view.run) == []


def test_a_run_starts_once() -> None:
    """A cell run twice on the same run says what to do, and does not mix two runs."""
    run = lab.experiment(shared(), orders=5).start().wait(20)
    with pytest.raises(OrderkitError, match="Make a new Run"):
        run.start()


# The pictures


def points(line: Any) -> list[tuple[float, float]]:
    """List the points of a drawn line."""
    return [(float(x), float(y)) for x, y in line.get_xydata()]


def test_thinning_drops_points_but_counts_everything() -> None:
    """Of many events some are drawn; the last average and every stretch with a failure are among them."""
    ledger = big_ledger(100_000)
    top, low = RunChart(ledger).update().axes
    curve, marks = points(top.lines[0]), points(low.lines[0])
    frame = ledger.frame()
    assert 1000 < len(curve) <= POINTS
    assert curve[-1] == pytest.approx((109_999, frame["running_average"].iloc[-1]))
    assert 1000 <= len(marks) <= POINTS
    assert top.get_title() == "100000 orders: 100000 averaged, 0 dead; 10000 retries"


def test_few_events_are_drawn_one_by_one() -> None:
    """A short run's curve is the running average of its frame, and each failure has its mark."""
    ledger = big_ledger(1000)
    top, low = RunChart(ledger).update().axes
    frame = ledger.frame()
    assert [x for x, _ in points(top.lines[0])] == list(frame["seq"])
    assert [y for _, y in points(top.lines[0])] == pytest.approx(list(frame["running_average"]), nan_ok=True)
    assert [x for x, _ in points(low.lines[0])] == list(frame.loc[frame["fate"] == "retry", "seq"])


def frames(orders: int) -> Iterator[float]:
    """Draw so many orders again and again; give the seconds of this thread, not of what else the machine does."""
    ledger, expected = big_ledger(orders), Expected(0.01)
    expected.change(Change(len(ledger) // 2, orders // 2, 0.1, "failure rate", "0.10", "0.20"))
    chart = RunChart(ledger, expected)
    picture = lab.Picture(chart.figure, live=True)
    assert len(ledger) > orders * 1.09
    while True:
        start = time.thread_time()
        chart.update("running")
        picture.png()
        yield time.thread_time() - start


def test_a_frame_of_a_million_events_stays_cheap() -> None:
    """Of 1,000,000 events a frame takes less than 120 ms where little disturbs it, and not much less of 10,000."""
    few, many = frames(9_000), frames(910_000)
    assert any(seconds < 0.12 for seconds in islice(many, 40))
    assert min(islice(many, 5)) < 4 * min(islice(few, 5))


def test_deaths_lie_in_the_band_of_theory() -> None:
    """Over 100 seeds the share of dead orders is p^k, and the band of two deviations holds 88 runs or more."""
    rate, attempts, many = 0.5, 3, 300
    share = rate**attempts
    orders: list[Order] = [{"orderId": str(i), "product": "Lamp", "price": 1.0} for i in range(many)]
    dead = [
        sum(not fate(order, Faults(seed, transient_rate=rate), attempts) for order in orders) for seed in range(100)
    ]
    assert sum(dead) / 100 == pytest.approx(many * share, rel=0.05)
    assert sum(abs(one - many * share) > 2 * (many * share * (1 - share)) ** 0.5 for one in dead) <= 12


def test_theory_and_measurement_share_an_axis() -> None:
    """The dead are drawn against the dashed line n times share, and the title gives both numbers."""
    run = lab.experiment(shared(), orders=300, failure_rate=0.5, max_attempts=2).start().wait(30)
    shown = lab.dead_picture(run, 0.25)
    theory, measured = shown.figure.axes[0].lines
    assert theory.get_linestyle() == "--"
    assert points(theory)[-1] == pytest.approx((300, 75))
    assert points(measured)[-1] == (300, run.ledger.counts[2])
    assert repr(shown) == f"300 orders: {run.ledger.counts[2]} dead, 75.0 expected"


def test_an_account_is_a_table_and_a_line() -> None:
    """The table has the report's numbers and its verdict; where there is no HTML it is the report's line."""
    report = lab.experiment(shared(), orders=30, poison_rate=1).start().wait(30).report()
    account: Any = lab.Account(report)
    assert repr(account) == str(report)
    assert "<td>30</td><td>0</td><td>30</td>" in account._repr_html_()
    assert "Every order is accounted for." in account._repr_html_()


# The import


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run a line in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_the_kit_itself_loads_no_lab_library() -> None:
    """`import orderkit` brings neither pandas nor matplotlib nor widgets; the lab never brings pyplot."""
    heavy = "import sys; print([m for m in ('pandas', 'matplotlib', 'ipywidgets', 'IPython') if m in sys.modules])"
    assert python(f"import orderkit; {heavy}").stdout == "[]\n"
    assert python("import orderkit.lab, sys; print('matplotlib.pyplot' in sys.modules)").stdout == "False\n"


@pytest.mark.parametrize("missing", ["ipywidgets", "IPython", "matplotlib", "pandas"])
def test_a_missing_extra_is_one_line(missing: str) -> None:
    """Without the extra the error says what to install."""
    code = f"import sys; sys.modules[{missing!r}] = None\nimport orderkit.lab as lab; lab.Live"
    done = python(code)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith('pip install "orderkit[lab]".')
    assert "OrderkitError: " in done.stderr.splitlines()[-1]
