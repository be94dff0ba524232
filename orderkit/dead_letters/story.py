"""What the added headers of a dead letter tell, and in whose words."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import cache
from operator import methodcaller
from typing import Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message

from orderkit.consuming.saved import History
from orderkit.errors import UsageError
from orderkit.retry import Reason, root_cause

PREFIX = "orderkit.dlq."
MESSAGE_LIMIT = 1_000  # characters of an exception's message; longer ones bloat every hop

# What a dead letter tells, and in which header of ours.
NAMES = (
    "topic", "partition", "offset", "timestamp", "group", "attempts", "reason", "exception", "message",
    "first-failure", "last-failure",
)  # fmt: skip
OWN = (
    TOPIC, PARTITION, OFFSET, TIMESTAMP, GROUP, ATTEMPTS, REASON, EXCEPTION, MESSAGE, FIRST, LAST,
) = tuple(PREFIX + name for name in NAMES)  # fmt: skip

Headers = list[tuple[str, str | bytes | None]]
UNREADABLE = "orderkit.unreadable", b"headers: the name of one is not UTF-8"

# What other tools expect: header, what it tells, and the size of a big-endian integer (0: text).
WRITTEN: dict[str, tuple[tuple[str, str, int], ...]] = {
    "spring": (
        ("kafka_dlt-original-topic", "topic", 0),
        ("kafka_dlt-original-partition", "partition", 4),
        ("kafka_dlt-original-offset", "offset", 8),
        ("kafka_dlt-original-timestamp", "timestamp", 8),
        ("kafka_dlt-original-timestamp-type", "timestamp-type", 0),
        ("kafka_dlt-original-consumer-group", "group", 0),
        ("kafka_dlt-exception-fqcn", "wrapper", 0),
        ("kafka_dlt-exception-cause-fqcn", "exception", 0),
        ("kafka_dlt-exception-message", "message", 0),
    ),
    "connect": (
        ("__connect.errors.topic", "topic", 0),
        ("__connect.errors.partition", "partition", 0),
        ("__connect.errors.offset", "offset", 0),
        ("__connect.errors.connector.name", "group", 0),
        ("__connect.errors.task.id", "task.id", 0),
        ("__connect.errors.stage", "stage", 0),
        ("__connect.errors.class.name", "class.name", 0),
        ("__connect.errors.exception.class.name", "exception", 0),
        ("__connect.errors.exception.message", "message", 0),
    ),
    "kip-1191": (
        ("__dlq.errors.topic", "topic", 0),
        ("__dlq.errors.partition", "partition", 0),
        ("__dlq.errors.offset", "offset", 0),
        ("__dlq.errors.group", "group", 0),
        ("__dlq.errors.delivery.count", "attempts", 0),
        ("__dlq.errors.message", "message", 0),
    ),
}
WRITABLE = ("orderkit", *WRITTEN)


# Not `message.headers()`: where that is called often, Python does not look whether the client has left an error behind.
_given = methodcaller("headers")


def header_list(message: Message) -> Headers:
    """Give a record's headers as a list; a record without headers has an empty one.

    The client gives none of them when one has a name that is not UTF-8: then a single header says so in their place.
    """
    try:
        headers: Headers | None = _given(message)
    except (SystemError, UnicodeDecodeError):
        headers = [UNREADABLE]
        message.set_headers(headers)  # the client would give a broken list from now on, and crash
    return headers or []


def check_writable(dialect: str) -> str:
    """Give `dialect` back if dead letters can be written in it.

    Raises:
        UsageError: they cannot.
    """
    if dialect not in WRITABLE:
        raise UsageError(f"Dead letters cannot be written in dialect {dialect!r}. Choose from: {', '.join(WRITABLE)}.")
    return dialect


def story(
    message: Message, group: str, reason: Reason, error: BaseException, history: History, dialect: str = "orderkit"
) -> Headers:
    """Tell in headers where a record came from and why it was given up, in the words of `dialect`."""
    own = _own(message, group, reason, error, history)
    if dialect == "orderkit":
        return own
    told: dict[str, Any] = {header.removeprefix(PREFIX): text for header, text in own}
    kind, _ = message.timestamp()
    told |= {
        "wrapper": _class_name(type(error)),  # type: ignore[arg-type]
        "timestamp-type": "CreateTime" if kind == TIMESTAMP_CREATE_TIME else "LogAppendTime",
        "stage": "VALUE_CONVERTER" if reason == "poison" else "TASK_PUT",
        "class.name": "orderkit.consumer.RetryingConsumer",
        "task.id": 0,
    }
    return in_words(told, WRITTEN[dialect])


def in_words(told: Mapping[str, Any], words: Iterable[tuple[str, str, int]]) -> Headers:
    """Put what a dead letter tells into the headers of a system; what is "" gets none.

    Args:
        told: name to what it tells.
        words: header, name, and the size of a big-endian integer (0: text), as in `WRITTEN`.
    """
    return [(header, _encoded(told[name], size)) for header, name, size in words if told[name] != ""]


def _own(message: Message, group: str, reason: Reason, error: BaseException, history: History) -> Headers:
    """Tell it in our own headers; the client makes bytes of the texts."""
    cause = root_cause(error)
    told = (str(cause) or str(error))[:MESSAGE_LIMIT]
    kind, timestamp = message.timestamp()
    return [
        (TOPIC, message.topic() or ""),
        (PARTITION, f"{message.partition()}"),
        (OFFSET, f"{message.offset()}"),
        (TIMESTAMP, "" if kind == TIMESTAMP_NOT_AVAILABLE else f"{timestamp}"),
        (GROUP, group),
        (ATTEMPTS, f"{history.attempts}"),
        (REASON, reason),
        (EXCEPTION, _class_name(type(cause))),  # type: ignore[arg-type]
        (MESSAGE, told if told.isascii() else told.encode(errors="replace")),  # a text may hold what UTF-8 cannot
        (FIRST, f"{int(history.since * 1000)}"),
        (LAST, f"{int(time.time() * 1000)}"),
    ]


@cache
def _class_name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _encoded(value: str | bytes | int, size: int) -> bytes:
    if size:
        return int(value).to_bytes(size, "big", signed=True)
    return value if isinstance(value, bytes) else str(value).encode()
