"""A consumer process that is killed in the middle of a batch, once its dead letters are at the broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import Any

from confluent_kafka import TopicPartition

from orderkit.consumer import RetryingConsumer
from orderkit.consuming.loop import Handler
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.orders.order import Order
from orderkit.retry import Permanent

PATIENCE = 60.0  # seconds for a process to come to its death
LOOK = 0.005  # seconds from one look at the dead-letter topic to the next


def refuse_each(every: int) -> Handler:
    """Make a handler that refuses each `every`-th order for good: the kit's random orders are numbered from 1."""

    def handler(order: Order, _attempt: int) -> None:
        if int(order["orderId"]) % every == 0:
            raise Permanent("no such product")

    return handler


def kill_one(connection: Connection, told: Mapping[str, Any], every: int, at: int) -> None:
    """Let a consumer process work on a topic until it is killed, by `kill -9`, in its handler of order `at`.

    Args:
        connection: the cluster.
        told: settings of the consumer, as `RetryingConsumer` takes them; of one partition.
        every: each so many-th order is refused for good.
        at: the order, from 1. The dead letters of those before it are at the broker when the process dies.

    Raises:
        OrderkitError: the process ended in another way.
    """
    job = {"told": told, "every": every, "at": at}
    job |= {"bootstrap": connection.bootstrap, "config": dict(connection.config)}
    survived = f"The consumer process did not come to order {at}. Is the broker still up?"
    await_death("from orderkit.crash.mortal import live; live()", job, survived)


def await_death(code: str, job: Mapping[str, Any], survived: str) -> None:
    """Run a process until its death.

    Args:
        code: the Python that it runs.
        job: what it reads from its standard input, as JSON.
        survived: what to say when it lives on, or ends well.

    Raises:
        OrderkitError: that, or the last line of a process that failed.
    """
    try:
        ended = subprocess.run(  # noqa: S603  our own interpreter
            [sys.executable, "-c", code],
            input=json.dumps(job).encode(),
            timeout=PATIENCE,
            capture_output=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OrderkitError(survived) from None
    if not ended.returncode:
        raise OrderkitError(survived)
    if ended.returncode > 0:
        lines = ended.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
        raise OrderkitError(f"The consumer process failed: {lines[-1]}")


def live() -> None:
    """Be that process: read the job from standard input, consume, and die."""
    job = json.load(sys.stdin)
    connection = Connection(job["bootstrap"], job["config"])
    every, at, told = job["every"], job["at"], job["told"]
    written = _letters_at_broker(connection, told["dead_letters"])
    refuse = refuse_each(every)

    def handler(order: Order, attempt: int) -> None:
        if int(order["orderId"]) == at:
            deadline = monotonic() + PATIENCE
            while written() < (at - 1) // every and monotonic() < deadline:
                sleep(LOOK)
            os.kill(os.getpid(), signal.SIGKILL)
        refuse(order, attempt)

    RetryingConsumer(connection, handler, **told).run(idle=PATIENCE)


def _letters_at_broker(connection: Connection, topic: str) -> Callable[[], int]:
    """Give a function that counts the records at the broker, those of an open transaction too."""
    client = connection.consumer("orderkit-reader", isolation_level="read_uncommitted")
    place = TopicPartition(topic, 0)
    return lambda: int(client.get_watermark_offsets(place, timeout=PATIENCE)[1])
