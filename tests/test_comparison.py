"""The engines side by side: each does the same work, and shows what it promises."""

from __future__ import annotations

import json
import random
import re

import pytest
from click.testing import CliRunner
from helpers import shared

from orderkit.brokers import ApacheBroker
from orderkit.cli.compare import compare_engines
from orderkit.comparison import CONTESTANTS, Plan, as_frame, as_table, compare
from orderkit.comparison.phase import Phase
from orderkit.errors import UsageError
from orderkit.show.chart import draw_comparison

SMALL = Plan(orders=400, keys=20, failing=0.05, rate=400, backoff=0.15)
SLACK = 50.0  # ms: what a busy machine may take from one of two runs; much less than a back-off


@pytest.mark.campaign
def test_each_engine_keeps_its_promise() -> None:
    """On the same work: nothing lost, nothing twice; who keeps the order blocks, who flows does not."""
    results = {result.engine: result for result in compare(shared().connection, plan=SMALL)}
    assert list(results) == ["pause", "in-place", "topics", "key-parking"]
    assert all(result.lost == result.duplicates == 0 for result in results.values())
    assert {name for name, result in results.items() if result.inversions} == {"topics"}
    for name in ("topics", "key-parking"):
        assert results[name].wait_p99 < results["pause"].wait_p99 / 2
    assert results["pause"].wait_p99 > 2 * results["pause"].calm_p99 + SLACK
    assert results["topics"].throughput > 2 * results["pause"].throughput
    assert results["topics"].records > results["key-parking"].records + 0.03
    assert all(result.memory < 100 for result in results.values())  # their own, not that of whoever started them
    frame = as_frame(list(results.values()))
    assert list(frame.index) == list(results)
    assert as_table(list(results.values())).count("\n") == 4
    assert draw_comparison(list(results.values())).axes


def p99(phase: Phase) -> float:
    """Give the milliseconds that 99 of 100 orders that do not fail did not wait longer than."""
    waits = sorted(phase.waits())
    return waits[-(-len(waits) * 99 // 100) - 1]


@pytest.mark.campaign
@pytest.mark.parametrize("engine", ["topics", "key-parking"])
def test_healthy_orders_hardly_wait_for_failing_keys(engine: str) -> None:
    """With one key of a hundred failing, the others' p99 wait stays within twice that of a run without failures.

    What else the machine does can only spoil a try, so there are three.
    """
    plan, connection = Plan(orders=1000), shared().connection
    assert len(plan.failing_keys()) == 1

    def is_within() -> bool:
        calm = p99(Phase(connection, engine, plan, set()).run(plan.rate))
        loaded = p99(Phase(connection, engine, plan, plan.failing_keys()).run(plan.rate))
        print(f"{engine}: p99 {loaded:.1f} ms, calm {calm:.1f} ms")
        return loaded <= 2 * calm + SLACK

    assert any(is_within() for _ in range(3))


@pytest.mark.campaign
@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_all_engines_are_compared_on_a_real_broker(apache: ApacheBroker) -> None:
    """The command prints a line for each engine; share groups, with the broker's DLQ too, give up order and wait not.

    All orders come within a moment, so that a failing one and a younger one of its key are in one fetch: then a
    share group, which delivers the failing one again later, cannot but invert them.
    """
    arguments = f"--bootstrap-server {apache.bootstrap} --orders 150 --keys 10 --failing 0.2 --rate 5000".split()
    answer = CliRunner().invoke(compare_engines, [*arguments, "--max-attempts", "2", "--backoff-base", "0.1"])
    assert answer.exit_code == 0, answer.output
    print(answer.stdout)
    head, *lines = [re.split("  +", line.strip()) for line in answer.stdout.splitlines()]
    rows = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    assert tuple(rows) == CONTESTANTS
    assert {(row["twice"], row["lost"]) for row in rows.values()} == {("0", "0")}
    given_up = {engine for engine, row in rows.items() if int(row["inversions"]) > 0}
    assert given_up == {"topics", "share", "share+dlq"}
    for engine in ("share", "share+dlq"):
        assert float(rows[engine]["records"]) > 1.0
        assert in_ms(rows[engine]["p99"]) < in_ms(rows["pause"]["p99"]) / 2


def in_ms(text: str) -> float:
    """Read milliseconds as the table has them."""
    return float(text.removesuffix(" ms"))


def test_a_plan_is_the_same_for_everybody() -> None:
    """The seed decides orders and failing keys, and as many keys fail as were asked for."""
    assert list(SMALL.stream()) == list(SMALL.stream())
    assert SMALL.failing_keys() == SMALL.failing_keys()
    for _ in range(20):
        keys = random.Random(1).randrange(10, 300)
        assert len(Plan(keys=keys, failing=0.1).failing_keys()) == round(keys * 0.1)


def test_an_engine_that_cannot_run_there_is_refused() -> None:
    """Unknown engines are listed, and share groups need a real broker."""
    with pytest.raises(UsageError, match="key-parking"):
        compare(shared().connection, ["parking"])
    assert "share" in CONTESTANTS
    with pytest.raises(UsageError, match="real broker"):
        compare(shared().connection, ["share"])


@pytest.mark.parametrize(
    "wrong", [{"orders": 0}, {"keys": 0}, {"rate": 0.0}, {"max_attempts": 1}, {"failing": 1.5}, {"backoff": -1.0}]
)
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    """Numbers out of range are usage errors."""
    with pytest.raises(UsageError):
        Plan(**wrong)  # type: ignore[arg-type]


def test_the_command_prints_one_json_object() -> None:
    """`--json` gives the plan and a row for each engine."""
    arguments = ["--engine", "key-parking", "--orders", "100", "--rate", "500", "--json"]
    answer = CliRunner().invoke(compare_engines, arguments)
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert [row["engine"] for row in told["engines"]] == ["key-parking"]
    assert told["plan"]["orders"] == 100
