"""Sliders tune what follows, wrong parameters name themselves, and checks can fail."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import pytest
from helpers import shared, wait_for

from orderkit.errors import UsageError
from orderkit.run import Run

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

from orderkit import lab


def slow_run(**settings: Any) -> Run:
    """Make a run that would take minutes."""
    return lab.experiment(shared(), **{"orders": 20_000, "rate": 200, "failure_rate": 0, **settings})


def stands_still(run: Run) -> int:
    """Wait for half a second in which no order is sent, though 100 would be due, and give their number."""

    def still() -> bool:
        before = run.produced.sent
        time.sleep(0.5)
        return run.produced.sent == before

    wait_for(still)
    return run.produced.sent


# The sliders


def test_a_slider_changes_the_fates_that_follow() -> None:
    """Nothing fails; the failure slider goes to 1 and the attempts to 1; from then on every order dies."""
    run = slow_run()
    knobs = lab.controls(run)
    run.start()
    wait_for(lambda: run.ledger.finished > 30)
    assert run.ledger.counts[2] == 0
    knobs.max_attempts.value = 1
    knobs.failure_rate.value = 1.0
    wait_for(lambda: run.ledger.counts[2] > 30)
    knobs.stop.click()
    run.wait(30)
    assert run.report().conserved
    last = run.ledger.frame().tail(20)
    assert set(last["fate"]) == {"dead"}
    assert set(last["attempt"]) == {1}


def test_sliders_of_producer_and_back_off() -> None:
    """Poison, pace and back-off are tuned too: each slider sets one attribute, and nothing else."""
    run = slow_run(rate=50, backoff_base=0.1)
    knobs = lab.controls(run)
    assert (knobs.rate.value, knobs.backoff_base.value, knobs.backoff.value) == (0.02, 0.1, "exponential")
    knobs.poison_rate.value = 0.5
    knobs.rate.index = [label for label, _ in knobs.rate.options].index("no limit")
    knobs.backoff.value = "full-jitter"
    knobs.backoff_base.value = 0.25
    policy = run.consumer.policy
    assert (run.faults.poison_rate, run.producer.every) == (0.5, 0.0)
    assert (policy.backoff.kind, policy.backoff.base, policy.max_attempts) == ("full-jitter", 0.25, 3)


def test_pause_holds_the_orders_back_until_it_is_taken_back() -> None:
    """While Pause is on nothing more is produced, and what was is finished; afterwards orders flow again."""
    run = slow_run()
    knobs = lab.controls(run)
    run.start()
    wait_for(lambda: run.produced.sent > 20)
    knobs.pause.value = True
    assert run.producer.paused
    wait_for(lambda: run.ledger.finished == run.produced.sent)
    still = stands_still(run)
    knobs.pause.value = False
    wait_for(lambda: run.ledger.finished > still + 20)
    knobs.stop.click()
    assert run.wait(30).report().conserved


def test_stop_ends_a_run_that_is_paused() -> None:
    """Stop needs no going on first: both threads end, no further order is sent, and none is lost."""
    run = slow_run()
    knobs = lab.controls(run)
    knobs.pause.value = True
    run.start()
    assert stands_still(run) == 0
    knobs.pause.value = False
    wait_for(lambda: run.produced.sent > 20)
    knobs.pause.value = True
    still = stands_still(run)
    knobs.stop.click()
    run.wait(30)
    assert not run.alive
    assert run.report().conserved
    assert run.report().produced == still


def test_sliders_start_where_the_run_is_and_wait_for_the_hand() -> None:
    """Any legal setting has its place on a slider; a value counts when the slider is let go."""
    knobs = lab.controls(slow_run(rate=0, max_attempts=25, backoff_base=7, failure_rate=0.33, poison_rate=1))
    values = (knobs.rate.value, knobs.max_attempts.value, knobs.backoff_base.value, knobs.failure_rate.value)
    assert values == (0.0, 25, 7.0, 0.33)
    assert knobs.poison_rate.value == 1.0
    sliders = (knobs.failure_rate, knobs.poison_rate, knobs.max_attempts, knobs.backoff_base, knobs.rate)
    assert not any(slider.continuous_update for slider in sliders)


def test_sliders_have_a_line_of_text() -> None:
    """Where widgets cannot live, as on a page, the bundle says what would be there."""
    bundle = lab.controls(slow_run())._repr_mimebundle_()
    assert bundle["text/plain"].startswith("Sliders, in a live notebook")
    assert "application/vnd.jupyter.widget-view+json" in bundle


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
