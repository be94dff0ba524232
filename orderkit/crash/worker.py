"""One process of a crash test: the kit's own producer or consumer, on watched clients.

It reads a `Job` as JSON from standard input (it may hold a password, which has no place in `ps`). What it
does goes to standard output, a line each, in one write: what was written stays written, however the process ends.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from confluent_kafka import Message

from orderkit.consumer import RetryingConsumer
from orderkit.crash.ahead import Ahead
from orderkit.crash.plan import PRODUCER, CrashPlan, Injury
from orderkit.crash.watched import Trap, WatchedConnection
from orderkit.dead_letters import read_topic
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.orders.order import Order
from orderkit.producer import OrderProducer
from orderkit.retry import RetryPolicy
from orderkit.retry.backoff import Backoff


@dataclass(frozen=True)
class Job:
    """What a worker is told.

    Args:
        worker: its name.
        plan: the plan.
        topic, dead_letters, group: on the cluster.
        bootstrap, config: where that is.
        traps: number and injury, of those that are still to come for this worker.
    """

    worker: str
    plan: CrashPlan
    topic: str
    dead_letters: str
    group: str
    bootstrap: str
    config: dict[str, str] = field(default_factory=dict, repr=False)
    traps: tuple[tuple[int, Injury], ...] = ()

    def to_text(self) -> str:
        """Give it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Job:
        """Read what `to_text` wrote."""
        told = json.loads(text)
        plan = told["plan"]
        policy = plan.pop("policy")
        plan["policy"] = RetryPolicy(**{**policy, "backoff": Backoff(**policy["backoff"])})
        plan["injuries"] = tuple(Injury(**injury) for injury in plan["injuries"])
        told["plan"] = CrashPlan(**plan)
        told["traps"] = tuple((number, Injury(**injury)) for number, injury in told["traps"])
        return cls(**told)


class Notes(logging.Handler):
    """Passes on what the kit warns of: a crash test asks when something was handled again.

    Args:
        tell: called with `note` and the text.
    """

    def __init__(self, tell: Callable[[str, str], object]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell; what the Kafka client has to say of an outage is nothing new."""
        if record.name == "orderkit":
            self._tell("note", record.getMessage())


class Worker:
    """Does a job, and tells what it does.

    Args:
        job: what to do.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._trap = Trap(job.traps, lambda number: self.tell("injury", number))
        self._parent = os.getppid()
        logging.getLogger("orderkit").addHandler(Notes(self.tell))
        prefix = "" if job.worker == PRODUCER else "dlq-"
        self._connection = WatchedConnection(job.bootstrap, job.config, self._passed, prefix)

    def tell(self, *words: object) -> None:
        """Write a line: when, and what."""
        line = json.dumps([time.monotonic_ns(), *words]) + "\n"
        try:
            os.write(1, line.encode())
        except BrokenPipeError:  # nobody is left to hear it
            os._exit(1)

    def _passed(self, point: str, message: Message | None) -> None:
        if point == "ack" and message is not None:
            self.tell("acked", message.partition(), message.offset())
        self._trap.passed(point)

    def run(self) -> None:
        """Work until it is done, or until SIGTERM."""
        if self._job.worker == PRODUCER:
            self._produce()
        else:
            self._consume()

    def _produce(self) -> None:
        job = self._job
        missing = self._missing()  # before the first order: the topic says what a run before this one has done
        producer = OrderProducer(self._connection, job.topic, key="product", faults=job.plan.faults)
        signal.signal(signal.SIGTERM, lambda *_: producer.stop())
        report = producer.run(missing, 1 / job.plan.rate)
        if report.failed:
            raise OrderkitError(f"{report.failed} orders were not taken: {report.error}")

    def _missing(self) -> Iterable[Order]:
        plain = Connection(self._job.bootstrap, self._job.config)
        there = {message.value() for message in read_topic(plain, self._job.topic)}
        return [order for value, order in self._job.plan.values().items() if value not in there]

    def _consume(self) -> None:
        job = self._job
        consumer = RetryingConsumer(
            self._connection,
            self._handle,
            group=job.group,
            topic=job.topic,
            dead_letters=job.dead_letters,
            policy=job.plan.policy,
            engine=job.plan.engine,
            delivery=job.plan.delivery,
            instance=job.worker,
            batch=job.plan.batch,
        )
        signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
        if job.plan.delivery == "at-most-once":
            consumer.member.commits.now = Ahead(consumer.member.commits, self.tell).now  # type: ignore[method-assign]
        told = 0

        def watch() -> bool:
            nonlocal told
            if consumer.member.rebalances > told:
                told += 1
                self.tell("assigned", ", ".join(f"{part} from {part.began}" for part in consumer.member.parts.values()))
            return os.getppid() != self._parent  # nobody is left to end us

        consumer.run(until=watch)

    def _handle(self, order: Order, attempt: int) -> None:
        """Let the order's fate strike, and leave a trace that no crash can wipe out."""
        done = False
        try:
            self._job.plan.faults.strike(order, attempt)
            done = True
        finally:
            self.tell("handled", order["orderId"], attempt, done)
            self._trap.passed("handler")


def main() -> Any:
    """Read the job, and do it."""
    job = Job.from_text(sys.stdin.read())
    try:
        Worker(job).run()
    except OrderkitError as error:
        sys.exit(str(error))
