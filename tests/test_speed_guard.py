"""The consumer must not become slow unnoticed: its processor time against a raw loop's, on the same records."""

from __future__ import annotations

import io
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import fastavro
import pytest
from helpers import shared

from orderkit import Backoff, RetryingConsumer, RetryPolicy
from orderkit.bench import Stage
from orderkit.bench.peers.job import SCHEMA, process, succeeds

ORDERS = 20_000
TIMES = 5
TRIES = 3
# The raw loop decodes and tries, and does nothing else: no dead letters, no commits, no account. With all of them the
# consumer takes 1.0 to 1.5 times its time, by the best of several runs in turn; the slow one below, 2.8 to 3.5.
LIMIT = 2.0


pytestmark = pytest.mark.campaign  # benchmarks are no tests


@pytest.fixture(scope="module")
def stage() -> Stage:
    """Give topics of orders on the shared embedded broker."""
    return Stage(shared().connection)


@pytest.fixture(autouse=True)
def untraced() -> Iterator[None]:
    """Take the coverage tool off this thread: it sees our lines, and makes them dearer; fastavro's it cannot see."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


def consumer_time(stage: Stage, spoil: Callable[[RetryingConsumer], None] = lambda _: None) -> float:
    """Give the microseconds of the consumer's own thread for an order."""
    topic, expected = stage.filled(ORDERS)
    consumer = RetryingConsumer(
        stage.connection,
        process,
        group=uuid.uuid4().hex,
        topic=topic,
        dead_letters=stage.new_topic("dlq"),
        policy=RetryPolicy(backoff=Backoff("fixed", base=0.0)),
    )
    spoil(consumer)
    while not consumer.ledger.finished:
        consumer.turn()
    before, start = consumer.ledger.finished, time.thread_time()
    consumer.run(until=lambda: consumer.ledger.finished >= ORDERS)
    seconds = time.thread_time() - start
    assert consumer.state().average.count == expected.count
    return seconds / (ORDERS - before) * 1e6


def raw_time(stage: Stage) -> float:
    """Give the microseconds of a poll loop's thread for an order; it keeps no account and writes no dead letters."""
    topic, expected = stage.filled(ORDERS)
    client = stage.connection.consumer(uuid.uuid4().hex)
    client.subscribe([topic])
    done, total = 0, 0.0
    start = time.thread_time()
    while done < ORDERS:
        message: Any = client.poll(1.0)
        if message is None or message.error():
            continue
        order: Any = fastavro.schemaless_reader(io.BytesIO(message.value()), SCHEMA, None)
        done += 1
        if succeeds(order):
            total += order["price"]
    seconds = time.thread_time() - start
    client.close()
    assert total == pytest.approx(expected.total)
    return seconds / ORDERS * 1e6


def ratio(stage: Stage, spoil: Callable[[RetryingConsumer], None] = lambda _: None) -> float:
    """Give the consumer's best time as a share of the raw loop's best time."""
    pairs = [(consumer_time(stage, spoil), raw_time(stage)) for _ in range(TIMES)]
    return min(ours for ours, _ in pairs) / min(raw for _, raw in pairs)


def test_the_consumer_costs_little_more_than_a_raw_poll_loop(stage: Stage) -> None:
    """Retries, dead letters, average, ledger and commits together may not double the time of polling and decoding."""
    assert any(ratio(stage) < LIMIT for _ in range(TRIES))  # what else the machine does can only spoil a try


def test_the_guard_sees_a_consumer_that_decodes_one_by_one(stage: Stage) -> None:
    """A slow path planted in the consumer, each order decoded by itself and twice, goes over the limit."""

    def spoil(consumer: RetryingConsumer) -> None:
        codec = consumer.codec
        decode = codec._decode_or_failure

        def slowly(values: Any) -> Any:
            return [decode(value) if decode(value) else None for value in values]

        codec.decode_batch = slowly  # type: ignore[method-assign]

    assert all(ratio(stage, spoil) > LIMIT for _ in range(TRIES))
