"""Sliders tune what follows, wrong parameters name themselves, and checks can fail."""

from __future__ import annotations

import asyncio
import threading
import time
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import shared, wait_for

from orderkit.account.tally import DEAD
from orderkit.errors import UsageError
from orderkit.orders.faults import Faults
from orderkit.retry import RetryPolicy
from orderkit.run import Run

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

import numpy as np
from ipywidgets import Widget

from orderkit import lab
from orderkit.account.expected import Change, Expected, dead_share
from orderkit.lab.score import score


def stands_still(run: Run) -> int:
    """Wait for half a second in which no order is sent, though 100 would be due, and give their number."""

    def still() -> bool:
        before = run.produced.sent
        time.sleep(0.5)
        return run.produced.sent == before

    wait_for(still)
    return run.produced.sent


def says(view: lab.Live, word: str) -> None:
    """Wait until the line above the chart begins so; all else is set before it."""
    wait_for(lambda: view.controls.state.value.startswith(word))


class Playing:
    """A live view that plays beside the test, as in a notebook that somebody looks at; stopped at the end.

    Args:
        monkeypatch: takes the place of the page.
        settings: of the run; by default it would take minutes.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        monkeypatch.setattr("orderkit.lab.live.has_a_page", lambda: True)
        given = {"orders": 20_000, "rate": 200, "failure_rate": 0, **settings}
        self.view = lab.Live(shared(), every=0.05, **given)
        self._loop, self._played = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)

    def _play(self) -> None:
        self._loop.run_until_complete(self.view.play())
        self._played.set()
        self._loop.run_forever()  # as a kernel's loop does, after the cell

    def __enter__(self) -> lab.Live:
        self._thread.start()
        return self.view

    def __exit__(self, *_error: object) -> None:
        self.view.run.stop()
        wait_for(lambda: self._played.is_set() and (self.view._task is None or self.view._task.done()))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()


def test_a_page_whose_messages_wait_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is heard of the controls, nobody can press Run: the run begins, and the line says how it is."""
    monkeypatch.setattr("orderkit.lab.page.SILENT", 0.2)
    with Playing(monkeypatch, orders=100) as view:
        says(view, "running as given")
        assert "wait until the cell has ended" in view.controls.state.value
        says(view, "finished")
        view.controls.start.click()  # now there is no cell that would hold it back
        says(view, "running: move a slider")


def test_a_page_that_shows_the_controls_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a page has said that it shows the controls, the run begins when Run is pressed, however late."""
    monkeypatch.setattr("orderkit.lab.page.SILENT", 0.0)
    playing = Playing(monkeypatch, orders=100)
    playing.view.controls.heard = True
    with playing as view:
        says(view, "How many of 100 orders")
        deadline = time.monotonic() + 0.3
        wait_for(lambda: time.monotonic() > deadline)  # longer than a page may be silent
        assert not view.run.started
        view.controls.start.click()
        says(view, "finished")


def test_a_page_may_show_the_controls_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """VS Code draws what is scrolled to: the run has begun by then, and from now on sliders are heard."""
    monkeypatch.setattr("orderkit.lab.page.SILENT", 0.0)
    with Playing(monkeypatch) as view:
        says(view, "running as given")
        view.controls.start._view_count = 1
        says(view, "running: move a slider")


def test_controls_that_are_shown_are_heard_of() -> None:
    """A page counts the views of a widget; when that arrives, messages come through."""
    controls = lab.Live(shared()).controls
    assert not controls.heard
    controls.start.unobserve_all("_view_count")
    seen: list[str] = []
    controls.start.observe(lambda change: controls._seen(seen.append, first=change["old"] == 0), "_view_count")
    controls.start._view_count = 1
    controls.start._view_count = 2
    assert controls.heard
    assert seen == ["shown"]


# The sliders


def test_a_slider_changes_the_fates_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fails; the failure slider goes to 1 and the attempts to 1: every order dies, and the chart marks it."""
    with Playing(monkeypatch, predict=False) as view:
        wait_for(lambda: view.run.ledger.finished > 30)
        assert view.run.ledger.counts[DEAD] == 0
        view.controls.max_attempts.value = 1
        view.controls.failure_rate.value = 1.0
        wait_for(lambda: view.run.ledger.counts[DEAD] > 30)
        view.controls.stop.click()
        says(view, "stopped")
        assert view.run.report().conserved
        last = view.run.frame().tail(20)
        assert set(last["fate"]) == {"dead"}
        assert set(last["attempt"]) == {1}
        marks = {text.get_text().strip() for text in view.picture.figure.axes[0].texts}
        assert marks == {"attempts 3 → 1", "failure rate 0.00 → 1.00"}
        mean, band = view.expected.dead(view.run.ledger.finished)
        late = 5  # orders that had their attempts before the slider, and their fate behind it
        assert abs(mean - view.run.ledger.counts[DEAD]) <= band + late


