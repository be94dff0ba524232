"""The bench checks what contenders did before it tells how fast they were."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from helpers import shared

from orderkit.bench import CONTENDERS, PRODUCERS, Row, Stage, choose, contest, report
from orderkit.bench.contenders import Contender
from orderkit.bench.stage import Result
from orderkit.cli import main
from orderkit.errors import UsageError

ORDERS = 2000


@pytest.fixture(scope="module")
def stage() -> Stage:
    """Topics on the shared embedded broker."""
    return Stage(shared().connection)


def contender(name: str) -> Contender:
    """Find one by its name."""
    return next(one for one in CONTENDERS if one.name == name)


def test_each_contender_without_an_installation_does_the_whole_job(stage: Stage) -> None:
    """Orderkit and both plain loops average, bury and commit every order, and have a rate."""
    entries = [contender(name).entries()[0] for name in ("orderkit", "orderkit-full", "poll-loop", "consume-loop")]
    rows = contest(stage, entries, ORDERS, rounds=1)
    assert [(row.wrong, row.absent) for row in rows] == [(None, None)] * 4
    assert all(row.rate > 0 and row.cpu > 0 for row in rows)
    text = report.as_markdown(rows, report.machine())
    assert all(row.entry.title in text for row in rows)
    assert report.as_dict(rows, report.machine())["rows"][0]["ratio"] == 1.0


def test_producers_leave_every_order_in_the_topic(stage: Stage) -> None:
    """Each producer's orders are all acknowledged, and read back with their prices."""
    rows = contest(stage, [one.entries()[0] for one in PRODUCERS], ORDERS, rounds=1, produce=True)
    assert [(row.wrong, row.absent) for row in rows] == [(None, None)] * len(PRODUCERS)


def test_a_wrong_result_has_no_rate(stage: Stage) -> None:
    """A count, a sum, dead letters or commits that are not as they must be are named."""
    _, expected = stage.filled(ORDERS)
    good = Result(expected.count, expected.total, len(expected.dead), 1.0)
    letters = stage.new_topic("dlq")
    say = [
        stage.check(ORDERS, "nobody", letters, wrong)
        for wrong in (
            replace(good, count=good.count - 1),
            replace(good, total=good.total * 1.001),
            replace(good, dead=0),
            good,  # but no dead letter is in the topic
        )
    ]
    assert [bool(text) for text in say] == [True] * 4
    assert "missing" in str(say[3])
    row = Row(contender("orderkit").entries()[0], ORDERS, [good], wrong=say[0])
    assert row.rate == 0
    assert f"wrong: {say[0]}" in report.as_markdown([row], {})


def test_commits_that_lag_are_told(stage: Stage) -> None:
    """A group that has committed nothing did not do the job, whatever it says."""
    entry = contender("poll-loop").entries()[0]
    (row,) = contest(stage, [entry], ORDERS, rounds=1)
    assert row.wrong is None
    assert stage._committed("bench-nobody", stage.filled(ORDERS)[0]) == dict.fromkeys(range(4), 0)


def test_a_contender_that_dies_is_wrong_not_fast(stage: Stage) -> None:
    """A program that ends in an error has no rate, and its last line is the reason."""
    broken = Contender("broken", "broken", "nothing_of_that_name", ("default",))
    (row,) = contest(stage, broken.entries(), ORDERS, rounds=2)
    assert row.rate == 0
    assert "nothing_of_that_name" in str(row.wrong)


def test_a_language_that_is_not_here_is_said(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without node the row says so, and the others run."""
    monkeypatch.setenv("PATH", "/nowhere")
    (row,) = contest(stage, contender("kafkajs").entries()[:1], ORDERS, rounds=1)
    assert row.absent == "no node on this machine"


def test_an_unknown_contender_is_named() -> None:
    """A misspelt name is an error with all the names there are."""
    with pytest.raises(UsageError, match=r"poll-lop.*poll-loop"):
        choose(["poll-lop"])


def test_the_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """`orderkit bench --json` tells the machine and the rows."""
    address = shared().connection.bootstrap
    with pytest.raises(SystemExit) as end:
        main(
            [
                "bench",
                "--bootstrap-server",
                address,
                "--orders",
                "1000",
                "--rounds",
                "1",
                "--only",
                "poll-loop",
                "--json",
            ]
        )
    told = json.loads(capsys.readouterr().out)
    assert end.value.code == 0
    assert [row["settings"] for row in told["rows"]] == ["default", "documented", "ours"]
    assert told["machine"]["librdkafka"]
