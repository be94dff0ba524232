"""What a transaction hides: while it is open for a while, and for ever when the broker has lost its end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from helpers import wait_for

from orderkit.brokers import ApacheBroker
from orderkit.crash import hidden
from orderkit.crash.evidence import read_stable
from orderkit.crash.hidden import OVER, STATUS, TRANSACTIONS, EndMissing, check_ends, in_transactions
from orderkit.dead_letters import read_topic
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection

pytestmark = pytest.mark.kafka


@pytest.fixture
def connection(apache: ApacheBroker) -> Connection:
    """Give the real broker when no transaction is open on it any more."""
    connection = apache.connection

    def is_quiet() -> bool:
        try:
            return not in_transactions(connection)
        except OrderkitError:  # nobody has begun one so far
            return True

    wait_for(is_quiet, 75)
    return connection


@pytest.fixture
def topic(connection: Connection) -> str:
    """Give a topic of one partition."""
    name = f"dlq.{uuid.uuid4().hex[:8]}"
    connection.create_topics({name: 1})
    return name


@pytest.fixture
def writer(connection: Connection, topic: str) -> Iterator[Producer]:
    """Give a producer, named like the topic, with a record in a transaction that it does not end."""
    producer = connection.producer(transactional_id=topic)
    producer.init_transactions(15)
    producer.begin_transaction()
    producer.produce(topic, b"a letter")
    assert producer.flush(15) == 0
    yield producer
    producer.abort_transaction(15)


def say_it_is_over(connection: Connection, name: str) -> None:
    """Write into the broker's books what it writes itself when a transaction is committed, and no end of it."""
    states = [state for state in read_topic(connection, TRANSACTIONS) if (state.key() or b"")[4:] == name.encode()]
    state = states[-1]
    value = bytearray(state.value() or b"")
    value[STATUS] = OVER[1]
    books = connection.producer(client_id="__admin_client")  # the one name that may write there
    books.produce(TRANSACTIONS, bytes(value), state.key(), partition=state.partition() or 0)
    assert books.flush(15) == 0


def test_an_open_transaction_is_no_missing_end(connection: Connection, topic: str, writer: Producer) -> None:
    """Its records are hidden, its producer is named, and nobody is alarmed; ended, it hides nothing."""
    assert hidden.hidden(connection, [topic]) == {(topic, 0, 0)}
    assert in_transactions(connection) == {topic}
    check_ends(connection, [topic])
    writer.commit_transaction(15)
    wait_for(lambda: not hidden.hidden(connection, [topic]))
    assert len(read_stable(connection, topic)) == 1
    writer.begin_transaction()


def test_a_lost_end_is_told_at_once(
    connection: Connection, topic: str, writer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The books say that all is over, and a record stays hidden: who waits for it is told, with topic and offset."""
    assert writer
    monkeypatch.setattr(hidden, "SURE", 1.0)
    say_it_is_over(connection, topic)
    with pytest.raises(EndMissing, match=rf"{topic}\[0\] stays hidden from offset 0 on"):
        read_stable(connection, topic)


def test_a_broker_that_cannot_be_asked_is_no_missing_end(connection: Connection) -> None:
    """A topic that is away, as during an injury, says nothing about transactions."""
    check_ends(connection, ["no.such.topic"])