def test_sliders_of_producer_and_back_off() -> None:
    """Poison, pace and back-off are tuned too: each slider sets one attribute, and nothing else."""
    view = lab.Live(shared(), rate=50, backoff_base=0.1)
    run, knobs = view.run, view.controls
    assert (knobs.rate.value, knobs.backoff_base.value, knobs.backoff.value) == (0.02, 0.1, "exponential")
    knobs.poison_rate.value = 0.5
    knobs.rate.index = [label for label, _ in knobs.rate.options].index("no limit")
    knobs.backoff.value = "full-jitter"
    knobs.backoff_base.value = 0.2
    knobs.backoff_base.value = 0.25
    policy = run.consumer.policy
    assert (run.faults.poison_rate, run.producer.every) == (0.5, 0.0)
    assert (policy.backoff.kind, policy.backoff.base, policy.max_attempts) == ("full-jitter", 0.25, 3)
    assert [change.told for change in view.expected.changes[1:3]] == [
        "poison rate 0.00 → 0.50",
        "orders/s 50 → no limit",
    ]
    view.draw()  # names the newest three; two steps of one slider are one move
    assert [text.get_text() for text in view.picture.figure.axes[0].texts] == [
        " orders/s 50 → no limit ", " back-off exponential → full-jitter ", " base, s 0.10 → 0.25 ",
    ]  # fmt: skip


def test_pause_holds_the_orders_back_and_stop_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Pause is on nothing more is produced, and what was is finished; Stop needs no going on first."""
    with Playing(monkeypatch, predict=False) as view:
        run, knobs = view.run, view.controls
        wait_for(lambda: run.produced.sent > 20)
        knobs.pause.click()
        assert (run.producer.paused, view.state, knobs.pause.description) == (True, "paused", "Go on")
        wait_for(lambda: run.ledger.finished == run.produced.sent)
        still = stands_still(run)
        knobs.pause.click()
        wait_for(lambda: run.ledger.finished > still + 20)
        knobs.pause.click()
        still = stands_still(run)
        knobs.stop.click()
        says(view, "stopped")
        assert not run.alive
        assert run.report().conserved
        assert run.report().produced == still


def test_a_press_that_comes_when_all_is_over_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may be late: Pause and Stop find a run that is done with, and leave the last word as it is."""
    with Playing(monkeypatch, predict=False, orders=50) as view:
        says(view, "finished")
        last = view.controls.state.value
        view.controls.pause.click()
        view.controls.stop.click()
        assert (view.state, view.controls.state.value, view.run.producer.paused) == ("finished", last, False)
        assert not view.controls.start.disabled


def test_sliders_start_where_the_run_is_and_wait_for_the_hand() -> None:
    """Any legal setting has its place on a slider; a value counts when the slider is let go."""
    settings: dict[str, Any] = {"rate": 0, "max_attempts": 25, "backoff_base": 7, "failure_rate": 0.33}
    knobs = lab.Live(shared(), poison_rate=1, **settings).controls
    values = (knobs.rate.value, knobs.max_attempts.value, knobs.backoff_base.value, knobs.failure_rate.value)
    assert values == (0.0, 25, 7.0, 0.33)
    assert knobs.poison_rate.value == 1.0
    sliders = (knobs.failure_rate, knobs.poison_rate, knobs.max_attempts, knobs.backoff_base, knobs.rate)
    assert not any(slider.continuous_update for slider in sliders)


