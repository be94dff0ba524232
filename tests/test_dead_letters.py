"""Dead letters: byte for byte, with their story, and never taken for written before the broker said so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from confluent_kafka import Message
from helpers import (
    AT_ONCE,
    SOON,
    Background,
    Kit,
    Record,
    average_of,
    rarely,
    shared,
    shorten_probes,
    shorten_sessions,
    soon,
    take_orders,
    wait_for,
)

from orderkit.brokers import EmbeddedBroker
from orderkit.dead_letters import MESSAGE_LIMIT, PREFIX, DeadLetterRecord, DeadLetterWriter, Headers
from orderkit.members.stranded import Lookout
from orderkit.orders.order import Order
from orderkit.retry import Permanent, RetryPolicy, Transient
from orderkit.retry.backoff import Backoff

STORY = {
    "topic", "partition", "offset", "timestamp", "group", "attempts", "reason", "exception", "message",
    "first-failure", "last-failure",
}  # fmt: skip

ODD: list[Record] = [
    Record(b"\xff\x00binary\xfe", b"key"),
    Record(b"\xff", None),
    Record(b"\xff", b""),
    Record(b"\xff", b"\x00\x80\xff\xfe"),
    Record(None, b"tombstone"),
    Record(b"", b"empty"),
    Record(b"\xff", b"k", [("trace", b"1"), ("trace", b"2"), ("trace", b"1")]),
    Record(b"\xff", b"k", [("nothing", None), ("empty", b""), ("", b"no name"), ("bin", b"\x00\xff")]),
    Record(b"\xff", b"k", [("Größe", "ü".encode()), ("__dlq.errors.topic", b"old")]),
    Record(b"\xff", b"k", [(f"h{i}", bytes([i % 256]) * i) for i in range(200)]),
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let restarts, and new tries of refused letters, come after a fraction of a second."""
    shorten_sessions(monkeypatch)
    shorten_probes(monkeypatch)


@pytest.fixture
def broken() -> Iterator[EmbeddedBroker]:
    """Give the shared broker to a test that breaks it; it is mended afterwards."""
    broker = shared()
    yield broker
    broker.slow(0)
    for request in ("Produce", "OffsetCommit"):
        broker.fail_next(0, request=request)


def fail(error: BaseException) -> object:
    """Make a handler that always raises the same error."""

    def handler(_order: Order, _attempt: int) -> None:
        raise error

    return handler


def only_letter(kit: Kit, handler: object, **settings: object) -> DeadLetterRecord:
    """Give the dead letter that a failing handler makes of one order."""
    kit.send_orders(take_orders(1))
    kit.consumer(handler, policy=AT_ONCE, **settings).run(orders=1)  # type: ignore[arg-type]
    (letter,) = kit.letters()
    return letter


def refuse_thirds(order: Order, _attempt: int) -> None:
    """Refuse every third order for good."""
    if int(order["orderId"]) % 3 == 0:
        raise Permanent("a third")


def thirds_left_out(orders: list[Order]) -> list[Order]:
    """Give the orders that `refuse_thirds` lets pass."""
    return [order for order in orders if int(order["orderId"]) % 3]


def test_key_value_and_headers_stay_byte_for_byte() -> None:
    """Whatever a record's key, value and headers are, its dead letter has the same, in the same order."""
    kit = Kit()
    kit.send(ODD)
    kit.consumer().run(orders=len(ODD))
    letters = sorted(kit.letters(), key=lambda letter: letter.origin)
    assert [(letter.value, letter.key) for letter in letters] == [(record.value, record.key) for record in ODD]
    for letter, record in zip(letters, ODD, strict=True):
        assert letter.headers == record.headers


def test_a_dead_letter_names_the_error_of_its_last_attempt() -> None:
    """An earlier attempt's error is not the cause of a later one's, though no back-off lies between them."""
    errors = [ConnectionError("first"), TimeoutError("second"), OSError("third")]

    def handler(_order: Order, attempt: int) -> None:
        raise errors[attempt - 1]

    story = only_letter(Kit(1), handler).story
    assert (story["attempts"], story["exception"], story["message"]) == ("3", "OSError", "third")


