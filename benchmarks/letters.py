"""Time and memory of `orderkit dlq stats` over many dead letters, on a real broker of its own.

    python benchmarks/letters.py                     # up to 1,000,000 letters, about two minutes
    python benchmarks/letters.py --letters 250000
    python benchmarks/letters.py -- dlq list --format csv --product Lamp   # another command, over the same letters

The command has a process of its own, its start included; its memory is the most that was resident (Linux).
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence

from orderkit.brokers import ApacheBroker
from orderkit.dead_letters.story import NAMES, PREFIX, Headers
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec
from orderkit.orders.order import random_orders

TOPIC, PARTITIONS = "orders-dlq", 4
STEPS = 4  # sizes at which the command runs
CHILD = """
import atexit, pathlib, re, sys
from orderkit.cli import main
def tell():
    status = pathlib.Path("/proc/self/status").read_text("utf-8")
    print(re.findall(r"VmHWM:\\s+(\\d+) kB", status)[0], file=sys.stderr)
atexit.register(tell)
main(sys.argv[1:])
"""


def trouble(chance: random.Random, number: int) -> tuple[str, str, str]:
    """Draw a reason, an exception's class, and its message: five errors, each told in many ways."""
    lot = chance.random()
    if lot < 0.55:
        return (
            "transient",
            "shop.stock.TimeoutError",
            f"no answer from stock-{lot:.2f}.shop.local:8443 within {lot:.2f} s",
        )
    if lot < 0.8:
        return "permanent", "orderkit.retry.Permanent", f"order {number} is refused"
    if lot < 0.9:
        who = uuid.UUID(int=chance.getrandbits(128))
        return "permanent", "shop.customers.UnknownCustomer", f"customer {who} is unknown"
    if lot < 0.98:
        return "poison", "EOFError", f"no order: cannot read float (at byte {number % 30} of 30)"
    return "permanent", "ValueError", f"price '{lot:.2f}' of product 'Lamp {number}' is no price"


def fill(connection: Connection, first: int, many: int) -> None:
    """Write dead letters as the kit's own consumer does."""
    producer, codec, chance = connection.producer(), Codec(), random.Random(first)
    orders = random_orders(7, first=first)
    for number in range(first, first + many):
        reason, exception, message = trouble(chance, number)
        now = str(int(time.time() * 1000))
        told = (
            "orders",
            str(number % PARTITIONS),
            str(number),
            now,
            "billing",
            "3",
            reason,
            exception,
            message,
            now,
            now,
        )
        headers: Headers = [(PREFIX + name, text) for name, text in zip(NAMES, told, strict=True)]
        while True:
            try:
                producer.produce(TOPIC, codec.encode(next(orders)), str(number), number % PARTITIONS, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    if left := producer.flush(60):
        raise SystemExit(f"{left} letters were not acknowledged")


def measure(bootstrap: str, command: Sequence[str]) -> tuple[float, float, float, str]:
    """Run a command; give its seconds, those of a core, its memory in MB, and what it printed."""
    begun, before = time.monotonic(), os.times()
    line = [sys.executable, "-c", CHILD, *command, "--bootstrap-server", bootstrap]
    done = subprocess.run(line, capture_output=True, text=True, check=True)  # noqa: S603  this kit's own
    after, told = os.times(), "\n".join(done.stdout.splitlines()[:12])
    core = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - begun, core, int(done.stderr) * 1024 / 1e6, told


def main() -> None:
    """Fill the topic step by step, and measure at each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--letters", type=int, default=1_000_000)
    parser.add_argument("command", nargs="*", default=["dlq", "stats"])
    given = parser.parse_args()
    part = given.letters // STEPS
    with ApacheBroker({TOPIC: PARTITIONS}) as broker:
        for step in range(STEPS):
            fill(broker.connection, step * part, part)
            seconds, core, memory, told = measure(broker.bootstrap, given.command)
            print(
                f"{(step + 1) * part:>12,} letters: {seconds:.1f} s ({core:.1f} s of a core), {memory:.0f} MB",
                flush=True,
            )
        print(told)


if __name__ == "__main__":
    main()