def test_controls_have_a_line_of_text() -> None:
    """Where widgets cannot live, as on a page, the bundle says what would be there."""
    bundle = lab.Live(shared()).controls._repr_mimebundle_()
    assert bundle["text/plain"].startswith("In a live notebook: sliders for ")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_no_front_end_has_to_be_extended() -> None:
    """Each widget is one of ipywidgets' own, which JupyterLab, VS Code and Colab show as they come."""
    made: list[Widget] = []
    Widget.on_widget_constructed(made.append)
    try:
        lab.Live(shared())
    finally:
        Widget.on_widget_constructed(None)
    assert "FloatSlider" in {type(widget).__name__ for widget in made}
    modules = {getattr(widget, name) for widget in made for name in ("_model_module", "_view_module")}
    assert modules - {None} <= {f"@jupyter-widgets/{part}" for part in ("base", "controls", "output")}


# The prediction, and again


def test_a_prediction_opens_the_run_and_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing flows before Run is pressed; at the end the prediction stands beside theory and measurement."""
    with Playing(monkeypatch, orders=40, rate=400, failure_rate=1, max_attempts=2) as view:
        says(view, "How many of 40 orders will die?")
        assert not view.run.started
        assert view.controls.failure_rate.disabled
        view.controls.guess.value = "12"
        view.controls.start.click()
        says(view, "finished")
        assert str(view) == "you 12, theory 40.0 ± 0.0, measured 40: too few for chance"
        assert view.controls.state.value == f"finished. {view}"


def test_run_again_is_a_fresh_run_and_stops_none_but_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end disables all but Run again; it starts from the given settings, and a view played anew stops it."""
    with Playing(monkeypatch, predict=False) as view:
        wait_for(lambda: view.run.produced.sent > 5)
        first, knobs = view.run, view.controls
        knobs.failure_rate.value = 1.0
        knobs.stop.click()
        says(view, "stopped")
        off = [knobs.failure_rate.disabled, knobs.pause.disabled, knobs.stop.disabled, knobs.start.disabled]
        assert (off, knobs.start.description) == ([True, True, True, False], "Run again")
        knobs.start.click()
        wait_for(lambda: view.run is not first and view.run.ledger.finished > 5)
        assert (knobs.failure_rate.value, view.run.faults.transient_rate) == (0.0, 0.0)
        second = view.run
        with Playing(monkeypatch, predict=False, orders=10) as other:
            says(other, "finished")
        says(view, "stopped")
        assert not second.alive
        assert second.report().conserved


def test_endless_ends_before_the_broker_drops_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders flow past any number until the broker has no room for more, and the state says so."""
    monkeypatch.setattr("orderkit.brokers.embedded.BYTE_LIMIT", 20_000)
    view = lab.Live(shared(), endless=True, orders=1, failure_rate=1, max_attempts=1)
    asyncio.run(view.play())
    assert view.state == "full"
    assert view.run.ledger.finished >= 4 * 20_000 // 1000 * 0.9
    assert view.run.report().conserved


@pytest.mark.parametrize(
    ("guess", "said"),
    [
        (None, "theory 50.0 ± 10.0, measured 58: within chance"),
        (41, "you 41, theory 50.0 ± 10.0, measured 58: within chance"),
        (61, "you 61, theory 50.0 ± 10.0, measured 58: too many for chance"),
    ],
)
def test_a_score_names_all_three(guess: int | None, said: str) -> None:
    """Yours, theory with two standard deviations, and what was measured."""
    counts = [42, 0, 58, 0, 0]
    run: Any = SimpleNamespace(ledger=SimpleNamespace(counts=counts, finished=100), orders=100)
    assert score(run, Expected(0.5), guess) == said


def test_a_handler_of_ones_own_has_marks_and_no_theory() -> None:
    """Theory knows the kit's own failures only; a slider that is moved is marked all the same."""
    view = lab.Live(shared(), orders=20, failure_rate=1, max_attempts=1, handler=lambda _order, _attempt: None)
    view.controls.failure_rate.value = 0.5
    asyncio.run(view.play())
    assert str(view) == f"measured {view.run.ledger.counts[DEAD]}"
    top, dead, _ = view.picture.figure.axes
    assert [text.get_text() for text in (*top.texts, *dead.texts)] == [" failure rate 1.00 → 0.50 ", str(view)]


