"""The crash lab: what a seed decides, and a short set of plans with every injury in it, on the real broker."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner

from orderkit.cli import cli
from orderkit.crash import ACTS, POINTS, CrashPlan, Injury, Outcomes, crash_test, make_plan, make_plans
from orderkit.crash.plan import FOR_ANYBODY, PRODUCER, SESSION
from orderkit.crash.watched import Trap
from orderkit.crash.worker import Job
from orderkit.delivery import MODES
from orderkit.errors import UsageError


def test_a_seed_gives_the_same_plan_in_every_mode() -> None:
    """Who is hurt, where and when follows from the seed alone."""
    for seed in range(50):
        plans = [make_plan(seed, mode) for mode in MODES]
        assert plans == [make_plan(seed, mode) for mode in MODES]
        assert len({plan.injuries for plan in plans}) == 1
    assert len({make_plan(seed).injuries for seed in range(50)}) > 40


def test_every_plan_kills_a_consumer_and_six_seeds_kill_at_six_points() -> None:
    """No plan goes without kill -9, and no point is left out."""
    kills = [next(i for i in plan.injuries if i.act == "kill") for plan in make_plans(6, 100, ["at-least-once"])]
    assert {kill.point for kill in kills} == set(POINTS)
    acts = {injury.act for plan in make_plans(200, 0, ["at-least-once"]) for injury in plan.injuries}
    assert acts == set(ACTS)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: make_plan(1, acts=["flood"]),
        lambda: make_plan(1, "twice"),
        lambda: CrashPlan(1, orders=0),
        lambda: CrashPlan(1, engine="teleport"),
        lambda: CrashPlan(1, injuries=(Injury("kill", PRODUCER, "dlq-ack", 1),)),
        lambda: crash_test([], lanes=0),
    ],
)
def test_what_cannot_be_is_refused(wrong: object) -> None:
    """A plan that cannot be carried out is answered with what can."""
    with pytest.raises(UsageError):
        wrong()  # type: ignore[operator]


def test_a_trap_springs_at_the_nth_passage_and_then_the_next_one_counts() -> None:
    """Passages of other points do not count, nor those before the trap was set."""
    told: list[int] = []
    trap = Trap(
        [(4, Injury("storm", "consumer-0", "fetch", 2)), (7, Injury("cut", "consumer-0", "commit", 1))], told.append
    )
    for point in ("commit", "fetch", "handler"):
        trap.passed(point)
    assert told == []
    trap.passed("fetch")
    assert told == [4]
    trap.passed("fetch")
    trap.passed("commit")
    trap.passed("commit")
    assert told == [4, 7]


def test_a_job_survives_its_way_to_the_worker() -> None:
    """What a worker reads is what it was told, the policy and the injuries included; no password shows in `repr`."""
    plan = make_plan(3, "exactly-once")
    job = Job("consumer-0", plan, "o", "d", "g", "h:1", {"sasl.password": "secret"}, ((0, plan.injuries[0]),))
    assert Job.from_text(job.to_text()) == job
    assert "secret" not in repr(job)


def test_the_command_lists_what_can_go_wrong() -> None:
    """`--list` names every act and point."""
    shown = CliRunner().invoke(cli, ["crash-test", "--list"]).output
    assert all(word in shown for word in (*ACTS, *POINTS, "ack"))


def plan_of(number: int, act: str, delivery: str) -> CrashPlan:
    """Plan one act, and a kill at one of the points in turn."""
    point = list(POINTS)[number % len(POINTS)]
    # Not the one whose network is cut or slow: it may have nothing left to do when it is back.
    # At the next passage: after an outage a slow machine may find all that is left in one batch.
    kill = Injury("kill", "consumer-1" if act in ("cut", "delay") else "consumer-0", point, 1)
    worker = PRODUCER if act == "kill" else "consumer-1" if act in FOR_ANYBODY else "consumer-0"
    where, nth = ("ack", 60) if worker == PRODUCER else ("handler", 12)
    seconds = SESSION + 1.0 if act in ("freeze", "cut") else 1.0
    return CrashPlan(number, delivery, injuries=(Injury(act, worker, where, nth, seconds), kill))


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """Carry out the short set: each act, in each of two modes, with a kill; a few at most once, or by other engines."""
    plans = [plan_of(i, act, mode) for i, act in enumerate(ACTS) for mode in ("at-least-once", "exactly-once")]
    others = [replace(plan, delivery="at-most-once") for plan in plans[:4:2]]
    engines = ("topics", "key-parking", "key-parking")  # topics at least once may write a retry twice
    others += [replace(plan, engine=engine) for plan, engine in zip(plans[1:4], engines, strict=True)]
    done = crash_test([*plans, *others], lanes=3)
    print(done)
    return done


@pytest.mark.campaign
@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_every_promise_is_kept(outcomes: Outcomes) -> None:
    """Nothing lost and the average exact at least and exactly once, nothing twice exactly and at most once."""
    assert {outcome.plan.seed: outcome.broken for outcome in outcomes.broken} == {}
    assert len(outcomes) == 2 * len(ACTS) + 2 + 3


@pytest.mark.campaign
@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_every_injury_came_about(outcomes: Outcomes) -> None:
    """A plan whose kill was never reached proves nothing."""
    for outcome in outcomes:
        assert outcome.kills >= 1, str(outcome.plan)
    sprung = [outcome.plan.injuries[number] for outcome in outcomes for number in outcome.sprung]
    assert {injury.act for injury in sprung} == set(ACTS)
    assert PRODUCER in {injury.worker for injury in sprung}


@pytest.mark.campaign
@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_outcomes_are_shown_as_text_table_and_frame(outcomes: Outcomes) -> None:
    """The table has a line for each plan with its seed, a notebook gets HTML, and a frame has all of the account."""
    assert len(outcomes.table().splitlines()) == len(outcomes) + 1
    assert outcomes._repr_html_().count("<tr>") == len(outcomes) + 1
    frame = outcomes.frame()
    assert frame["lost"].where(frame["delivery"] != "at-most-once", 0).sum() == 0
    assert set(frame["seed"]) == {outcome.plan.seed for outcome in outcomes}
