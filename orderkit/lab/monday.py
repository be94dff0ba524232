"""Monday morning: what three systems gave up at the weekend lies in one topic, each in the headers of its own dialect.

The kit's consumer stands for all three: its letters of the weekend are told again in their words, so that each is of an
order that did die, at its own place in the topic of orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from random import Random
from typing import NamedTuple

from confluent_kafka import KafkaError, Message

from orderkit.account.audit import Origin
from orderkit.brokers import EmbeddedBroker
from orderkit.dead_letters import PREFIX, DeadLetterRecord, Headers, read_dead_letters
from orderkit.dead_letters.story import WRITTEN, in_words
from orderkit.errors import OrderkitError
from orderkit.lab.bench import Bench
from orderkit.lab.weekend import Weekend
from orderkit.orders.faults import draw
from orderkit.retry import RetryPolicy
from orderkit.retry.backoff import Backoff

# Each partition of the topic has the system that handled its orders.
SYSTEMS = ("orderkit", "orderkit", "spring", "spring", "connect", "connect")
GROUPS = {"spring": "invoices", "spring-retry": "invoices", "connect": "warehouse"}
POLICY = RetryPolicy(3, Backoff("fixed", 0))
# How long after its order a letter was written, in seconds: the least and the most.
DELAYS = {"orderkit": (1, 8), "spring": (0.1, 1), "spring-retry": (6000, 7200), "connect": (1, 300)}
REBALANCED = 3.0 * 3600 * 1000  # ms after its first letter that the Spring service wrote some again
SPRING_RETRY = (
    ("kafka_original-topic", "topic", 0),
    ("kafka_original-partition", "partition", 4),
    ("kafka_original-offset", "offset", 8),
    ("kafka_original-timestamp", "timestamp", 8),
    ("kafka_original-timestamp-type", "timestamp-type", 0),
    ("kafka_dlt-original-consumer-group", "group", 0),
    ("kafka_exception-fqcn", "wrapper", 0),
    ("kafka_exception-cause-fqcn", "exception", 0),
    ("kafka_exception-message", "message", 0),
    ("retry_topic-attempts", "attempts", 4),
    ("retry_topic-original-timestamp", "timestamp", 8),
    ("retry_topic-backoff-timestamp", "due", 8),
)
WORDS = {**WRITTEN, "spring-retry": SPRING_RETRY}
# What the others say for a reason of ours: the exception's class, and its message.
SAID = {
    ("spring", "poison"): ("org.apache.kafka.common.errors.SerializationException", "Unknown magic byte!"),
    ("spring", "permanent"): ("java.util.NoSuchElementException", "no product '{product}' (order {order})"),
    ("spring-retry", "transient"): (
        "java.net.SocketTimeoutException",
        "Read timed out: http://{address}/prices/{request}",
    ),
    ("connect", "poison"): (
        "org.apache.kafka.connect.errors.DataException",
        "Failed to deserialize the record at offset {offset} to Avro",
    ),
    ("connect", "permanent"): (
        "org.apache.kafka.connect.errors.DataException",
        "no product '{product}' for column SKU of order {order}",
    ),
    ("connect", "transient"): (
        "org.apache.kafka.connect.errors.RetriableException",
        "Connection refused: {address} (request {request})",
    ),
}
SPRINGS_WRAPPER = "org.springframework.kafka.listener.ListenerExecutionFailedException"
ORDER = itemgetter(0, 1)  # of letters: by their time, then by their origin


class Written(NamedTuple):
    """A letter as it is written: when, in ms since 1970; where its order was; in which dialect; with which headers."""

    at: int
    origin: Origin
    dialect: str
    letter: DeadLetterRecord
    headers: Headers


class Monday(Bench):
    """A shop on Monday morning: its orders, what the group has averaged of them, and the dead letters of the weekend.

    Args:
        broker: where it is.
        letters: how many there are in the dead-letter topic.
        seed: decides the orders, who died of what, and when.

    Raises:
        UsageError: so many letters cannot be.
    """

    def __init__(self, broker: EmbeddedBroker, *, letters: int = 20_000, seed: int = 7) -> None:
        self._weekend = weekend = Weekend(letters, seed)
        super().__init__(broker, orders=weekend.orders, seed=seed, partitions=len(SYSTEMS), faults=weekend)
        self.orders = list(map(weekend.ordered, self.orders))
        given_up = f"{self.dead_letters}.weekend"
        broker.create_topics({given_up: len(SYSTEMS)})
        self.consumer(weekend.strike, policy=POLICY, dead_letters=given_up).run(orders=weekend.orders)
        # Partitions are read in any order; a seed has to find the same one.
        written = sorted(map(self._told, read_dead_letters(self.connection, given_up)), key=ORDER)
        self._write(sorted([*written, *self._again(written)], key=ORDER))

    def _told(self, letter: DeadLetterRecord) -> Written:
        """Tell a letter in the words of the system that had its partition."""
        origin, reason = letter.origin, letter.story["reason"]
        dialect = SYSTEMS[origin[1]]
        if dialect == "spring" and reason == "transient":
            dialect = "spring-retry"
        name = (letter.key or b"").decode()
        came = self._weekend.came(name)
        least, most = DELAYS[dialect]
        at = came + int(1000 * (least + (most - least) * draw(self._seed, name, 0, "delay")))
        if dialect == "orderkit":
            return Written(at, origin, dialect, letter, _with_times(letter, came, at))
        told = {**letter.story, **self._said(dialect, letter, name), "timestamp": came, "due": at}
        return Written(at, origin, dialect, letter, in_words(told, WORDS[dialect]))

    def _said(self, dialect: str, letter: DeadLetterRecord, name: str) -> dict[str, str | int]:
        """Say what another system would have told of this death."""
        exception, message = SAID[dialect, reason := letter.story["reason"]]
        facts = self._weekend.facts(name)
        return {
            "exception": exception, "message": message.format(offset=letter.origin[2], **facts),
            "wrapper": SPRINGS_WRAPPER, "group": GROUPS[dialect], "timestamp-type": "CreateTime", "task.id": 0,
            "stage": "VALUE_CONVERTER" if reason == "poison" else "TASK_PUT",
            "class.name": "io.confluent.connect.jdbc.JdbcSinkConnector",
        }  # fmt: skip

    def _again(self, written: Sequence[Written]) -> list[Written]:
        """Choose the letters that the Spring service wrote a second time, when it was rebalanced."""
        theirs = [it for it in written if it.dialect.startswith("spring")]
        chosen = Random(f"rebalance {self._seed}").sample(theirs, min(self._weekend.twice, len(theirs)))
        return [it._replace(at=it.at + int(REBALANCED)) for it in chosen]

    def _write(self, letters: Iterable[Written]) -> None:
        """Write letters, each to the partition of its order's number.

        Raises:
            OrderkitError: the broker does not have them all.
        """
        producer, errors = self.connection.producer(), list[KafkaError]()

        def reported(error: KafkaError | None, _: Message) -> None:
            errors.extend([error] if error else [])

        for at, (_, partition, _), _, letter, headers in letters:
            place = self.dead_letters, letter.value, letter.key, partition
            producer.produce(*place, timestamp=at, headers=headers, on_delivery=reported)
            producer.poll(0)
        if producer.flush(30) or errors:
            raise OrderkitError(f"The dead letters cannot be written: {errors[0].str() if errors else 'no answer'}.")

    def _origins(self) -> Iterable[Origin]:
        """Say of which orders there are dead letters, of all three systems; a second letter is no second order."""
        return {letter.origin for letter in read_dead_letters(self.connection, self.dead_letters)}


def _with_times(letter: DeadLetterRecord, came: int, at: int) -> Headers:
    """Give our own headers with the weekend's times in them."""
    times = {"timestamp": came, "first-failure": came, "last-failure": at}
    told = {PREFIX + name: str(time).encode() for name, time in times.items()}
    return [(name, told.get(name, value)) for name, value in letter.raw]