def test_the_story_says_where_from_and_why() -> None:
    """A dead letter's added headers name origin, group, attempts, reason, error and times."""
    kit, before = Kit(4), time.time()
    orders = take_orders(7)
    kit.send_orders(orders)
    ids = {"7"}

    def handler(order: Order, _attempt: int) -> None:
        if order["orderId"] in ids:
            raise TimeoutError("no answer from the stock service")

    kit.consumer(handler, policy=SOON).run(orders=7)
    (letter,) = kit.letters()
    story = letter.story
    assert set(story) == STORY
    assert letter.origin == (kit.topic, 2, 1)
    assert (story["group"], story["attempts"], story["reason"]) == (kit.group, "3", "transient")
    assert (story["exception"], story["message"]) == ("TimeoutError", "no answer from the stock service")
    first, last = int(story["first-failure"]), int(story["last-failure"])
    assert int(before * 1000) <= first
    assert first + 40 <= last <= int(time.time() * 1000) + 1
    assert abs(int(story["timestamp"]) - first) < 60_000


def test_a_long_message_is_capped() -> None:
    """An exception's message is cut, so that a dead letter does not grow with it."""
    letter = only_letter(Kit(), fail(Permanent("é" * 5000)))
    assert letter.story["message"] == "é" * MESSAGE_LIMIT


def test_a_message_that_is_no_text_is_told_all_the_same() -> None:
    """An exception whose message cannot be encoded does not stop the consumer."""
    assert only_letter(Kit(), fail(Permanent("lone \ud800 surrogate"))).story["message"] == "lone ? surrogate"


def test_the_root_cause_is_named() -> None:
    """Of a chain of exceptions the story names the first one, in full."""

    def handler(_order: Order, _attempt: int) -> None:
        try:
            try:
                raise OSError("disk full")
            except OSError as error:
                raise RuntimeError("could not save") from error
        except RuntimeError as error:
            raise Transient("order not handled") from error

    story = only_letter(Kit(), handler).story
    assert (story["exception"], story["message"], story["reason"]) == ("OSError", "disk full", "transient")


def test_an_exception_of_a_module_is_named_with_it() -> None:
    """Exceptions that are not built in carry their module's name."""
    assert only_letter(Kit(), fail(Permanent("no"))).story["exception"] == "orderkit.retry.Permanent"


def test_an_older_story_is_kept_beside_the_new_one() -> None:
    """A record that was dead-lettered before keeps its old headers, and the new story comes last."""
    old: Headers = [(PREFIX + "reason", b"permanent"), (PREFIX + "topic", b"elsewhere")]
    kit = Kit()
    kit.send([Record(b"\xff", b"k", old)])
    kit.consumer().run(orders=1)
    (letter,) = kit.letters()
    assert letter.origin == (kit.topic, 0, 0)
    assert letter.story["reason"] == "poison"


