"""One plan carried out: workers started, hurt and started again, until every order has its fate; then the audit."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import time
import uuid
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException

from orderkit.account.state import group_state
from orderkit.crash.again import again
from orderkit.crash.audit import judge
from orderkit.crash.evidence import Trail, gather
from orderkit.crash.hidden import check_ends
from orderkit.crash.injure import INJURE, Patient
from orderkit.crash.outcomes import Outcome
from orderkit.crash.plan import PRODUCER, CrashPlan
from orderkit.crash.process import Process, start
from orderkit.crash.stage import Stage
from orderkit.crash.worker import Job
from orderkit.errors import OrderkitError

LAST_WORD = 75.0  # seconds in which a worker that is asked to end has to: two ends of a transaction, at the worst
RESTART = 0.1  # seconds until whoever ended is started again, as a supervisor would
ALL_IN = 15.0  # seconds that the producer waits for all consumers to be in the group: each is to have its injuries
LOOK = 0.25  # seconds between two looks at the group's commits
QUIET = 1.0  # seconds without a word after which at-most-once is done: its commits come before the work


@dataclass
class Trial:
    """A plan on a stage.

    Args:
        stage: where.
        plan: what.
    """

    stage: Stage
    plan: CrashPlan
    trail: Trail = field(default_factory=Trail)

    def __post_init__(self) -> None:
        name = uuid.uuid4().hex[:8]
        self._patient = Patient(self.stage, f"orders.{name}", f"orders.{name}.dlq", f"crash.{name}")
        self._lines: queue.SimpleQueue[tuple[str, list[Any]]] = queue.SimpleQueue()
        self._running: dict[str, Process] = {}
        self._sprung = self.trail.wounds
        self._sprung_before: dict[str, int] = {}  # how many had come about when a worker was started
        self._starts = self._gave_up = 0
        self._complaint = self._awaited = ""
        self._producing = False
        self._stubborn: list[str] = []
        self._assigned: Counter[str] = Counter()
        self._heard = time.monotonic()
        self._acts: list[Future[None]] = []

    def run(self) -> Outcome:
        """Carry the plan out.

        Raises:
            EndMissing: the broker has lost the end of a transaction.
            OrderkitError: an injury cannot be done.
        """
        begun, patient, plan = time.monotonic(), self._patient, self.plan
        self.stage.create_topics({patient.topic: plan.partitions}, {patient.dead_letters: plan.partitions})
        with ThreadPoolExecutor(max(1, len(plan.injuries))) as self._hands:
            try:
                while not self._done() and not self._time_is_up(begun):
                    self._work_until_done(begun)
                    self._end()  # who is asked to end gives back what was taken and not done: that is work again
            finally:
                self._sweep_up()
        evidence = gather(self.stage.near, patient.topic, patient.dead_letters, patient.group, patient.buried)
        verdict = judge(plan, evidence, self.trail)
        return Outcome(
            plan,
            verdict,
            tuple(self._sprung),
            self._starts,
            self._gave_up,
            self._complaint,
            max(self._assigned.values(), default=0),
            tuple(self._stubborn),
            time.monotonic() - begun,
            (
                *(again(plan, evidence, self.trail) if verdict.handled_again else ()),
                *((f"the time was up: {self._awaited}",) if self._awaited else ()),
            ),
        )

    def _start(self, worker: str) -> None:
        far = worker == "consumer-0"
        self._sprung_before[worker] = len(self._sprung)
        connection = self.stage.far if far else self.stage.near
        left = [
            (number, injury)
            for number, injury in enumerate(self.plan.injuries)
            if injury.worker == worker and number not in self._sprung
        ]
        job = Job(
            worker, self.plan, self._patient.topic, self._patient.dead_letters, self._patient.group,
            connection.bootstrap, dict(connection.config), tuple(left),
        )  # fmt: skip
        self._running[worker] = start(job, self._lines.put)
        self._starts += 1

    def _hear(self, wait: float) -> None:
        """Take in what the workers tell, for at most `wait` seconds if there is nothing."""
        with contextlib.suppress(queue.Empty):
            while True:
                worker, (at, word, *told) = self._lines.get(timeout=wait)
                self._heard, wait = time.monotonic(), 0.0
                if word == "handled":
                    self.trail.handled.append((at, *told))
                elif word == "acked":
                    self.trail.acked.add((told[0], told[1]))
                elif word in ("ahead", "safe"):
                    self.trail.risk(word, *told)
                elif word == "assigned":
                    self._assigned[worker] += 1
                    self.trail.notes.append((at, worker, f"has {told[0]}"))
                elif word == "note":
                    self.trail.notes.append((at, worker, told[0]))
                elif word == "injury":
                    self._injure(worker, told[0])

    def _injure(self, worker: str, number: int) -> None:
        self._sprung.append(number)
        injury = self.plan.injuries[number]
        if injury.act in INJURE:
            pid = self._running[worker].popen.pid
            self._acts.append(self._hands.submit(INJURE[injury.act], self._patient, injury, pid))

    def _time_is_up(self, begun: float) -> bool:
        return time.monotonic() > begun + self.plan.patience or self.stage.called_off.is_set()

    def _work_until_done(self, begun: float) -> None:
        for worker in self.plan.workers[1:]:
            self._start(worker)
        look = 0.0
        while not self._time_is_up(begun):
            self._hear(0.02)
            self._replace_the_fallen()
            if not self._producing and (len(self._assigned) == self.plan.members or time.monotonic() > begun + ALL_IN):
                self._producing = True
                self._start(PRODUCER)
            if time.monotonic() >= look:
                if self._done():
                    return
                look = time.monotonic() + LOOK

    def _replace_the_fallen(self) -> None:
        for worker, process in list(self._running.items()):
            status = process.popen.poll()
            if status is None:
                continue
            if status > 0:
                self._gave_up += 1
                self._complaint = process.complaint()
            self._bury(process)
            if worker == PRODUCER and status == 0 and not self._was_asked(worker):
                continue
            time.sleep(RESTART)
            self._start(worker)

    def _was_asked(self, worker: str) -> bool:
        """Whether a worker was sent a SIGTERM since its start: it ended before its work was done."""
        since = [self.plan.injuries[number] for number in self._sprung[self._sprung_before[worker] :]]
        return any(injury.worker == worker and injury.act == "term" for injury in since)

    def _bury(self, process: Process) -> None:
        process.reader.join(5)
        self._hear(0.0)
        del self._running[process.name]
        process.close()

    def _done(self) -> bool:
        """Whether all is produced, done with and committed, and nothing is going on that could change it."""
        self._awaited = self._still_open()
        return not self._awaited

    def _still_open(self) -> str:
        """Name what is not done yet, if anything is."""
        if not self._producing or PRODUCER in self._running:
            return "orders are being produced"
        if not all(act.done() for act in self._acts):
            return "an injury goes on"
        if self._running and self.plan.delivery == "at-most-once" and time.monotonic() - self._heard < QUIET:
            return "somebody is at work"
        try:
            ends = self.stage.near.watermarks(self._patient.topic)
            state = group_state(self.stage.near, self._patient.group, self._patient.topic)
        except (OrderkitError, KafkaException) as error:  # the broker is away
            check_ends(self.stage.near, [self._patient.dead_letters])
            return f"the group's commits cannot be read: {error}"
        behind = [n for n, (_, high) in ends.items() if state.offsets.get(n, 0) != high]
        if behind:
            return f"partitions {behind} are not committed to their ends"
        return f"orders wait in retry topics: {sorted(state.waiting)}" if state.waiting else ""

    def _end(self) -> None:
        """Ask all workers to end, as a supervisor would."""
        for process in self._running.values():
            process.popen.terminate()
        for process in list(self._running.values()):
            try:
                process.popen.wait(LAST_WORD)
            except subprocess.TimeoutExpired:
                self._stubborn.append(process.name)
                process.popen.kill()
                process.popen.wait()
            self._bury(process)
        for act in self._acts:
            act.result()

    def _sweep_up(self) -> None:
        for process in list(self._running.values()):
            process.popen.kill()
            process.popen.wait()
            self._bury(process)
