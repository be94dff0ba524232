"""A broker about to stop may say that there are no brokers; who believes it is lost, and a new client is opened."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import pytest
from helpers import AT_ONCE, Background, Kit, average_of, take_orders, wait_for

from orderkit.brokers import far
from orderkit.brokers.proxy import Proxy
from orderkit.crash.stage import Stage
from orderkit.dead_letters import DeadLetterRecord
from orderkit.kafka import Connection
from orderkit.members.stranded import is_stranded
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.producer import OrderProducer
from orderkit.retry import Permanent

METADATA = 3  # the number of the request
OFTEN = {"topic.metadata.refresh.interval.ms": "500", "message.timeout.ms": "3000"}

pytestmark = pytest.mark.kafka


class LyingProxy(Proxy):
    """Relays, and takes the brokers out of the next `lies` answers to metadata requests."""

    lies = 0

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked: set[bytes] = set()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            assert self.target is not None
            there, back = await asyncio.open_connection(*self.target)
            await asyncio.gather(self._ask(reader, back, asked), self._answer(there, writer, asked))
        writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: set[bytes]) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while frame := await read_frame(reader):
                if int.from_bytes(frame[:2], "big") == METADATA and self.lies:
                    asked.add(frame[4:8])
                await self._pass_on(frame, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: set[bytes]) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while frame := await read_frame(reader):
                if frame[:4] in asked and self.lies:
                    self.lies -= 1
                    frame = without_brokers(frame)
                await self._pass_on(frame, writer)
        writer.close()

    async def _pass_on(self, frame: bytes, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        writer.write(len(frame).to_bytes(4, "big") + frame)
        await writer.drain()


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Read one request or answer of Kafka's protocol."""
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def without_brokers(frame: bytes) -> bytes:
    """Take the brokers out of an answer to a metadata request, of a version from 9 on."""
    start = at = 4 + 1 + 4  # correlation id, tags, throttle time
    many, at = read_varint(frame, at)
    for _ in range(many - 1):
        length, at = read_varint(frame, at + 4)  # node id; the host's length, and one
        length, at = read_varint(frame, at + length - 1 + 4)  # host, port; the rack's length, and one
        at += max(0, length - 1) + 1  # rack; no tags
    return frame[:start] + b"\x01" + frame[at:]


def read_varint(frame: bytes, at: int) -> tuple[int, int]:
    """Read an unsigned number of variable length; give it, and where it ends."""
    value = shift = 0
    while True:
        value |= (frame[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not frame[at - 1] & 0x80:
            return value, at


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """Give a real broker behind a network that can lie; clients of `far` ask for brokers twice a second."""
    monkeypatch.setattr(far, "Proxy", LyingProxy)
    with Stage() as stage:
        stage.far = Connection(stage.far.bootstrap, {**stage.far.config, **OFTEN})
        yield stage


def lie(stage: Stage, times: int) -> None:
    """Let so many answers name no brokers, and wait until they did."""
    assert isinstance(stage.proxy, LyingProxy)
    stage.proxy.lies = times
    wait_for(lambda: stage.proxy.lies == 0)  # type: ignore[attr-defined]


def decode(letter: DeadLetterRecord) -> Order:
    """Read the order in a dead letter."""
    (order,) = Codec().decode_batch([letter.value])
    assert isinstance(order, dict)
    return order


def test_a_client_is_stranded_only_when_others_are_not(stage: Stage) -> None:
    """Neither a client that is well nor one in an outage is; one that was told of no brokers is, and stays so."""
    stage.create_topics({"orders": 1}, {"orders-dlq": 1})
    client = stage.far.producer()
    client.list_topics("orders", timeout=5)
    assert not is_stranded(stage.far, client, "orders")
    stage.proxy.cut()
    assert not is_stranded(stage.far, client, "orders")
    stage.proxy.mend()
    client.produce("orders", b"")
    assert client.flush(10) == 0
    lie(stage, 1)
    assert is_stranded(stage.far, client, "orders")
    assert not is_stranded(stage.far, stage.far.producer(), "orders")
    client.purge()


@pytest.mark.campaign
@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_consumer_goes_on_with_new_clients(stage: Stage, delivery: str) -> None:
    """Its two clients are stranded while orders flow; every order is accounted for, and it ends when asked."""
    orders = take_orders(1500)
    doomed = {order["orderId"] for order in orders[::5]}

    def slow(order: Order, _attempt: int) -> None:
        time.sleep(0.002)
        if order["orderId"] in doomed:
            raise Permanent("no")

    kit = Kit(2)
    kit.connection = stage.near
    stage.create_topics({kit.topic: 2}, {kit.dead_letters: 2})
    kit.send_orders(orders)
    kit.connection = stage.far
    consumer = kit.consumer(slow, delivery=delivery, policy=AT_ONCE, batch=100)
    kit.connection = stage.near
    with Background(consumer):
        wait_for(lambda: kit.state().average.count > 100)
        lie(stage, 2)
        wait_for(lambda: kit.state().average.count == 1200, 120)
    assert kit.state().average == average_of([order for order in orders if order["orderId"] not in doomed])
    letters = [order["orderId"] for order in map(decode, kit.letters())]
    assert set(letters) == doomed
    assert delivery != "exactly-once" or len(letters) == len(doomed)


@pytest.mark.campaign
def test_a_producer_goes_on_with_a_new_client(stage: Stage) -> None:
    """Orders that could not be written are counted as failed; those after them are written."""
    stage.create_topics({"orders": 1}, {"orders-dlq": 1})
    producer = OrderProducer(stage.far)
    producer.send(take_orders(10))
    wait_for(lambda: producer.run([]).acknowledged == 10)
    lie(stage, 1)
    deadline = time.monotonic() + 60
    while producer.produced.acknowledged == 10 and time.monotonic() < deadline:
        producer.run(take_orders(5), every=0.1)
    produced = producer.produced
    assert produced.failed > 0
    assert produced.acknowledged > 10
    assert produced.sent == produced.acknowledged + produced.failed
    assert stage.near.watermarks("orders")[0][1] == produced.acknowledged
