"""What crash tests came to, as it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from threading import Event
from typing import ClassVar

import pytest
from click.testing import CliRunner

from orderkit import crash
from orderkit.cli import cli
from orderkit.crash import CrashPlan, Outcome, Outcomes, make_plan
from orderkit.crash.audit import Verdict
from orderkit.crash.hidden import EndMissing
from orderkit.errors import OrderkitError

VERDICT = Verdict(
    produced=300, averaged=200, dead=40, lost=60, at_risk=70, told=65, repeated=0, doubled=0, astray=0, changed=0,
    in_flight=0, unwritten=0, written_twice=0, out_of_order=0, handled_again=0, average="1", truth="2", exact=False,
)  # fmt: skip
OUTCOME = Outcome(make_plan(0, "at-most-once"), VERDICT, (0,), 3, 0, "", 1, (), 1.0)


def test_both_what_was_lost_and_what_was_at_risk_is_in_the_table() -> None:
    """At most once may lose orders: a reader sees how many, and how many it could have been."""
    outcomes = Outcomes([OUTCOME, OUTCOME])
    head, *lines = [line.split() for line in outcomes.summary().splitlines()]
    assert " ".join(head).endswith("orders lost at risk repeated doubled out of order average exact")
    assert lines == [["at-most-once", "2", "2", "0", "600", "120", "140", "0", "0", "0", "0"]]
    assert "  60    70  " in outcomes.table()
    assert outcomes.broken == []


def test_a_plan_whose_kill_was_never_reached_is_told_of() -> None:
    """A plan without a kill -9 proves less than it says: the summary counts them, and is silent when there are none."""
    spared = replace(OUTCOME, sprung=())
    assert "no kill -9" not in Outcomes([OUTCOME]).summary()
    told = Outcomes([OUTCOME, spared]).summary()
    assert told.endswith("\n1 of 2 plans had no kill -9: nobody passed there that often")


class Unjudged:
    """A trial that cannot be judged, if its seed is odd."""

    def __init__(self, _stage: object, plan: CrashPlan) -> None:
        self._plan = plan

    def run(self) -> Outcome:
        if self._plan.seed % 2:
            raise OrderkitError("The broker is away. Try again.")
        return replace(OUTCOME, plan=self._plan)


class Empty:
    """A stage without a broker; counts how many there were."""

    count = 0

    def __init__(self) -> None:
        Empty.count += 1
        self.called_off = Event()

    def __enter__(self) -> Empty:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_plan_that_cannot_be_judged_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are carried out, the next one on another stage; the reason is told, and the exit status is 1."""
    Empty.count = 0
    monkeypatch.setattr("orderkit.crash.lanes.Trial", Unjudged)
    monkeypatch.setattr("orderkit.crash.lanes.Stage", Empty)
    command = ["crash-test", "--plans", "5", "--delivery", "at-most-once", "--lanes", "1"]
    answer = CliRunner().invoke(cli, command, standalone_mode=False)
    assert answer.return_value == 1
    assert [line.split()[:2] for line in answer.stdout.splitlines()[1:4]] == [
        [str(n), "at-most-once"] for n in (0, 2, 4)
    ]
    assert answer.stderr.count("nothing can be said of it: The broker is away. Try again. Repeat it") == 2
    assert Empty.count == 3


class Spoilt(Unjudged):
    """A trial whose broker loses the end of a transaction: seed 1 once, seed 2 always."""

    begun: ClassVar[list[int]] = []

    def run(self) -> Outcome:
        self.begun.append(self._plan.seed)
        if self._plan.seed == 2 or self.begun.count(1) == 1 == self._plan.seed:
            raise EndMissing("Kafka has lost an end.")
        return replace(OUTCOME, plan=self._plan)


def test_a_plan_that_its_broker_spoils_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as neither kept nor broken, and is told of; three times in vain, and nothing can be said of it."""
    Spoilt.begun.clear()
    monkeypatch.setattr("orderkit.crash.lanes.Trial", Spoilt)
    monkeypatch.setattr("orderkit.crash.lanes.Stage", Empty)
    command = ["crash-test", "--delivery", "at-most-once", "--lanes", "1", "--json"]
    answer = CliRunner().invoke(cli, [*command, "--plans", "2"], standalone_mode=False)
    told = json.loads(answer.stdout)
    assert answer.return_value == 0
    assert [plan["seed"] for plan in told["plans"]] == [0, 1]
    assert told["spoilt"] == [{"seed": 1, "delivery": "at-most-once", "reason": "Kafka has lost an end."}]
    assert "seed 1, at-most-once: spoilt by its broker, and begun anew. Kafka has lost an end.\n" in answer.stderr
    answer = CliRunner().invoke(cli, [*command, "--plans", "1", "--seed", "2"], standalone_mode=False)
    assert answer.return_value == 1
    assert "nothing can be said of it: Kafka has lost an end. Repeat it" in answer.stderr
    assert Spoilt.begun == [0, 1, 1, 2, 2, 2]


class CalledOff(Spoilt):
    """A trial that is called off, and whose broker loses the end of a transaction then."""

    def __init__(self, stage: Empty, plan: CrashPlan) -> None:
        super().__init__(stage, plan)
        self._stage = stage

    def run(self) -> Outcome:
        self._stage.called_off.set()
        return super().run()


def test_a_plan_is_not_begun_anew_when_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C a plan that its broker has spoilt is over."""
    Spoilt.begun.clear()
    monkeypatch.setattr("orderkit.crash.lanes.Trial", CalledOff)
    monkeypatch.setattr("orderkit.crash.lanes.Stage", Empty)
    assert not crash.crash_test([make_plan(2)]).spoilt
    assert Spoilt.begun == [2]


def test_a_broken_promise_is_told_with_what_led_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says what was not kept, how to repeat it, and what the workers told; its exit status is 1."""
    verdict = replace(VERDICT, handled_again=1)
    broken = replace(OUTCOME, verdict=verdict, notes=("  0.000 s consumer-1: has orders[0] from 7",))
    monkeypatch.setattr(crash, "crash_test", lambda *_, **__: Outcomes([broken]))
    answer = CliRunner().invoke(cli, ["crash-test", "--plans", "1"], standalone_mode=False)
    assert answer.return_value == 1
    assert "handled again 1. Repeat it: orderkit crash-test --plans 1 --seed 0" in answer.stderr
    assert answer.stderr.endswith("consumer-1: has orders[0] from 7\n")
