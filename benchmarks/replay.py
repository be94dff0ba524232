"""How fast `orderkit dlq replay` moves dead letters on a real broker, each one acknowledged, and where the time goes.

    python benchmarks/replay.py                 # about five minutes
    python benchmarks/replay.py --letters 200000 --rounds 1

Whole commands, one after the other, each into a topic of its own: as by default, with `--jobs 2`, and with
`--exactly-once`. Beside them what no replay in Python gets below: a loop that only reads, one that only writes, and one
that does both, with the same headers and no account of anything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import Producer

from orderkit.brokers import ApacheBroker
from orderkit.dead_letters.reader import read_batches
from orderkit.dead_letters.story import OWN, Headers
from orderkit.kafka import Connection
from orderkit.kafka.settings import BULK_SETTINGS
from orderkit.orders.avro import Codec
from orderkit.orders.order import random_orders

PARTITIONS = 4
SOURCE = "shop-dlq"
COMMANDS = {"default": [], "--jobs 2": ["--jobs", "2"], "--exactly-once": ["--exactly-once"]}
TOLD = ("shop", "", "", "1764400000000", "billing", "3", "transient", "shop.Down", "the service is away", "1", "2")


def write_letters(connection: Connection, many: int) -> None:
    """Fill the dead-letter topic with letters of our own dialect, eleven headers each."""
    connection.create_topics({SOURCE: PARTITIONS})
    producer, encode = connection.producer(**BULK_SETTINGS), Codec().encode
    for i, order in zip(range(many), random_orders(1), strict=False):
        told = dict(zip(OWN, TOLD, strict=True))
        told["orderkit.dlq.partition"], told["orderkit.dlq.offset"] = str(i % PARTITIONS), str(i // PARTITIONS)
        _produce(producer, SOURCE, encode(order), order["orderId"].encode(), i % PARTITIONS, list(told.items()))
    producer.flush(60)


def _produce(producer: Producer, topic: str, value: Any, key: Any, partition: int, headers: Any, **more: Any) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition, headers=headers, **more)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def replay(connection: Connection, many: int, target: str, options: list[str]) -> tuple[float, float]:
    """Run the command; give letters a second, of the whole command and of its work alone."""
    command = [sys.executable, "-m", "orderkit", "dlq", "replay", "--dlq-topic", SOURCE, "--to", target, "--yes"]
    start = time.monotonic()
    done = subprocess.run(  # noqa: S603
        [*command, "--json", "--bootstrap-server", connection.bootstrap, *options], capture_output=True, check=True
    )
    took = time.monotonic() - start
    told = json.loads(done.stdout)
    if told["counts"] != {"moved": many}:
        raise SystemExit(f"{target}: {told['counts']}, not {many} moved")
    return many / took, many / told["seconds"]


def floors(connection: Connection, many: int, targets: Iterator[str]) -> dict[str, float]:
    """Measure what a bare loop does: letters a second."""
    headers: Headers = [(name, b"1234") for name in (*OWN[:3], "orderkit.dlq.replay-count")]

    def read() -> None:
        for batch in read_batches(connection, SOURCE, most=10_000):
            for message in batch:
                message.headers(), message.value(), message.key()

    def write() -> None:
        producer, target, left = connection.producer(**BULK_SETTINGS), next(targets), [many]

        def delivered(_error: object, _report: object) -> None:
            left[0] -= 1

        for i in range(many):
            _produce(producer, target, b"x" * 30, b"12345", i % PARTITIONS, headers, on_delivery=delivered)
        producer.flush(60)
        assert not left[0]  # noqa: S101

    def both() -> None:
        producer, target = connection.producer(**BULK_SETTINGS), next(targets)

        def delivered(_error: object, _report: object) -> None:
            return

        for batch in read_batches(connection, SOURCE, most=10_000):
            for it in batch:
                told: Any = it.headers()
                _produce(producer, target, it.value(), it.key(), -1, told[:4], on_delivery=delivered)
            producer.poll(0)
        producer.flush(60)

    return {f"only {work.__name__}": many / _seconds(work) for work in (read, write, both)}


def _seconds(work: Callable[[], None]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def main() -> None:
    """Print each rate, and the medians."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--letters", type=int, default=500_000)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    rates: dict[str, list[float]] = {}
    with ApacheBroker({}) as broker:
        connection = broker.connection
        write_letters(connection, chosen.letters)
        for number in range(chosen.rounds):
            for name, more in COMMANDS.items():
                target = f"target-{number}{name.replace(' ', '-')}"
                connection.create_topics({target: PARTITIONS})
                whole, alone = replay(connection, chosen.letters, target, more)
                rates.setdefault(f"{name}, whole command", []).append(whole)
                rates.setdefault(f"{name}, its work", []).append(alone)
                connection.delete_topics([target])
            names = [f"floor-{number}-{i}" for i in range(2)]
            connection.create_topics(dict.fromkeys(names, PARTITIONS))
            for name, rate in floors(connection, chosen.letters, iter(names)).items():
                rates.setdefault(name, []).append(rate)
            connection.delete_topics(names)
            print({name: f"{some[-1]:,.0f}" for name, some in rates.items()}, flush=True)
    for name, some in rates.items():
        print(f"{name:32} {statistics.median(some):>10,.0f} a second")


if __name__ == "__main__":
    main()
