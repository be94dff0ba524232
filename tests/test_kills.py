"""Delivery modes, killed at one order after the other, and the closed form of what that costs."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers import shared

from orderkit import lab
from orderkit.crash.mortal import kill_one
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection

MODES = ["at-most-once", "at-least-once"]


@pytest.fixture(scope="module")
def kills() -> pd.DataFrame:
    """Kill consumers of both modes that the embedded broker has, at each order of a batch of four."""
    return lab.kills(shared(), MODES, orders=9, batch=4, seed=3, every=2)


def test_each_kill_costs_what_theory_says(kills: pd.DataFrame) -> None:
    """Committed first, a batch is lost but for its dead letters; committed last, these letters are there twice."""
    found = {mode: some[["lost", "twice", "undone"]].values.tolist() for mode, some in kills.groupby("mode")}
    assert found["at-most-once"] == [[4, 0, 0], [4, 0, 0], [3, 0, 0], [3, 0, 0]]
    assert found["at-least-once"] == [[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert kills["order"].tolist() == [1, 2, 3, 4] * 2
    assert kills["told"].tolist() == [4] * 4 + [0] * 4  # the group cannot know which of the batch have a dead letter


def test_a_picture_counts_the_kills_that_are_as_theory_says(kills: pd.DataFrame) -> None:
    """A panel for each mode on one scale, and a number that goes down with each dot off its line."""
    picture = lab.kills_picture(kills, 4, 2)
    assert repr(picture) == "8 of 8 kills as theory says"
    assert [axes.get_title() for axes in picture.figure.axes] == MODES
    wrong = kills.assign(lost=kills["lost"] + (kills["order"] == 2))
    assert repr(lab.kills_picture(wrong, 4, 2)) == "6 of 8 kills as theory says"


@pytest.mark.parametrize("batch", [1, 5])
def test_theory_knows_the_whole_batch(batch: int) -> None:
    """What one promise loses and what the next one writes twice, or undoes, are together one batch."""
    for place in range(1, batch + 1):
        most, least, exact = (lab.kill_costs(mode, place, batch, 2) for mode in (*MODES, "exactly-once"))
        assert most["lost"] + least["twice"] == most["lost"] + exact["undone"] == batch
        assert (least["lost"], exact["lost"], most["twice"], exact["twice"]) == (0, 0, 0, 0)


def test_a_process_that_fails_before_its_death_is_told() -> None:
    """Its last line is the error's."""
    connection = Connection(shared().bootstrap, shared().connection.config)
    told = {"topic": "orders.nowhere", "dead_letters": "nowhere.dlq", "group": "none"}
    with pytest.raises(OrderkitError, match=r"^The consumer process failed: .*nowhere"):
        kill_one(connection, told, 2, 1)
