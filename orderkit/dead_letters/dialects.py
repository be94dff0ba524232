"""The headers with which other systems tell the story of a dead letter: one table, and a reader that needs no more.

What a header tells has one name here, whoever wrote it: `topic`, `partition`, `offset`, `timestamp` (where the record
was), `group`, `attempts`, `reason`, `exception` (the root cause's class), `wrapper` (the class around it), `message`,
`stacktrace`, `first-failure`, `last-failure`, `due`. A header that only one system has keeps its own name.
How its bytes are read stands beside the name (`orderkit.dead_letters.kinds`), where it is not plain text or, of
`NUMBERS`, a decimal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orderkit.dead_letters.kinds import (
    BIG,
    COUNT,
    EITHER_INT,
    EITHER_LONG,
    INT,
    LONG,
    LONG_SECONDS,
    MOMENT,
    NUMBER,
    SECONDS,
    TEXT,
    Kind,
)
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
        names: header to what it tells, or to that and how its bytes are read; with a `prefix`, the header without it.
        marks: whose presence proves the dialect: all of them.
        prefix: whatever begins so belongs to the dialect, under the rest of its name if `names` has no other.
        newest_first: of a header that is there twice the first is the latest one.
    """

    name: str
    names: Mapping[str, str | tuple[str, Kind]] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    prefix: str = ""
    newest_first: bool = False

    def tells(self, header: str) -> tuple[str, Kind] | None:
        """Say what a header tells, and how its bytes are read; `None` when it does not belong to this dialect."""
        if not header.startswith(self.prefix):
            return None
        rest = header[len(self.prefix) :]
        found = self.names.get(rest, rest if self.prefix else None)
        return (found, NUMBER if found in NUMBERS else TEXT) if isinstance(found, str) else found


def _spring(original: str, exception: str) -> dict[str, str | tuple[str, Kind]]:
    return {
        f"{original}topic": "topic",
        f"{original}partition": ("partition", INT),
        f"{original}offset": ("offset", LONG),
        f"{original}timestamp": ("timestamp", LONG),
        f"{original}timestamp-type": "timestamp-type",
        f"{original}consumer-group": "group",
        f"{exception}fqcn": "wrapper",
        f"{exception}cause-fqcn": "exception",
        f"{exception}message": "message",
        f"{exception}stacktrace": "stacktrace",
    }


def _smallrye(count: str) -> dict[str, str | tuple[str, Kind]]:
    return {
        "exception-class-name": "wrapper",
        "cause-class-name": "exception",
        "reason": "wrapper-message",
        "cause": "message",
        count: "attempts",
        "original-timestamp": "timestamp",
        "first-processing-timestamp": "first-failure",
    }


# Spring Cloud Stream writes these in binary, many a hand-made handler writes the same names as text.
_ORIGINAL: dict[str, str | tuple[str, Kind]] = {
    "x-original-topic": "topic",
    "x-original-partition": ("partition", EITHER_INT),
    "x-original-offset": ("offset", EITHER_LONG),
    "x-original-timestamp": ("timestamp", EITHER_LONG),
    "x-original-timestamp-type": "timestamp-type",
    "x-exception-fqcn": "exception",
    "x-exception-message": "message",
    "x-exception-stacktrace": "stacktrace",
}
# What eventferry and PostHog, who took over many a name of theirs, tell in common.
_DLQ: dict[str, str | tuple[str, Kind]] = {
    "reason": "message",
    "timestamp": ("last-failure", MOMENT),
    "failed-at": ("last-failure", MOMENT),
    "consumer_group": "group",
}
DIALECTS = [
    Dialect("orderkit", prefix=PREFIX, marks=(PREFIX + "topic", PREFIX + "reason")),
    Dialect("spring", _spring("original-", "exception-"), ("kafka_dlt-original-topic",), prefix="kafka_dlt-"),
    Dialect(
        "spring-retry",
        _spring("kafka_original-", "kafka_exception-")
        | {f"kafka_key-exception-{name}": f"key-exception-{name}" for name in ("fqcn", "message", "stacktrace")}
        | {
            "kafka_dlt-original-consumer-group": "group",  # its constant has this value in the retry topics, too
            "kafka_deliveryAttempt": ("delivery-attempt", INT),
            "retry_topic-attempts": ("attempts", COUNT),  # a single byte in older versions
            "retry_topic-backoff-timestamp": ("due", BIG),
            "retry_topic-original-timestamp": ("first-timestamp", BIG),
        },
        ("kafka_original-topic",),
    ),
    Dialect("spring-cloud-stream", _ORIGINAL, ("x-original-topic", "x-exception-fqcn")),
    Dialect(
        "home-made",  # what those who write their own handler mostly call them
        _ORIGINAL
        | {
            **dict.fromkeys(("x-error", "x-error-message", "x-failure-reason"), "message"),
            **dict.fromkeys(("x-error-class", "x-error-type", "x-error-name", "x-exception-class"), "exception"),
            **dict.fromkeys(("x-error-stack", "x-error-stacktrace", "x-exception-stack"), "stacktrace"),
            "x-attempts": "attempts",
            "x-retry-count": "retry-count",  # of retries, so one less, or not: nobody says
            "x-failed-at": ("last-failure", MOMENT),
            "x-consumer-group": "group",
        },
        ("x-original-topic",),
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
    Dialect(
        "django-kafka-retry", {"RETRY_MESSAGE": "message", "RETRY_TIMESTAMP": ("due", SECONDS)}, ("RETRY_TIMESTAMP",)
    ),
    Dialect(
        "retriable-kafka-client",
        {"attempt": ("attempts", LONG), "timestamp": ("due", LONG_SECONDS)},
        ("retriable_kafka_attempt",),
        prefix="retriable_kafka_",
    ),
    Dialect(
        "eventferry",
        _DLQ
        | {
            **{f"original-{name}": name for name in ORIGIN},
            "error-class": "exception",
            "error-stack": "stacktrace",
        },
        ("dlq-original-topic", "dlq-reason"),
        prefix="dlq-",
    ),
    Dialect("posthog", _DLQ, ("dlq_step", "dlq_reason"), prefix="dlq_"),
    Dialect("posthog-old", _DLQ, ("dlq-step", "dlq-reason"), prefix="dlq-"),
]


def find_dialect(names: Sequence[str]) -> Dialect | None:
    """Find out who wrote a record's headers; of several dialects the one whose marks came last, and are most."""
    last = {name: i for i, name in enumerate(names)}
    found = [dialect for dialect in DIALECTS if all(mark in last for mark in dialect.marks)]
    return max(found, key=lambda it: (max(last[mark] for mark in it.marks), len(it.marks)), default=None)
