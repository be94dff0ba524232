"""The headers with which ten systems tell the story of a dead letter: one table, and a reader that needs no more.

What a header tells has one name here, whoever wrote it: `topic`, `partition`, `offset`, `timestamp` (where the record
was), `group`, `attempts`, `reason`, `exception` (the root cause's class), `wrapper` (the class around it), `message`,
`stacktrace`, `first-failure`, `last-failure`, `due`. A header that only one system has keeps its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orderkit.dead_letters.story import PREFIX

NUMBERS = {
    "partition",
    "offset",
    "timestamp",
    "attempts",
    "first-failure",
    "last-failure",
    "replay-count",
    "task.id",
    "delivery-attempt",
}
ORIGIN = ("topic", "partition", "offset")
REPLAY_COUNT = PREFIX + "replay-count"
ORIGINAL_VALUE = PREFIX + "original-value"
OWN_ORIGIN = tuple(PREFIX + name for name in ORIGIN)


@dataclass(frozen=True)
class Dialect:
    """How one system names the headers of its dead letters.

    Args:
        name: what it is called here.
        names: header to what it tells; with a `prefix`, the header without it.
        marks: whose presence proves the dialect: all of them.
        prefix: whatever begins so belongs to the dialect.
        binary: numbers are big-endian integers of 4 or 8 bytes, else decimal text.
        newest_first: of a header that is there twice the first is the latest one.
    """

    name: str
    names: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    prefix: str = ""
    binary: bool = False
    newest_first: bool = False

    def tells(self, header: str) -> str | None:
        """Say what a header tells; `None` when it does not belong to this dialect."""
        if not self.prefix:
            return self.names.get(header)
        if not header.startswith(self.prefix):
            return None
        rest = header[len(self.prefix) :]
        return self.names.get(rest, rest)


def _spring(original: str, exception: str) -> dict[str, str]:
    return {
        f"{original}topic": "topic",
        f"{original}partition": "partition",
        f"{original}offset": "offset",
        f"{original}timestamp": "timestamp",
        f"{original}timestamp-type": "timestamp-type",
        f"{original}consumer-group": "group",
        f"{exception}fqcn": "wrapper",
        f"{exception}cause-fqcn": "exception",
        f"{exception}message": "message",
        f"{exception}stacktrace": "stacktrace",
    }


def _smallrye(count: str) -> dict[str, str]:
    return {
        "exception-class-name": "wrapper",
        "cause-class-name": "exception",
        "reason": "wrapper-message",
        "cause": "message",
        count: "attempts",
        "original-timestamp": "timestamp",
        "first-processing-timestamp": "first-failure",
    }


DIALECTS = (
    Dialect("orderkit", prefix=PREFIX, marks=(PREFIX + "topic", PREFIX + "reason")),
    Dialect(
        "spring", _spring("original-", "exception-"), ("kafka_dlt-original-topic",), prefix="kafka_dlt-", binary=True
    ),
    Dialect(
        "spring-retry",
        _spring("kafka_original-", "kafka_exception-")
        | {f"kafka_key-exception-{name}": f"key-exception-{name}" for name in ("fqcn", "message", "stacktrace")}
        | {
            "kafka_dlt-original-consumer-group": "group",  # its constant has this value in the retry topics, too
            "kafka_deliveryAttempt": "delivery-attempt",
            "retry_topic-attempts": "attempts",
            "retry_topic-backoff-timestamp": "due",
            "retry_topic-original-timestamp": "first-timestamp",
        },
        ("kafka_original-topic",),
        binary=True,
    ),
    Dialect(
        "connect",
        {
            "connector.name": "group",
            "exception.class.name": "exception",
            "exception.message": "message",
            "exception.stacktrace": "stacktrace",
        },
        ("__connect.errors.topic",),
        prefix="__connect.errors.",
    ),
    Dialect("streams", marks=("__streams.errors.topic",), prefix="__streams.errors."),
    Dialect("kip-1191", {"delivery.count": "attempts"}, ("__dlq.errors.topic",), prefix="__dlq.errors."),
    Dialect(
        "karafka",
        {f"source_{name}": name for name in (*ORIGIN, "attempts")}
        | {"source_consumer_group": "group", "source_trace_id": "trace-id"},
        ("source_topic", "source_partition", "source_offset"),
    ),
    Dialect(
        "karafka-old",  # what Karafka called them before; much hand-made code does, too
        {f"original_{name}": name for name in (*ORIGIN, "attempts", "timestamp")}
        | {"original_consumer_group": "group", "original_trace_id": "trace-id"},
        ("original_topic", "original_partition", "original_offset"),
    ),
    Dialect("smallrye", _smallrye("count"), ("dead-letter-topic",), prefix="dead-letter-", newest_first=True),
    Dialect("smallrye-retry", _smallrye("count"), ("delayed-retry-topic",), prefix="delayed-retry-", newest_first=True),
    Dialect(
        "arroyo",
        {"original_partition": "partition", "original_offset": "offset"},
        ("original_partition", "original_offset"),
    ),
    Dialect(
        "django-kafka",
        {
            **{f"MESSAGE_{name.upper()}": name for name in ORIGIN},
            "MESSAGE": "message",
            "SUMMARY": "message",
            "DETAIL": "stacktrace",
        },
        ("DEAD_LETTER_MESSAGE_TOPIC",),
        prefix="DEAD_LETTER_",
    ),
    Dialect("django-kafka-retry", {"RETRY_MESSAGE": "message", "RETRY_TIMESTAMP": "due"}, ("RETRY_TIMESTAMP",)),
    Dialect(
        "retriable-kafka-client",
        {"attempt": "attempts", "timestamp": "due"},
        ("retriable_kafka_attempt",),
        prefix="retriable_kafka_",
        binary=True,
    ),
)


def find_dialect(names: Sequence[str]) -> Dialect | None:
    """Find out who wrote a record's headers; of several dialects the one whose marks came last, and are most."""
    last = {name: i for i, name in enumerate(names)}
    found = [dialect for dialect in DIALECTS if all(mark in last for mark in dialect.marks)]
    return max(found, key=lambda it: (max(last[mark] for mark in it.marks), len(it.marks)), default=None)
