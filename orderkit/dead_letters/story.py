"""What the added headers of a dead letter tell."""

from __future__ import annotations

import time
from typing import cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from orderkit.progress import History
from orderkit.retry import Reason, root_cause

PREFIX = "orderkit.dlq."
MESSAGE_LIMIT = 1_000  # characters of an exception's message; longer ones bloat every hop

Headers = list[tuple[str, str | bytes | None]]


def header_list(message: Message) -> Headers:
    """Give a record's headers as a list; a record without headers has an empty one."""
    return cast(Headers, list(message.headers() or []))


def story(message: Message, group: str, reason: Reason, error: BaseException, history: History) -> Headers:
    """Tell in headers where a record came from and why it was given up."""
    cause = root_cause(error)
    kind, timestamp = message.timestamp()
    told = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": "" if kind == TIMESTAMP_NOT_AVAILABLE else timestamp,
        "group": group,
        "attempts": history.attempts,
        "reason": reason,
        "exception": f"{type(cause).__module__}.{type(cause).__qualname__}".removeprefix("builtins."),
        "message": str(cause)[:MESSAGE_LIMIT],
        "first-failure": int(history.since * 1000),
        "last-failure": int(time.time() * 1000),
    }
    return [(PREFIX + name, str(value).encode(errors="replace")) for name, value in told.items()]
