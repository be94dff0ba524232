"""Learn retries and dead letters on Kafka: one small, honest system that accounts for every order."""

from orderkit.account.average import RunningAverage
from orderkit.account.report import Report
from orderkit.brokers import ApacheBroker, EmbeddedBroker
from orderkit.consumer import RetryingConsumer
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection, connect
from orderkit.ledger import Ledger
from orderkit.orders.avro import Codec
from orderkit.orders.faults import Faults
from orderkit.orders.order import Order, random_orders
from orderkit.producer import OrderProducer
from orderkit.retry import Fatal, Permanent, Poison, RetryPolicy, Transient, classify, decide
from orderkit.retry.backoff import Backoff
from orderkit.run import Run

__all__ = [
    "ApacheBroker",
    "Backoff",
    "Codec",
    "Connection",
    "EmbeddedBroker",
    "Fatal",
    "Faults",
    "Ledger",
    "Order",
    "OrderProducer",
    "OrderkitError",
    "Permanent",
    "Poison",
    "Report",
    "RetryPolicy",
    "RetryingConsumer",
    "Run",
    "RunningAverage",
    "Transient",
    "classify",
    "connect",
    "decide",
    "random_orders",
]
