"""Several runs of the same orders, side by side."""

from __future__ import annotations

import pytest
from helpers import shared

from orderkit.errors import UsageError

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

from orderkit import lab

SETTINGS = {"orders": 60, "failure_rate": 0.5, "seed": 3}
CHANGES = {"one": {"max_attempts": 1}, "three": {"max_attempts": 3}}


def test_runs_of_a_scenario_have_the_same_orders() -> None:
    """Whoever dies with three attempts dies with one; each has its row, and its panel with theory on the same scale."""
    scenario = lab.Scenario(shared(), CHANGES, **SETTINGS).run()
    frame, picture = scenario.frame(), scenario.picture()
    assert frame["dead"].tolist() == [scenario.runs[name].report().dead for name in CHANGES]
    assert (frame["averaged"] + frame["dead"]).tolist() == [60, 60]
    assert frame["expected"].tolist() == [30.0, 7.5]
    assert (frame["retries"]["one"], frame["lost"].sum(), frame["duplicated"].sum()) == (0, 0, 0)
    dead = [set(run.frame().query("fate == 'dead'")["order_id"]) for run in scenario.runs.values()]
    assert dead[1] < dead[0]
    assert repr(picture) == f"one: {len(dead[0])} dead, 30.0 expected; three: {len(dead[1])} dead, 7.5 expected"
    assert [axes.get_title() for axes in picture.figure.axes] == ["one", "three"]
    assert len({axes.get_ylim() for axes in picture.figure.axes}) == 1


def test_theory_is_silent_where_the_reader_decides() -> None:
    """With a classifier of the reader's own there is no line of theory, and no expected number."""
    blind = {"classify": lambda _error: "permanent"}
    scenario = lab.Scenario(shared(), {"blind": blind}, **SETTINGS).run()
    assert scenario.frame()["expected"].isna().all()
    assert repr(scenario.picture()) == f"blind: {scenario.runs['blind'].report().dead} dead"
    assert len(scenario.picture().figure.axes[0].lines) == 1


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "A scenario has one run or more: give each a name, and what is different in it."),
        ({"other": {"seed": 4}}, "other: seed is the same in all runs of a scenario; give it once, beside them."),
        ({"none": {"max_attempts": 0}}, "max_attempts is 0; it must be a whole number, 1 or more."),
    ],
)
def test_what_is_no_scenario_is_one_line(changes: dict[str, dict[str, int]], told: str) -> None:
    """The line names the run or the value."""
    with pytest.raises(UsageError) as error:
        lab.Scenario(shared(), changes, **SETTINGS)
    assert str(error.value) == told
