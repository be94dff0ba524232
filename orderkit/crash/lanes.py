"""Many plans, a few at a time: each lane has a broker of its own, so that nobody is hurt by another's plan."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from orderkit.crash.outcomes import Outcomes
from orderkit.crash.plan import CrashPlan, make_plans
from orderkit.crash.stage import Stage
from orderkit.crash.trial import Outcome, Trial
from orderkit.errors import UsageError

LANES = 2


def crash_test(
    plans: Sequence[CrashPlan] | None = None,
    *,
    lanes: int = LANES,
    told: Callable[[Outcome], object] | None = None,
) -> Outcomes:
    """Carry plans out against real brokers, with real processes, and audit each from the topics.

    Args:
        plans: what to do; by default the plans of six seeds, at least once and exactly once.
        lanes: how many go on at the same time; each has a broker of its own (about 0.4 GB).
        told: called with each outcome as it comes.

    Raises:
        UsageError: the system has no signals to stop a process with, or no lane is asked for.
        OrderkitError: there is no real broker to be had; says what to install.
    """
    if os.name != "posix":
        raise UsageError("Crash tests stop and kill processes by POSIX signals; this system has none.")
    if lanes < 1:
        raise UsageError(f"lanes is {lanes}; at least 1 is needed.")
    plans = make_plans(6, 0, ["at-least-once", "exactly-once"]) if plans is None else plans
    waiting: queue.SimpleQueue[CrashPlan] = queue.SimpleQueue()
    for plan in plans:
        waiting.put(plan)
    outcomes: list[Outcome] = []
    stages: list[Stage] = []

    def lane(_number: int) -> None:
        with Stage() as stage:
            stages.append(stage)
            while True:
                try:
                    plan = waiting.get_nowait()
                except queue.Empty:
                    return
                outcome = Trial(stage, plan).run()
                if stage.called_off.is_set():  # cut short: nothing can be said of it
                    return
                outcomes.append(outcome)
                if told:
                    told(outcomes[-1])

    with ThreadPoolExecutor(lanes) as pool:
        try:
            list(pool.map(lane, range(min(lanes, len(plans)))))
        finally:
            while not waiting.empty():  # Ctrl-C, or one lane has failed: the others need not go on
                waiting.get()
            for stage in stages:
                stage.called_off.set()
    return Outcomes(outcomes)
