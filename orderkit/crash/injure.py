"""What is done to whom: one function for each act that a worker cannot do to itself."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orderkit.crash.evidence import read_stable
from orderkit.crash.plan import Injury
from orderkit.crash.stage import IN_FORCE, Stage
from orderkit.dead_letters import DeadLetterRecord
from orderkit.members.patience import leave_group

GUESTS = 3  # members that join and leave again in a storm


@dataclass
class Patient:
    """What injuries are done to, besides the workers.

    Args:
        stage: where.
        topic, dead_letters, group: whose.
        buried: dead letters that were read before their topic was deleted.
    """

    stage: Stage
    topic: str
    dead_letters: str
    group: str
    buried: list[DeadLetterRecord] = field(default_factory=list)
    letterbox: threading.Lock = field(default_factory=threading.Lock)  # one act at a time on the dead-letter topic
    door: threading.Lock = field(default_factory=threading.Lock)  # one storm at a time


def thaw(_patient: Patient, injury: Injury, pid: int) -> None:
    """Let a stopped process go on when its time is over."""
    time.sleep(injury.seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def restart(patient: Patient, injury: Injury, _pid: int) -> None:
    """Stop the broker, or kill it, and start it again."""
    patient.stage.restart(hard=injury.act == "broker-kill")


def refuse(patient: Patient, injury: Injury, _pid: int) -> None:
    """Let the dead-letter topic refuse every letter for a while."""
    with patient.letterbox:
        patient.stage.insist(lambda: patient.stage.refuse(patient.dead_letters))
        time.sleep(injury.seconds)
        patient.stage.insist(lambda: patient.stage.accept(patient.dead_letters))


def delete(patient: Patient, injury: Injury, _pid: int) -> None:
    """Delete the dead-letter topic, and let it come back empty; what is in it by then is read and counted first."""
    stage = patient.stage
    with patient.letterbox:
        partitions = len(stage.insist(lambda: stage.near.partitions(patient.dead_letters)))
        # Refused first: letters would be acknowledged and deleted with nobody to see them.
        stage.insist(lambda: stage.refuse(patient.dead_letters))
        time.sleep(IN_FORCE)
        patient.buried += stage.insist(lambda: read_stable(stage.near, patient.dead_letters))
        stage.insist(lambda: stage.delete(patient.dead_letters))
        time.sleep(injury.seconds)
        stage.insist(lambda: stage.create_topics({}, {patient.dead_letters: partitions}))


def storm(patient: Patient, _injury: Injury, _pid: int) -> None:
    """Let others join the group, one after the other, hold their partitions for a moment, and leave."""
    with patient.door:
        for _ in range(GUESTS):
            guest = patient.stage.near.consumer(patient.group)
            guest.subscribe([patient.topic])
            deadline = time.monotonic() + 10
            while not guest.assignment() and time.monotonic() < deadline:
                guest.poll(0.1)
            leave_group(guest, lambda: True)


def cut(patient: Patient, injury: Injury, _pid: int) -> None:
    """Let the network go silent for a while."""
    patient.stage.proxy.cut()
    time.sleep(injury.seconds)
    patient.stage.proxy.mend()


def delay(patient: Patient, injury: Injury, _pid: int) -> None:
    """Let the network be slow for a while."""
    patient.stage.proxy.delay = 0.1
    time.sleep(injury.seconds)
    patient.stage.proxy.delay = 0.0


INJURE: dict[str, Callable[[Patient, Injury, int], None]] = {
    "freeze": thaw,
    "broker-restart": restart,
    "broker-kill": restart,
    "dlq-refused": refuse,
    "dlq-deleted": delete,
    "storm": storm,
    "cut": cut,
    "delay": delay,
}
