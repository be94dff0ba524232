"""The kit's own client settings, how they give way to a user's, and which of a user's the kit cannot work with."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError

from orderkit.errors import UsageError

CLIENT_SETTINGS: dict[str, int | str] = {
    "log_level": 3,
    "socket.timeout.ms": 10_000,
    "reconnect.backoff.ms": 100,  # the client's own; here so that it can follow the next one
    "reconnect.backoff.max.ms": 2000,  # default 10,000: a broker that is back would be found so late
    # After an outage a client that asks for its first brokers anew may wait for its group for ever (librdkafka #5511).
    "metadata.recovery.strategy": "none",
}
CONSUMER_SETTINGS: dict[str, int | str | bool] = {
    "enable.auto.commit": False,  # the kit commits offset and average together
    "session.timeout.ms": 10_000,  # default 45,000: a killed member would keep its partitions for so long
    "auto.offset.reset": "earliest",  # a new group accounts for every order there is
    "fetch.queue.backoff.ms": 10,  # default 1,000: a fast consumer would idle for most of each second
    "topic.metadata.refresh.interval.ms": 10_000,  # default 300,000: partitions that are added would wait so long
    "fetch.wait.max.ms": 100,  # a slow topic answers within a tenth of a second
    "queued.min.messages": 20_000,  # default 100,000 for each partition: 30 MB more, and no faster
}
PRODUCER_SETTINGS: dict[str, int | bool] = {
    "enable.idempotence": True,  # a resend after a lost answer is written once (KIP-98)
    "linger.ms": 5,  # short enough for one order every 2 s, long enough to fill batches
    "message.timeout.ms": 30_000,
}
BULK_SETTINGS = {  # of a producer that moves many records, as large as any
    "message_max_bytes": 100_000_000,
    "queue_buffering_max_messages": 500_000,
    "queue_buffering_max_kbytes": 512 * 1024,
    "linger_ms": 20,
}

# Two names for one setting: the later of the two would win, whoever wrote it.
ALIASES = {
    "delivery.timeout.ms": "message.timeout.ms",
    "queue.buffering.max.ms": "linger.ms",
    "auto.commit.enable": "enable.auto.commit",
    "request.required.acks": "acks",
    "max.in.flight": "max.in.flight.requests.per.connection",
    "message.send.max.retries": "retries",
    "fetch.max.wait.ms": "fetch.wait.max.ms",  # Java's name
}
# A user's value for these would change what a call of the kit means: the caller sets them, or nobody.
OURS = {"group.id", "enable.partition.eof", "delivery.report.only.error", "enable.auto.commit", "metadata.broker.list"}
# Empty, Java takes them for not given; the client makes of some of them an empty name.
MAY_BE_EMPTY = {"group.instance.id", "transactional.id", "client.id", "client.rack", "group.remote.assignor"}
# With the group protocol of KIP-848 the broker decides these; a client that is given one refuses to start.
CLASSIC_ONLY = {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"}
# A share consumer (KIP-932) has no use for these either, and refuses some of them.
GROUP_ONLY = CLASSIC_ONLY | {
    "group.protocol", "group.remote.assignor", "group.instance.id", "auto.offset.reset", "enable.auto.commit",
    "enable.auto.offset.store", "auto.commit.interval.ms", "isolation.level",
    "fetch.queue.backoff.ms", "fetch.error.backoff.ms", "queued.min.messages", "queued.max.messages.kbytes",
    "topic.blacklist", "allow.auto.create.topics", "consume.callback.max.messages",
}  # fmt: skip
# One setting of ours follows another of the user's: name, its bound, by which setting, times, and so much more.
LEAST, MOST = max, min
BOUNDS = (
    ("reconnect.backoff.max.ms", LEAST, "reconnect.backoff.ms", 1, 0),
    ("reconnect.backoff.ms", MOST, "reconnect.backoff.max.ms", 1, 0),
    ("fetch.max.bytes", MOST, "receive.message.max.bytes", 1, -512),
    ("receive.message.max.bytes", LEAST, "fetch.max.bytes", 1, 512),
    ("message.max.bytes", MOST, "fetch.max.bytes", 1, 0),
    ("session.timeout.ms", LEAST, "heartbeat.interval.ms", 3, 0),
    ("session.timeout.ms", MOST, "max.poll.interval.ms", 1, 0),
    ("heartbeat.interval.ms", MOST, "session.timeout.ms", 1 / 3, 0),
    ("max.poll.interval.ms", LEAST, "session.timeout.ms", 1, 0),
    ("linger.ms", MOST, "message.timeout.ms", 1, -1),
    ("message.timeout.ms", LEAST, "linger.ms", 1, 1000),
    ("transaction.timeout.ms", LEAST, "message.timeout.ms", 1, 0),
    ("transaction.timeout.ms", LEAST, "socket.timeout.ms", 1, 100),
)
# Of a consumer, the client's own.
DEFAULTS = {
    "heartbeat.interval.ms": 3_000,
    "max.poll.interval.ms": 300_000,
    "fetch.max.bytes": 52_428_800,
    "receive.message.max.bytes": 100_000_000,
    "message.max.bytes": 1_000_000,
}

_TRUE, _FALSE = {"true", "t", "1"}, {"false", "f", "0"}


def merge(ours: Mapping[str, Any], theirs: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Put client settings together: a user's go before ours, and what a call needs goes before both.

    Ours give way: none of them makes a user's value invalid that is valid by itself.

    Args:
        ours: the kit's defaults.
        theirs: the user's.
        fixed: what the caller needs.
    """
    given = {ALIASES.get(name, name): value for name, value in theirs.items()}
    given = {name: value for name, value in given.items() if name not in OURS and not _is_absent(name, value)}
    if speaks_consumer_protocol(given):
        ours, fixed = ({n: v for n, v in some.items() if n not in CLASSIC_ONLY} for some in (ours, fixed))
    conf = {**ours, **given, **fixed}
    pushing = set(given)  # a bound that is ours has been thought of
    for name, bound, by, times, more in BOUNDS:
        there = name in conf or (name in DEFAULTS and "group.id" in conf)
        if not there or by not in pushing or (name in given and name not in fixed):
            continue
        here, limit = _number(conf.get(name, DEFAULTS.get(name))), _number(conf[by])
        if here is not None and limit:
            conf[name] = int(bound(here, limit * times + more))
            pushing.add(name)
    return conf


