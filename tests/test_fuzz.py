"""Records that no honest producer would write: none stops the consumer, and each is kept byte for byte.

`ORDERKIT_LONG=1` raises the records from 5,000 to 100,000.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
from helpers import AT_ONCE, Kit, Record, average_of, take_orders
from hypothesis import given, settings
from hypothesis import strategies as st

from orderkit.brokers import ApacheBroker
from orderkit.dead_letters import read_topic
from orderkit.dead_letters.writer import DLQ_CONFIG
from orderkit.orders.avro import WIRES, Codec
from orderkit.orders.order import Order
from orderkit.retry import Failure

LONG = os.environ.get("ORDERKIT_LONG") == "1"
RECORDS = 100_000 if LONG else 5_000
MEGABYTE = 1024 * 1024
HEAVY = 20  # records with a key of 1 MB, and as many with 100,000 bytes of headers
ORDERS = [codec.encode(order) for codec in map(Codec, WIRES) for order in take_orders(200)]
READER = Codec()  # one for all: to make one takes longer than to read a record


def at_random(chance: random.Random) -> Record:
    return Record(chance.randbytes(chance.randrange(200)), chance.randbytes(chance.randrange(20)))


def truncated(chance: random.Random) -> Record:
    value = chance.choice(ORDERS)
    return Record(value[: chance.randrange(len(value))], b"cut")


def bit_flipped(chance: random.Random) -> Record:
    value = bytearray(chance.choice(ORDERS))
    for _ in range(chance.randint(1, 3)):
        value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
    return Record(bytes(value), b"flip")


def wrongly_framed(chance: random.Random) -> Record:
    body = chance.choice(ORDERS)
    frame = chance.choice(
        [b"\xc3\x01" + chance.randbytes(8), b"\x00" + chance.randbytes(4), b"\xc3", b"\x00", b"\xc3\x01"]
    )
    return Record(frame + body, b"frame")


def longer(chance: random.Random) -> Record:
    return Record(chance.choice(ORDERS) + chance.randbytes(chance.randint(1, 50)), None)


def header_bomb(chance: random.Random) -> Record:
    names = ["", "a", "orderkit.dlq.reason", "orderkit.dlq.offset", "orderkit.retry.attempts", "é" * 9]
    headers = [(chance.choice(names), chance.choice([None, b"", b"NaN", chance.randbytes(30)])) for _ in range(99)]
    return Record(chance.choice([b"", None, b"{}", chance.choice(ORDERS)]), b"bomb", list(headers))


KINDS: list[Callable[[random.Random], Record]] = [
    at_random, truncated, bit_flipped, wrongly_framed, longer, bit_flipped, truncated, wrongly_framed,
]  # fmt: skip


def fuzzed(many: int, chance: random.Random) -> list[Record]:
    """Make records of all kinds, the heavy ones among them."""
    records = [chance.choice(KINDS)(chance) for _ in range(many - many // 20 - 2 * HEAVY)]
    records += [header_bomb(chance) for _ in range(many // 20)]
    records += [Record(b"heavy", chance.randbytes(MEGABYTE)) for _ in range(HEAVY)]
    records += [Record(b"heavy", b"headers", [("h", chance.randbytes(100_000))]) for _ in range(HEAVY)]
    chance.shuffle(records)
    for number, record in enumerate(records):
        record.partition = number % 4
    return records


def as_read(order: bytes | None) -> Order | None:
    """Decode a single value, by itself."""
    try:
        return READER.decode(order)
    except Failure:
        return None


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_every_fuzzed_record_is_kept_byte_for_byte(apache: ApacheBroker) -> None:
    """Whatever lies in the topic is averaged if it reads as an order, and else a dead letter with all of its bytes."""
    kit = Kit(4, apache)
    kit.topic, kit.dead_letters = f"{kit.topic}.fuzz", f"{kit.dead_letters}.fuzz"
    kit.connection.create_topics({kit.topic: 4, kit.dead_letters: 4}, DLQ_CONFIG)
    records = fuzzed(RECORDS, random.Random(9))
    kit.send(records)
    readable = [order for record in records if (order := as_read(record.value))]
    began = time.monotonic()
    consumer = kit.consumer(policy=AT_ONCE)
    consumer.run(orders=RECORDS)
    print(f"{RECORDS} records in {time.monotonic() - began:.1f} s, {RECORDS - len(readable)} dead")
    assert kit.left() == 0
    assert kit.state().average == average_of(readable)
    sent = Counter(_whole(record) for record in records if as_read(record.value) is None)
    kept = Counter(
        _whole(Record(message.value(), message.key(), list(message.headers() or [])), own=False)  # type: ignore[arg-type]
        for message in read_topic(kit.connection, kit.dead_letters)
    )
    assert sum(kept.values()) == RECORDS - len(readable)
    assert kept == sent


def _whole(record: Record, own: bool = True) -> tuple[object, ...]:
    """Give all bytes of a record; of a dead letter without the story, which stands behind the record's own headers."""
    headers = record.headers
    if not own:
        starts = [i for i, (name, _) in enumerate(headers) if name == FIRST_OF_STORY]
        headers = headers[: starts[-1]]
    return record.value, record.key, tuple(headers)


FIRST_OF_STORY = "orderkit.dlq.topic"


@given(st.binary(max_size=300), st.sampled_from(ORDERS), st.integers(0, 400))
@settings(max_examples=20_000 if LONG else 500, deadline=None)
def test_the_decoder_answers_with_an_order_or_a_failure(noise: bytes, order: bytes, at: int) -> None:
    """Any bytes, alone or spliced into an order, decode to a whole order or to a failure, one by one or in a batch."""
    values = [noise, order[:at] + noise + order[at:], order[:at] + noise, noise + order, None]
    codec = Codec()
    for value, found in zip(values, codec.decode_batch(values), strict=True):
        try:
            alone: Order | None = codec.decode(value)
        except Failure:
            alone = None
        if isinstance(found, dict):
            assert repr(found) == repr(alone)  # a price may be NaN
            assert found["orderId"]
        else:
            assert isinstance(found, Failure)
            assert alone is None
