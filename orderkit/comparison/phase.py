"""One engine at work on topics of its own, and what is measured of it."""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict

from orderkit.account.audit import account
from orderkit.brokers.dlq import use_broker_dlq
from orderkit.comparison.plan import Plan
from orderkit.consuming.consumers import open_consumer
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.orders.order import Order
from orderkit.producer import OrderProducer
from orderkit.retry import Permanent, RetryPolicy, Transient
from orderkit.retry.backoff import Backoff

BROKER_DLQ = "share+dlq"  # a share group whose dead letters the broker itself writes
PARTITIONS = 4
WARM_UP = 16  # orders before the clock starts: joining a group is not the engine's doing
DEADLINE = 120.0  # seconds for one phase
DYING = 10  # of a failing key's orders, one in so many dies


class Phase:
    """One engine on topics of its own."""

    def __init__(self, connection: Connection, engine: str, plan: Plan, failing: set[str]) -> None:
        self.plan = plan
        self.failing = failing
        self.sent: dict[str, float] = {}
        self.done: list[tuple[float, Order]] = []
        self.duplicates = self.lost = 0
        self.records = 0.0
        self._connection = connection
        name = uuid.uuid4().hex[:8]
        self._topic, self._group = f"orders.{name}", f"orderkit.{name}"
        self._letters = f"dlq.{self._topic}" if engine == BROKER_DLQ else f"{self._topic}.dlq"
        connection.create_topics({self._topic: PARTITIONS})
        if engine == BROKER_DLQ:
            use_broker_dlq(connection, self._group, self._letters, PARTITIONS)
        else:
            connection.create_topics({self._letters: PARTITIONS})
        self._engine = "share" if engine == BROKER_DLQ else engine
        self._producer = OrderProducer(connection, self._topic, key="product")
        self._error: BaseException | None = None

    def _handle(self, order: Order, attempt: int) -> None:
        if order["product"] in self.failing:
            if int(order["orderId"]) % DYING == 0:
                raise Permanent("it is bad, and stays so")
            if int(order["orderId"]) % 2 and attempt < self.plan.max_attempts:
                raise Transient("not yet")
        self.done.append((time.monotonic(), order))

    def _open(self) -> None:
        policy = RetryPolicy(self.plan.max_attempts, Backoff("fixed", base=self.plan.backoff))
        self._consumer = open_consumer(
            self._connection, self._handle, engine=self._engine, group=self._group, topic=self._topic,
            dead_letters=self._letters, policy=policy, seed=self.plan.seed,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._consumer.run()
        except BaseException as error:  # raised again where it is waited for
            self._error = error

    def _await(self, finished: int) -> None:
        deadline = time.monotonic() + DEADLINE
        while self._consumer.ledger.finished < finished:
            if self._error is not None:
                raise self._error
            if time.monotonic() > deadline:
                raise OrderkitError(f"The engine {self._engine} has not done its work after {DEADLINE:g} s.")
            time.sleep(0.002)

    def _warm_up(self) -> None:
        for number in range(WARM_UP):
            self._producer.send([{"orderId": f"warm-{number}", "product": f"warm-{number}", "price": 1.0}])
        self._producer.finish()

    def _close(self) -> None:
        self._consumer.stop()
        self._thread.join(30)
        report = account(self._consumer.ledger, self._consumer.state(), self._topic)
        self.duplicates, self.lost = report.duplicated, self.plan.orders + WARM_UP - self._consumer.ledger.finished
        names = [name for name in self._connection.metadata().topics if self._topic in name]
        marks = [mark for name in names for mark in self._connection.watermarks(name).values()]
        self.records = (sum(high - low for low, high in marks) - WARM_UP) / self.plan.orders

    def run(self, rate: float) -> Phase:
        """Produce at a rate, and wait until all is done."""
        self._warm_up()
        self._open()
        self._await(WARM_UP)
        self._producer.run(self.plan.stream(), 1 / rate, told=self._note_sent)
        self._await(WARM_UP + self.plan.orders)
        self._close()
        return self

    def _note_sent(self, order: Order) -> None:
        self.sent[order["orderId"]] = time.monotonic()

    def flat_out(self) -> float:
        """Give the orders a second that are done when all lie ready."""
        self._producer.run(self.plan.stream())
        self._open()
        self._await(1)
        started = time.monotonic()
        self._await(self.plan.orders)
        seconds = time.monotonic() - started
        self._consumer.stop()
        self._thread.join(30)
        return self.plan.orders / max(seconds, 1e-6)

    def waits(self) -> list[float]:
        """Give the milliseconds from production to success of all orders that do not fail."""
        healthy = ((at, order["orderId"]) for at, order in self.done if order["product"] not in self.failing)
        return [max(0.0, at - self.sent[name]) * 1000 for at, name in healthy if name in self.sent]

    def inversions(self) -> int:
        """Count orders that were done after a younger one of their key."""
        latest: dict[str, int] = defaultdict(lambda: -1)
        count = 0
        for _, order in self.done:
            if order["orderId"].isdecimal():
                number = int(order["orderId"])
                count += number < latest[order["product"]]
                latest[order["product"]] = max(latest[order["product"]], number)
        return count