class Forgetful:
    """A producer whose first record is reported as acknowledged, without an offset, and is written nowhere."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self.forgotten: Callable[[None, Message], None] | None = None
        self.produced = 0

    def produce(self, *arguments: Any, on_delivery: Any, **more: Any) -> None:
        self.produced += 1
        if self.produced == 1:
            self.forgotten = on_delivery
        else:
            self._producer.produce(*arguments, on_delivery=on_delivery, **more)

    def poll(self, wait: float) -> None:
        self._producer.poll(wait)
        if self.forgotten:
            report, self.forgotten = self.forgotten, None
            report(None, Message())


def test_an_acknowledgement_without_an_offset_is_none() -> None:
    """What a client reports as written somewhere it cannot name is offered again, and the offset waits for it."""
    kit, orders = Kit(1), take_orders(5)

    def handler(order: Order, _attempt: int) -> None:
        if order["orderId"] == "2":
            raise Permanent("never")

    kit.send_orders(orders)
    consumer = kit.consumer(handler)
    consumer.letters.producer = forgetful = cast(Any, Forgetful(consumer.letters.producer))
    with Background(consumer):
        wait_for(kit.settled)
    assert forgetful.produced == 2
    assert len(kit.letters()) == 1


def test_a_refused_dead_letter_holds_its_partition_only(broken: EmbeddedBroker) -> None:
    """While the topic refuses, offsets before dead letters stay, the rest flows; afterwards it goes on by itself."""
    kit, orders = Kit(4), take_orders(80)
    handler_calls: list[str] = []

    def handler(order: Order, _attempt: int) -> None:
        handler_calls.append(order["orderId"])
        if order["orderId"] == "2":
            raise Permanent("never")

    kit.send_orders(orders)
    broken.refuse(kit.dead_letters)
    consumer = kit.consumer(handler)
    with Background(consumer):
        wait_for(lambda: consumer.letters.trouble)
        assert f"dead-letter topic {kit.dead_letters} refuses" in (consumer.letters.trouble or "")
        wait_for(rarely(lambda: kit.offsets() | {1: kit.offsets().get(1, 0)} == {0: 20, 1: 0, 2: 20, 3: 20}))
        kit.send_orders(orders)
        wait_for(rarely(lambda: kit.offsets().get(0) == 40))
        assert kit.offsets().get(1, 0) == 0
        assert len(handler_calls) < 160  # the partition is paused: its new orders are not handled
        broken.accept(kit.dead_letters)
        wait_for(kit.settled)
        assert consumer.letters.trouble is None
    assert sorted(letter.origin for letter in kit.letters()) == [(kit.topic, 1, 0), (kit.topic, 1, 20)]
    left = [order for order in orders if order["orderId"] != "2"]
    assert kit.state().average == average_of(left + left)


def test_a_consumer_stopped_while_letters_are_refused_leaves_them(broken: EmbeddedBroker) -> None:
    """Orders whose dead letters were refused stay in flight; the next consumer finishes them, each once."""
    kit, orders = Kit(4), take_orders(60)
    kit.send_orders(orders)
    broken.refuse(kit.dead_letters)
    first = kit.consumer(refuse_thirds)
    first.run(until=soon(lambda: first.letters.trouble and first.ledger.finished == 60))
    in_flight = kit.left()
    assert in_flight >= 20
    broken.accept(kit.dead_letters)
    second = kit.consumer(refuse_thirds)
    second.run(orders=in_flight)
    assert kit.offsets() == dict.fromkeys(range(4), 15)
    assert len(kit.letters()) == 20
    assert len({letter.origin for letter in kit.letters()}) == 20
    assert kit.state().average == average_of(thirds_left_out(orders))
    assert first.ledger.finished + second.ledger.finished == 60


def test_a_back_off_is_kept_while_a_letter_is_refused(broken: EmbeddedBroker) -> None:
    """A refused dead letter does not shorten the wait of the order behind it."""
    kit, tried = Kit(), []

    def handler(order: Order, attempt: int) -> None:
        if order["orderId"] == "1":
            raise Permanent("never")
        tried.append(time.monotonic())
        if attempt == 1:
            raise Transient("not now")

    kit.send_orders(take_orders(2))
    broken.refuse(kit.dead_letters)
    consumer = kit.consumer(handler, policy=RetryPolicy(backoff=Backoff("fixed", base=2.5)))
    with Background(consumer):
        wait_for(lambda: consumer.letters.trouble and tried)
        broken.accept(kit.dead_letters)
        wait_for(lambda: len(tried) == 2)
    assert tried[1] - tried[0] >= 2.5


@pytest.mark.parametrize("error", ["NOT_ENOUGH_REPLICAS", "REQUEST_TIMED_OUT", "INVALID_REQUIRED_ACKS"])
def test_failed_writes_are_repeated(broken: EmbeddedBroker, error: str) -> None:
    """Dead letters whose write fails a few times arrive in the end, once, and the average is exact."""
    kit, orders = Kit(4), take_orders(60)
    kit.send_orders(orders)
    consumer = kit.consumer(refuse_thirds)
    broken.fail_next(3, error)
    consumer.run(until=soon(kit.settled))
    assert len(kit.letters()) == len({letter.origin for letter in kit.letters()}) == 20
    assert kit.state().average == average_of(thirds_left_out(orders))


@pytest.mark.parametrize("given", [False, True])
def test_a_producer_that_was_given_is_replaced_by_its_giver(given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer opens a new producer for its own only: another's may hold a transaction, which a new one is not in."""
    connection = shared().connection
    producer = connection.producer() if given else None
    writer = DeadLetterWriter(connection, "letters", "group", producer)
    first = writer.producer
    writer.under_way = 1  # or nobody would miss the broker
    monkeypatch.setattr(Lookout, "has_lost", lambda _lookout, client: client is first)
    writer.serve()
    assert (writer.producer is first) == given


def test_nothing_is_committed_before_its_dead_letters_are_acknowledged(broken: EmbeddedBroker) -> None:
    """Handling goes on while the topic is slow, and the commits stay behind the acknowledgements."""
    kit, orders = Kit(), take_orders(50)
    kit.send_orders(orders)
    consumer = kit.consumer(refuse_thirds, batch=5)
    while not consumer.member.parts:
        consumer.turn()
    broken.slow(200)
    (part,) = consumer.member.parts.values()
    while consumer.ledger.finished < 50:
        consumer.turn()
        assert consumer.letters.acknowledged >= max(0, part.committed) // 3
    consumer.close()
    broken.slow(0)
    assert kit.offsets() == {0: 50}
    assert sorted(letter.origin[2] for letter in kit.letters()) == list(range(2, 50, 3))
    assert kit.state().average == average_of(thirds_left_out(orders))
