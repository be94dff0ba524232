"""Many plans, a few at a time: each lane has a broker of its own, so that nobody is hurt by another's plan."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from orderkit.crash.hidden import EndMissing
from orderkit.crash.outcomes import Outcome, Outcomes
from orderkit.crash.plan import CrashPlan, make_plans
from orderkit.crash.stage import Stage
from orderkit.crash.trial import Trial
from orderkit.errors import OrderkitError, UsageError

LANES = 2
AGAIN = 2  # how often a plan is begun anew whose broker spoils it


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
    course = _Course(told)
    for plan in plans:
        course.waiting.put(plan)
    with ThreadPoolExecutor(lanes) as pool:
        try:
            list(pool.map(course.lane, range(min(lanes, len(plans)))))
        finally:
            course.call_off()  # Ctrl-C, or one lane has failed: the others need not go on
    return Outcomes(course.outcomes, course.failed, course.spoilt)


@dataclass
class _Course:
    """Plans that wait for a lane, and what became of those that had one.

    Args:
        told: called with each outcome as it comes.
    """

    told: Callable[[Outcome], object] | None
    waiting: queue.SimpleQueue[CrashPlan] = field(default_factory=queue.SimpleQueue)
    outcomes: list[Outcome] = field(default_factory=list)
    failed: list[tuple[CrashPlan, str]] = field(default_factory=list)
    spoilt: list[tuple[CrashPlan, str]] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)

    def lane(self, _number: int) -> None:
        """Carry out one plan after the other on a stage of its own, until none waits."""
        while not self.waiting.empty():
            with Stage() as stage:
                self.stages.append(stage)
                self._work_on(stage)

    def _work_on(self, stage: Stage) -> None:
        """Carry out plans until none waits, or one cannot be judged: the next one has another stage."""
        while not stage.called_off.is_set():
            try:
                plan = self.waiting.get_nowait()
            except queue.Empty:
                return
            try:
                outcome = Trial(stage, plan).run()
            except EndMissing as error:
                if not stage.called_off.is_set():  # else nobody waits for another try
                    self._repeat(plan, error)
                return
            except OrderkitError as error:
                self.failed.append((plan, str(error)))
                return
            if stage.called_off.is_set():  # cut short: nothing can be said of it
                return
            self.outcomes.append(outcome)
            if self.told:
                self.told(outcome)

    def _repeat(self, plan: CrashPlan, error: EndMissing) -> None:
        """Put a plan that its broker has spoilt back, a few times: nothing was shown, neither kept nor broken."""
        if sum(plan is other for other, _ in self.spoilt) < AGAIN:
            self.spoilt.append((plan, str(error)))
            self.waiting.put(plan)
        else:
            self.failed.append((plan, str(error)))

    def call_off(self) -> None:
        """Let no further plan begin, and end those that are under way."""
        while not self.waiting.empty():
            self.waiting.get()
        for stage in self.stages:
            stage.called_off.set()