def test_theory_goes_on_with_the_new_slope() -> None:
    """100 orders at 0.1, then 50 at 1 and 50 at 0.5: the sums of p and of p (1 - p) over the orders."""
    expected = Expected(0.1)
    expected.change(Change(130, 100, 1.0))
    expected.change(Change(190, 150, 0.5))
    for orders, mean, variance in ((50, 5, 4.5), (100, 10, 9), (150, 60, 9), (200, 85, 21.5)):
        told, band = expected.dead(orders)
        assert (told, band**2 / 4) == (pytest.approx(mean), pytest.approx(variance))
    means, _ = expected.dead(np.array([0, 150, 200]))
    assert list(means) == pytest.approx([0, 60, 85])
    assert dead_share(Faults(1, 0.5, 0.2, 0.1), RetryPolicy(2)) == pytest.approx(0.1 + 0.9 * (0.2 + 0.8 * 0.25))


# The parameters


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("orders", 0),
        ("orders", 1.5),
        ("orders", True),
        ("rate", -1),
        ("rate", float("inf")),
        ("failure_rate", 1.01),
        ("failure_rate", "0.2"),
        ("poison_rate", float("nan")),
        ("max_attempts", 0),
        ("backoff_base", -0.1),
        ("backoff", "soon"),
        ("seed", None),
    ],
)
def test_a_wrong_parameter_names_itself(name: str, value: object) -> None:
    """The line starts with the parameter and its value."""
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(UsageError) as caught:
        lab.experiment(shared(), **wrong)
    assert str(caught.value).startswith(f"{name} is {value!r}; ")


# The checks


def double(number: int) -> int:
    """Give twice a number: the answer of an exercise."""
    return 2 * number


def doubling(chance: Random) -> tuple[tuple[int], int]:
    """Make a case of that exercise."""
    number = chance.randint(0, 99)
    return (number,), 2 * number


def unfinished(_number: int) -> int:
    """Answer nothing yet."""
    raise NotImplementedError


def almost(number: int) -> int:
    """Be wrong for some numbers only."""
    return 2 * number if number < 90 else 0


@pytest.mark.parametrize(
    ("answer", "truth", "said"),
    [
        (..., 4, "todo"),
        (None, 4, "todo"),
        (lambda _: ..., doubling, "todo"),
        (unfinished, doubling, "todo"),
        (4, 4, "right"),
        (0.1 + 0.2, 0.3, "right"),
        ("b", "b", "right"),
        (double, doubling, "right"),
        (5, 4, "not yet"),
        ("a", 4, "not yet"),
        (7, doubling, "not yet"),
        (lambda: 1, doubling, "not yet"),
        (lambda number: 1 / (number - number), doubling, "not yet"),
    ],
)
def test_check_says_todo_not_yet_or_right(
    answer: object, truth: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for each state of an exercise, and never an exception."""
    lab.check("the claim", answer, truth)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{said:<8} the claim")
    assert printed.count("\n") == 1


def test_check_finds_the_rare_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that is wrong for one case in ten is found out, with a case that shows it."""
    lab.check("doubles", almost, doubling)
    printed = capsys.readouterr().out
    assert printed.startswith("not yet  doubles: almost(9")
    assert "gave 0; " in printed


def test_check_survives_answers_that_break_on_sight(capsys: pytest.CaptureFixture[str]) -> None:
    """Even an answer that cannot be compared or printed only gets a `not yet`."""

    class Nasty:
        def __eq__(self, _: object) -> bool:
            raise ValueError("no comparison")

        __hash__ = None  # type: ignore[assignment]

        def __repr__(self) -> str:
            raise ValueError("no text")

    for truth in (4, doubling):
        lab.check("nasty", Nasty(), truth)
    assert capsys.readouterr().out.count("not yet  nasty") == 2
