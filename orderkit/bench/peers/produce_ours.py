"""orderkit's `OrderProducer` without a pace: counts alone, or with the place of each order (`places`)."""

from __future__ import annotations

from itertools import islice

from orderkit.bench.stage import SEED
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec
from orderkit.orders.order import random_orders
from orderkit.producer import OrderProducer

from .job import Score, task


def main() -> None:
    """Produce the orders, each accounted for by its delivery report."""
    job, score = task(), Score()
    orders = list(islice(random_orders(SEED, first=0), job.orders))
    producer = OrderProducer(Connection(job.bootstrap), job.topic, codec=Codec("raw"), places=job.settings == "places")
    score.begin()
    score.count = producer.run(orders).acknowledged
    score.report()


if __name__ == "__main__":
    main()
