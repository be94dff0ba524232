"""Resident memory over a long run: one consumer, its ledger bounded as by default, on a real broker of its own.

    python benchmarks/memory.py                       # 10,000,000 orders, about five minutes
    python benchmarks/memory.py --orders 1000000

The producer has a process of its own, so that only the consumer's memory is looked at.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
from itertools import islice
from pathlib import Path

from orderkit import Backoff, OrderProducer, RetryingConsumer, RetryPolicy
from orderkit.bench.peers.job import process
from orderkit.brokers import ApacheBroker
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec
from orderkit.orders.order import random_orders

STEPS = 10


def resident() -> float:
    """Give the memory of this process in MB (Linux)."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def fill(bootstrap: str, orders: int) -> None:
    """Produce the orders."""
    some = islice(random_orders(7, first=0), orders)
    print(OrderProducer(Connection(bootstrap), codec=Codec("raw"), places=False).run(some), flush=True)


def consume(bootstrap: str, orders: int) -> None:
    """Consume them, and print what the process holds now and then."""
    consumer = RetryingConsumer(
        Connection(bootstrap), process, policy=RetryPolicy(backoff=Backoff("fixed", base=0.0)), codec=Codec("raw")
    )
    print(f"before the first order: {resident():.0f} MB", flush=True)
    for part in range(1, STEPS + 1):
        aim = orders * part // STEPS
        while consumer.ledger.finished < aim:
            consumer.turn()
        print(f"{consumer.ledger.finished:>12,} orders: {resident():.0f} MB", flush=True)
    consumer.run(until=lambda: True)


def main() -> None:
    """Fill a topic, and consume it in a process of its own."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--orders", type=int, default=10_000_000)
    chosen = options.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with ApacheBroker({"orders": 4, "orders-dlq": 4}) as broker:
        for work in (fill, consume):
            worker = spawn.Process(target=work, args=(broker.bootstrap, chosen.orders))
            worker.start()
            worker.join()


if __name__ == "__main__":
    main()
