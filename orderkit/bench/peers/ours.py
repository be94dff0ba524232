"""orderkit itself: the real `RetryingConsumer`, with nothing that its users do not have."""

from __future__ import annotations

import time

from orderkit.consumer import RetryingConsumer
from orderkit.kafka import Connection
from orderkit.ledger import Ledger
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.retry import RetryPolicy
from orderkit.retry.backoff import Backoff

from .job import MAX_ATTEMPTS, process, task, tell


def main() -> None:
    """Do the job; the settings say how: `default`, `full` (every event is kept) or `exactly-once`."""
    job = task()
    times: list[float] = []

    def first(order: Order, attempt: int) -> None:
        times.append(time.perf_counter())
        consumer.handler = process
        process(order, attempt)

    def done() -> bool:
        if consumer.ledger.finished < job.orders or not consumer.settled:
            return False
        times.append(time.perf_counter())
        return True

    consumer = RetryingConsumer(
        Connection(job.bootstrap),
        first,
        group=job.group,
        topic=job.topic,
        dead_letters=job.dead_letters,
        policy=RetryPolicy(MAX_ATTEMPTS, Backoff("fixed", base=0.0)),
        delivery="exactly-once" if job.settings == "exactly-once" else "at-least-once",
        codec=Codec("raw"),
        ledger=Ledger() if job.settings == "full" else Ledger(keep=100_000),
    )
    consumer.run(until=done)
    state = consumer.state()
    tell(state.average.count, float(state.average.sum), state.dead, times[-1] - times[0])


if __name__ == "__main__":
    main()
