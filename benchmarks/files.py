"""How fast dead letters go into a file and out of it, and how much memory that takes: whole commands, on a real broker.

    python benchmarks/files.py                      # 1,000,000 letters as JSON lines and as Parquet
    python benchmarks/files.py --letters 300000

A letter has a value of 100 bytes (an order, in Avro's single-object encoding) and the kit's own eleven headers. Each
command is a process of its own: its start is in the seconds, and `peak` is the most memory that it ever held. What the
broker itself takes of the two cores is taken from the command.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from orderkit.brokers import ApacheBroker
from orderkit.dead_letters.story import OWN
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec

PARTITIONS = 4
QUEUE = 50_000  # records on their way
PRODUCT = "Lamp" + "-" * 54  # makes a value of 100 bytes


def fill(connection: Connection, topic: str, many: int) -> None:
    """Write letters as the kit's own consumer does."""
    codec, producer = Codec(), connection.producer(linger_ms=50)
    told = (b"2", b"%d", b"1764000000000", b"orderkit", b"3", b"transient", b"builtins.TimeoutError")
    now = int(time.time() * 1000)  # letters of last year would be gone soon
    more = (b"the payment service did not answer", b"1764000000000", b"1764000000500")
    for number in range(many):
        order: Any = {"orderId": f"{number:026}", "product": PRODUCT, "price": number % 1000 / 4}
        contents = (b"orders", told[0], b"%d" % number, *told[2:], *more)
        headers: Any = list(zip(OWN, contents, strict=True))
        key = order["orderId"]
        producer.produce(topic, codec.encode(order), key, number % PARTITIONS, headers=headers, timestamp=now)
        while len(producer) > QUEUE:
            producer.poll(0.01)
    assert producer.flush(60) == 0, "the broker does not answer"  # noqa: S101


def command(bootstrap: str, *words: str) -> tuple[float, float, float]:
    """Run a command; give its seconds, those of the processor, and the most memory it held, in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603  our own command
        [sys.executable, "-m", "orderkit", "dlq", *words, "--bootstrap-server", bootstrap], stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"orderkit dlq {' '.join(words)}: status {process.returncode}")
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


def measure(broker: ApacheBroker, folder: Path, kind: str, many: int, rounds: int) -> None:
    """Export and import some rounds, and print a line for each command."""
    file = str(folder / f"letters.{kind}")
    for round_ in range(rounds):
        target = f"back-{kind}-{round_}"
        broker.connection.create_topics({target: PARTITIONS})
        runs = {
            "export": ("export", file, "--overwrite", "--dlq-topic", "letters"),
            "import": ("import", file, "--to", target, "--yes"),
        }
        for name, words in runs.items():
            took, processor, peak = command(broker.bootstrap, *words)
            size = Path(file).stat().st_size / 1e6
            told = f"{many / took:>8,.0f} letters/s, {took:5.1f} s, processor {1e6 * processor / many:5.1f} us a letter"
            print(f"{name} {kind:8} {told}, peak {peak:4.0f} MB, file {size:6.1f} MB", flush=True)
        ends = broker.connection.watermarks(target).values()
        assert sum(high - low for low, high in ends) == many, "letters are missing"  # noqa: S101
        broker.connection.delete_topics([target])


def main() -> None:
    """Fill a topic, and measure both formats."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--letters", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("kinds", nargs="*", default=["jsonl", "parquet"])
    chosen = options.parse_args()
    with ApacheBroker({"letters": PARTITIONS}) as broker, tempfile.TemporaryDirectory() as folder:
        fill(broker.connection, "letters", chosen.letters)
        for kind in chosen.kinds:
            measure(broker, Path(folder), kind, chosen.letters, chosen.rounds)


if __name__ == "__main__":
    main()
