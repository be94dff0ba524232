"""`orderkit produce`: random orders onto a topic."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import click

from orderkit.cli.options import connection_options, make_connection, schema_option, topic_options, wire_option
from orderkit.cli.signals import stop_on_signal
from orderkit.cli.types import COUNT, SECONDS, SHARE, SOME, OneOf, examples
from orderkit.errors import UsageError
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import PRODUCTS, Order, random_orders
from orderkit.producer import KEYS, OrderProducer
from orderkit.show.printable import say
from orderkit.show.view import producing

ABANDONED = "interrupted; orders without a receipt may or may not be in the topic."


@click.command(
    epilog=examples("orderkit produce --verbose", "orderkit produce --orders 10000 --rate 0 --key product --wire raw")
)
@click.option("--every", type=SECONDS, help="Seconds between two orders.  [default: 2]")
@click.option("--rate", type=SECONDS, help="Orders a second, instead; 0 for as fast as it goes.")
@click.option("--orders", type=SOME, help="Stop after so many; without it, go on until Ctrl-C.")
@click.option("--seed", type=int, help="Decides the orders; without it, others each time.")
@click.option("--first", type=COUNT, help="Number of the first order.  [default: the next after those in the topic]")
@click.option("--product", "products", type=OneOf(tuple(PRODUCTS)), multiple=True, help="Only these.")
@click.option("--key", type=OneOf(KEYS), default="orderId", show_default=True, help="Key of the records.")
@click.option(
    "--poison-rate", type=SHARE, default=0.0, show_default=True, help="Share of orders whose bytes are damaged."
)
@wire_option
@schema_option
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each order.")
@topic_options
@connection_options
def produce(**options: Any) -> int:
    """Produce random orders, one every 2 s by default, each proved by its delivery report."""
    every = pace(options["every"], options["rate"])
    seed = random.randrange(2**32) if options["seed"] is None else options["seed"]
    products = options["products"] or tuple(PRODUCTS)
    connection, first = make_connection(options), options["first"]
    if first is None:
        first = 1 + sum(high for _, high in connection.watermarks(options["topic"]).values())
    producer = OrderProducer(
        connection,
        options["topic"],
        codec=Codec(options["wire"], options["schema"]),
        key=options["key"],
        faults=Faults(seed, poison_rate=options["poison_rate"]),
        places=False,
    )
    orders = random_orders(seed, products, first)
    ending = stop_on_signal(producer.stop, lambda: "Receipts of the broker are awaited", ABANDONED)
    with ending, producing(producer, options["orders"], quiet=options["verbose"]):
        producer.run(islice(orders, options["orders"]), every, _tell if options["verbose"] else None)
    click.echo(f"{producer.produced} (seed {seed})")
    return 1 if producer.produced.failed else 0


def _tell(order: Order) -> None:
    say(f"order {order['orderId']}: {order['product']} at {order['price']:.2f}")


def pace(every: float | None = None, rate: float | None = None) -> float:
    """Give the seconds between two orders from either way to say it.

    Args:
        every: seconds between two orders.
        rate: orders a second; 0 means as fast as the broker takes them.

    Raises:
        UsageError: a negative number, or both.
    """
    if every is not None and rate is not None:
        raise UsageError("--every and --rate say the same thing twice. Give one of them.")
    if rate is not None:
        if not 0 <= rate < float("inf"):
            raise UsageError(f"rate is {rate}; it must be 0 (as fast as it goes) or more orders a second.")
        return 1 / rate if rate else 0.0
    every = 2.0 if every is None else every
    if not 0 <= every < float("inf"):
        raise UsageError(f"every is {every}; it must be 0 or more seconds between two orders.")
    return every
