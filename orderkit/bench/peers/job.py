"""The job that every Python contender does, and how it reports. Needs nothing but fastavro."""

from __future__ import annotations

import io
import json
import sys
import time
from typing import Any, NamedTuple

import fastavro

MAX_ATTEMPTS = 3
COMMIT_EVERY = 10_000  # orders between two commits, where a client leaves that to its user
SCHEMA: Any = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Order",
        "fields": [
            {"name": "orderId", "type": "string"},
            {"name": "product", "type": "string"},
            {"name": "price", "type": "float"},
        ],
    }
)
CONSUMER = {  # of librdkafka, as orderkit sets them
    "session.timeout.ms": 10_000,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    "queued.min.messages": 20_000,
}
PRODUCER = {"enable.idempotence": True, "linger.ms": 5, "message.timeout.ms": 30_000}


class Task(NamedTuple):
    """What a contender is told on its command line."""

    bootstrap: str
    topic: str
    dead_letters: str
    group: str
    orders: int
    settings: str  # "documented" or "ours"

    @property
    def ours(self) -> bool:
        """Whether to use the settings that orderkit uses."""
        return self.settings == "ours"


def task() -> Task:
    """Read the command line."""
    bootstrap, topic, dead_letters, group, orders, settings = sys.argv[1:7]
    return Task(bootstrap, topic, dead_letters, group, int(orders), settings)


def decode(value: Any) -> Any:
    """Read one order, as fastavro's documentation does."""
    return fastavro.schemaless_reader(io.BytesIO(value), SCHEMA, None)


def process(order: Any, attempt: int) -> None:
    """Fail what has to fail: every twentieth order always, every other fifth at the first attempt."""
    number = int(order["orderId"])
    if number % 20 == 0 or (number % 10 == 5 and attempt == 1):
        raise RuntimeError("the service is not there")


def succeeds(order: Any) -> bool:
    """Give an order its attempts; whether one succeeded."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            process(order, attempt)
        except RuntimeError:
            continue
        return True
    return False


class Score:
    """What was done, and how long it took."""

    def __init__(self) -> None:
        self.count = self.dead = self.acknowledged = 0
        self.total = 0.0
        self._start = 0.0

    @property
    def done(self) -> int:
        """Orders that have an end."""
        return self.count + self.dead

    def begin(self) -> None:
        """Start the clock, at the first record."""
        if not self._start:
            self._start = time.perf_counter()

    def take(self, order: Any) -> bool:
        """Try an order and average it; whether it did not become a dead letter."""
        if succeeds(order):
            self.total += order["price"]
            self.count += 1
            return True
        self.dead += 1
        return False

    def delivered(self, error: object, _message: object) -> None:
        """Count an acknowledgement of a dead letter."""
        if error is None:
            self.acknowledged += 1

    def report(self) -> None:
        """Stop the clock and print the result."""
        seconds = time.perf_counter() - self._start
        tell(self.count, self.total, self.dead, seconds)


def tell(count: int, total: float, dead: int, seconds: float) -> None:
    """Print what the bench reads."""
    print(json.dumps({"count": count, "total": total, "dead": dead, "seconds": seconds}), flush=True)
