"""How the consumer's rate moves with partitions, members, failing orders, batch and record size.

    python benchmarks/scale.py                 # all axes on a real broker of its own, about ten minutes
    python benchmarks/scale.py members batch   # only these

Each line is the median of some runs; an axis goes through its values in turn, once a round, so that whatever else
the machine does meets each of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event

from orderkit import Backoff, RetryingConsumer, RetryPolicy
from orderkit.account.state import group_state
from orderkit.bench import Stage
from orderkit.brokers import ApacheBroker
from orderkit.kafka import Connection
from orderkit.ledger import Ledger
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order

PATIENCE = 120.0  # seconds for a run


@dataclass(frozen=True)
class Case:
    """One run.

    Args:
        partitions, members, batch: of topic, group, and each fetch.
        failing: share of orders whose first attempt fails; a quarter of these fail always.
        filler: bytes added to an order.
    """

    partitions: int = 4
    members: int = 1
    failing: float = 0.15
    batch: int = 2000
    filler: int = 0


AXES: dict[str, Sequence[float]] = {
    "partitions": [1, 2, 4, 8, 16],
    "members": [1, 2, 3, 4],
    "failing": [0.0, 0.1, 0.2, 0.5],
    "batch": [100, 500, 2000, 5000],
    "filler": [0, 100, 1000],
}


@dataclass(frozen=True)
class Handler:
    """Fails a share of the orders, by their ids alone."""

    failing: float

    def __call__(self, order: Order, attempt: int) -> None:
        """Fail or not."""
        lot = int(order["orderId"]) * 7919 % 1000 / 1000
        if lot < (self.failing if attempt == 1 else self.failing / 4):
            raise TimeoutError("the service is not there")


def member(bootstrap: str, topic: str, letters: str, group: str, case: Case, end: Event) -> None:
    """Consume until told to end."""
    RetryingConsumer(
        Connection(bootstrap),
        Handler(case.failing),
        group=group,
        topic=topic,
        dead_letters=letters,
        policy=RetryPolicy(backoff=Backoff("fixed", base=0.0)),
        codec=Codec("raw"),
        ledger=Ledger(keep=100_000),
        batch=case.batch,
    ).run(until=end.is_set)


def rate(stage: Stage, orders: int, case: Case) -> float:
    """Give orders a second, from the group's first commit to its last."""
    topic, _ = stage.filled(orders)
    letters, group = stage.new_topic("dlq"), f"scale-{uuid.uuid4().hex}"
    spawn = multiprocessing.get_context("spawn")
    end = spawn.Event()
    arguments = (stage.connection.bootstrap, topic, letters, group, case, end)
    members = [spawn.Process(target=member, args=arguments) for _ in range(case.members)]
    for process in members:
        process.start()
    first, start, deadline = 0, 0.0, time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            done, now = sum(group_state(stage.connection, group, topic).offsets.values()), time.monotonic()
            if done and not start:
                first, start = done, now
            if done >= orders:
                return (orders - first) / (now - start)
            time.sleep(0.02)
        raise SystemExit(f"{case}: not done after {PATIENCE:g} s")
    finally:
        end.set()
        for process in members:
            process.join(20)
            process.kill()
        stage.drop(letters)


def measure(axis: str, values: Sequence[float], orders: int, rounds: int, connection: Connection) -> None:
    """Go through an axis, and print a line for each value."""
    cases = [replace(Case(), **{axis: value}) for value in values]  # type: ignore[arg-type]
    stages = {(case.partitions, case.filler): Stage(connection, case.partitions, case.filler) for case in cases}
    rates: dict[Case, list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            rates[case].append(rate(stages[case.partitions, case.filler], orders, case))
    print(f"\n| {axis} | orders/s | slowest | fastest |\n|---:|---:|---:|---:|")
    for value, case in zip(values, cases, strict=True):
        found = rates[case]
        print(f"| {value} | {statistics.median(found):,.0f} | {min(found):,.0f} | {max(found):,.0f} |", flush=True)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axes", nargs="*", help=", ".join(AXES))
    parser.add_argument("--orders", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if unknown := [axis for axis in given.axes if axis not in AXES]:
        parser.error(f"no axis is called {unknown[0]!r}; choose from {', '.join(AXES)}")
    with ApacheBroker({}) as broker:
        for axis in given.axes or AXES:
            measure(axis, AXES[axis], given.orders, given.rounds, broker.connection)


if __name__ == "__main__":
    main()