def speaks_consumer_protocol(theirs: Mapping[str, Any]) -> bool:
    """Say whether a user has chosen the group protocol of KIP-848."""
    return str(theirs.get("group.protocol", "")).strip().lower() == "consumer"


def for_share(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Give the user's settings that a share consumer takes."""
    return {name: value for name, value in theirs.items() if ALIASES.get(name, name) not in GROUP_ONLY}


def check_settings(theirs: Mapping[str, Any]) -> None:
    """Hold a user's settings against what the kit promises.

    Raises:
        UsageError: one of them would break it, in a consumer or a producer of the kit; with what to write instead.
    """
    given = {ALIASES.get(name, name): str(value).strip().lower() for name, value in theirs.items()}
    if given.get("enable.auto.commit") in _TRUE:
        _refuse("enable.auto.commit=true", "the kit commits offset and average together", "Leave it out")
    reset = given.get("auto.offset.reset", "")
    if reset in {"none", "error"} or reset.startswith("by_duration"):
        _refuse(f"auto.offset.reset={reset}", "a new group begins at one end of the topic", "Write earliest or latest")
    if given.get("transactional.id"):
        _refuse(
            "transactional.id", "the kit names its transactions itself",
            "Leave it out, and give `--delivery exactly-once --instance NAME`",
        )  # fmt: skip
    if "test.mock.num.brokers" in given:
        _refuse("test.mock.num.brokers", "it takes the place of the cluster", "Leave it out; see `orderkit broker`")


def check_promises(theirs: Mapping[str, Any]) -> None:
    """Hold a properties file against the promise that an acknowledged record is in the topic, once.

    In Python code it is the reader's own choice; a lesson about lost records needs it.

    Raises:
        UsageError: it would not be kept.
    """
    given = {ALIASES.get(name, name): str(value).strip().lower() for name, value in theirs.items()}
    if given.get("enable.idempotence") in _FALSE:
        _refuse("enable.idempotence=false", "a resend would be written twice", "Leave it out")
    if given.get("acks", "all") not in {"all", "-1"}:
        _refuse(f"acks={given['acks']}", "what is acknowledged could be lost", "Leave it out, or write acks=all")


def refusal(error: Exception) -> str:
    """Say in one line, and in the client's own words, which settings it does not take."""
    told = error.args[0]
    why = " ".join((told.str() if isinstance(told, KafkaError) else str(told)).split())
    dots = " Names have dots, not underscores." if re.search(r'property: "\w+_\w+"', why) else ""
    return f"Kafka client settings: {why}.{dots} Check --command-config."


def _refuse(setting: str, why: str, instead: str) -> None:
    raise UsageError(f"Kafka client settings: {setting} cannot be used here, {why}. {instead} (--command-config).")


def _is_absent(name: str, value: object) -> bool:
    return name in MAY_BE_EMPTY and value == ""


def _number(value: object) -> float | None:
    """Give a setting's number; `None` when it is none: the client says so in its own words."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
