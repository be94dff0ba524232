"""The plain way to produce: encode one, `produce(on_delivery=...)`, `poll(0)`, and `flush` at the end."""

from __future__ import annotations

import io
from itertools import islice
from typing import Any

import fastavro
from confluent_kafka import Producer

from orderkit.bench.stage import SEED
from orderkit.orders.order import random_orders

from .job import PRODUCER, SCHEMA, Score, task


def encode(order: Any) -> bytes:
    """Write one order, as fastavro's documentation does."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, order)
    return out.getvalue()


def main() -> None:
    """Produce the orders, each accounted for by its delivery report."""
    job, score = task(), Score()
    orders = list(islice(random_orders(SEED, first=0), job.orders))
    producer = Producer(
        {
            "bootstrap.servers": job.bootstrap,
            "queue.buffering.max.messages": 1_000_000,
            **(PRODUCER if job.ours else {}),
        }
    )
    score.begin()
    for order in orders:
        producer.produce(job.topic, encode(order), order["orderId"], on_delivery=score.delivered)
        producer.poll(0)
    producer.flush()
    score.count = score.acknowledged
    score.report()


if __name__ == "__main__":
    main()
