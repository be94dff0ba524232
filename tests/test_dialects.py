"""Dead letters of other systems are read right: real header shapes of each, and what nobody knows is kept."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderkit.dead_letters import DIALECTS, WRITABLE, DeadLetterRecord, Headers, add_dialect, plans
from orderkit.dead_letters.plans import find_plan
from orderkit.errors import UsageError

SHORT, LONG = struct.Struct(">i").pack, struct.Struct(">q").pack
KEPT: Headers = [("trace", b"abc"), ("trace", b"def"), ("odd", None)]


class Stored:
    """A record as the client gives it."""

    def __init__(self, headers: Headers | None, value: bytes | None = b"v") -> None:
        self._headers, self._value = headers, value

    def headers(self) -> Headers | None:
        return self._headers

    def value(self) -> bytes | None:
        return self._value

    def key(self) -> bytes:
        return b"k"

    def topic(self) -> str:
        return "dlq"

    def partition(self) -> int:
        return 1

    def offset(self) -> int:
        return 7

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_700_000_000_000


def read(headers: Headers | None, value: bytes | None = b"v") -> DeadLetterRecord:
    """Read a record with these headers."""
    stored: Any = Stored(headers, value)
    return DeadLetterRecord.of(stored)


OURS: Headers = [
    ("orderkit.dlq.topic", b"orders"), ("orderkit.dlq.partition", b"3"), ("orderkit.dlq.offset", b"1234"),
    ("orderkit.dlq.timestamp", b"1700000000000"), ("orderkit.dlq.group", b"g"), ("orderkit.dlq.attempts", b"3"),
    ("orderkit.dlq.reason", b"transient"), ("orderkit.dlq.exception", b"TimeoutError"),
    ("orderkit.dlq.message", "zu spät".encode()), ("orderkit.dlq.first-failure", b"1700000000001"),
    ("orderkit.dlq.last-failure", b"1700000000500"),
]  # fmt: skip
SPRING: Headers = [
    ("kafka_dlt-original-topic", b"orders"), ("kafka_dlt-original-partition", SHORT(3)),
    ("kafka_dlt-original-offset", LONG(1234)), ("kafka_dlt-original-timestamp", LONG(1_700_000_000_000)),
    ("kafka_dlt-original-timestamp-type", b"CreateTime"), ("kafka_dlt-original-consumer-group", b"g"),
    ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
    ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalStateException"),
    ("kafka_dlt-exception-message", b"Listener failed; no stock"), ("kafka_dlt-exception-stacktrace", b"java..."),
]  # fmt: skip
SPRING_RETRY: Headers = [
    ("kafka_original-topic", b"orders"), ("kafka_original-partition", SHORT(3)), ("kafka_original-offset", LONG(1234)),
    ("kafka_original-timestamp", LONG(1_700_000_000_000)), ("kafka_original-timestamp-type", b"CreateTime"),
    ("kafka_dlt-original-consumer-group", b"g"), ("kafka_exception-fqcn", b"java.lang.RuntimeException"),
    ("kafka_exception-message", b"no"), ("kafka_exception-stacktrace", b"java..."),
    ("retry_topic-attempts", SHORT(2)), ("retry_topic-backoff-timestamp", LONG(1_700_000_005_000)),
    ("retry_topic-original-timestamp", LONG(1_700_000_000_000)), ("kafka_deliveryAttempt", SHORT(1)),
]  # fmt: skip
CONNECT: Headers = [
    ("__connect.errors.topic", b"orders"), ("__connect.errors.partition", b"3"), ("__connect.errors.offset", b"1234"),
    ("__connect.errors.connector.name", b"g"), ("__connect.errors.task.id", b"0"),
    ("__connect.errors.stage", b"VALUE_CONVERTER"), ("__connect.errors.class.name", b"io.confluent.AvroConverter"),
    ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
    ("__connect.errors.exception.message", b"no Avro"), ("__connect.errors.exception.stacktrace", b"org..."),
]  # fmt: skip
STREAMS: Headers = [
    ("__streams.errors.exception", b"java.lang.RuntimeException"), ("__streams.errors.message", b"no"),
    ("__streams.errors.stacktrace", b"java..."), ("__streams.errors.topic", b"orders"),
    ("__streams.errors.partition", b"3"), ("__streams.errors.offset", b"1234"),
]  # fmt: skip
SHARE: Headers = [
    ("__dlq.errors.topic", b"orders"), ("__dlq.errors.partition", b"3"), ("__dlq.errors.offset", b"1234"),
    ("__dlq.errors.group", b"g"), ("__dlq.errors.delivery.count", b"5"),
    ("__dlq.errors.message", b"Offset delivery count exceeded the threshold."),
]  # fmt: skip
KARAFKA: Headers = [
    ("source_topic", b"orders"), ("source_partition", b"3"), ("source_offset", b"1234"),
    ("source_consumer_group", b"g"), ("source_attempts", b"3"), ("source_trace_id", b"6f1"),
]  # fmt: skip
KARAFKA_OLD: Headers = [(name.replace("source", "original"), value) for name, value in KARAFKA]
SMALLRYE: Headers = [
    ("dead-letter-reason", b"could not store"), ("dead-letter-cause", b"disk full"),
    ("dead-letter-exception-class-name", b"java.lang.RuntimeException"),
    ("dead-letter-cause-class-name", b"java.io.IOException"), ("dead-letter-topic", b"orders"),
    ("dead-letter-partition", b"3"), ("dead-letter-offset", b"1234"),
]  # fmt: skip
SMALLRYE_RETRY: Headers = [
    ("delayed-retry-count", b"2"), ("delayed-retry-original-timestamp", b"1700000000000"),
    ("delayed-retry-first-processing-timestamp", b"1700000000001"), ("delayed-retry-reason", b"no"),
    ("delayed-retry-exception-class-name", b"java.lang.RuntimeException"), ("delayed-retry-topic", b"orders"),
    ("delayed-retry-partition", b"3"), ("delayed-retry-offset", b"1234"),
]  # fmt: skip
ARROYO: Headers = [("original_partition", b"3"), ("original_offset", b"1234")]
DJANGO: Headers = [
    ("DEAD_LETTER_MESSAGE_TOPIC", b"orders"), ("DEAD_LETTER_MESSAGE_PARTITION", b"3"),
    ("DEAD_LETTER_MESSAGE_OFFSET", b"1234"), ("DEAD_LETTER_SUMMARY", b"no stock"),
    ("DEAD_LETTER_DETAIL", b"Traceback ..."),
]  # fmt: skip
DJANGO_RETRY: Headers = [("RETRY_MESSAGE", b"no stock"), ("RETRY_TIMESTAMP", b"1700000000.5")]
RETRIABLE: Headers = [("retriable_kafka_attempt", LONG(2)), ("retriable_kafka_timestamp", LONG(1_700_000_000))]
CLOUD: Headers = [
    ("x-original-topic", b"orders"), ("x-original-partition", SHORT(3)), ("x-original-offset", LONG(1234)),
    ("x-original-timestamp", LONG(1_700_000_000_000)), ("x-original-timestamp-type", b"CreateTime"),
    ("x-exception-fqcn", b"org.springframework.messaging.MessageHandlingException"),
    ("x-exception-message", b"no stock"), ("x-exception-stacktrace", b"org..."),
]  # fmt: skip
CLOUD_AS_TEXT: Headers = [
    ("x-original-topic", b"orders"), ("x-original-partition", b"3"), ("x-original-offset", b"1234"),
    ("x-original-timestamp", b"1700000000000"), *CLOUD[4:],
]  # fmt: skip
HOME_MADE: Headers = [
    ("x-original-topic", b"orders"), ("x-original-partition", b"3"), ("x-original-offset", b"1234"),
    ("x-error-class", b"ValueError"), ("x-error-message", b"no stock"), ("x-attempts", b"3"),
    ("x-retry-count", b"2"), ("x-failed-at", b"2023-11-14T22:13:20.500Z"),
]  # fmt: skip
EVENTFERRY: Headers = [
    ("original-topic", b"orders"), ("dlq-attempts", b"5"), ("dlq-original-aggregate-id", b"order-7"),
    ("dlq-original-message-id", b"6f1"), ("dlq-error-stack", b"Error: no..."), ("dlq-reason", b"no broker"),
    ("dlq-original-topic", b"orders"), ("dlq-failed-at", b"2023-11-14T22:13:20.500Z"),
    ("dlq-error-class", b"KafkaJSProtocolError"),
]  # fmt: skip
POSTHOG: Headers = [
    ("dlq_hog_function_ids", b"fn-1"), ("dlq_step", b"inputs"), ("dlq_reason", b"boom"),
    ("dlq_timestamp", b"2023-11-14T22:13:20.500Z"), ("dlq_team_id", b"2"), ("dlq_topic", b"orders"),
    ("dlq_partition", b"3"), ("dlq_offset", b"1234"), ("dlq_consumer_group", b"g"),
]  # fmt: skip
POSTHOG_OLD: Headers = [
    ("dlq-reason", b"boom"), ("dlq-step", b"inputs"), ("dlq-timestamp", b"2023-11-14T22:13:20.500Z"),
]  # fmt: skip

# Dialect, its headers, whether it says where the record was, and what else the story must tell.
SHAPES: list[tuple[str, Headers, tuple[str, int, int], dict[str, str]]] = [
    ("orderkit", OURS, ("orders", 3, 1234), {
        "reason": "transient", "attempts": "3", "message": "zu spät", "group": "g",
    }),
    ("spring", SPRING, ("orders", 3, 1234), {
        "exception": "java.lang.IllegalStateException", "timestamp": "1700000000000", "group": "g",
        "wrapper": "org.springframework.kafka.listener.ListenerExecutionFailedException",
        "message": "Listener failed; no stock",
    }),
    ("spring-retry", SPRING_RETRY, ("orders", 3, 1234), {
        "attempts": "2", "due": "1700000005000", "exception": "java.lang.RuntimeException", "group": "g",
        "first-timestamp": "1700000000000", "delivery-attempt": "1",
    }),
    ("spring-cloud-stream", CLOUD, ("orders", 3, 1234), {
        "exception": "org.springframework.messaging.MessageHandlingException", "message": "no stock",
        "timestamp": "1700000000000",
    }),
    ("home-made", HOME_MADE, ("orders", 3, 1234), {
        "exception": "ValueError", "message": "no stock", "attempts": "3", "last-failure": "1700000000500",
    }),
    ("connect", CONNECT, ("orders", 3, 1234), {
        "group": "g", "stage": "VALUE_CONVERTER", "exception": "org.apache.kafka.connect.errors.DataException",
        "message": "no Avro", "task.id": "0",
    }),
    ("streams", STREAMS, ("orders", 3, 1234), {"exception": "java.lang.RuntimeException", "message": "no"}),
    ("kip-1191", SHARE, ("orders", 3, 1234), {"attempts": "5", "group": "g"}),
    ("karafka", KARAFKA, ("orders", 3, 1234), {"attempts": "3", "group": "g", "trace-id": "6f1"}),
    ("karafka-old", KARAFKA_OLD, ("orders", 3, 1234), {"attempts": "3", "group": "g"}),
    ("smallrye", SMALLRYE, ("orders", 3, 1234), {
        "exception": "java.io.IOException", "wrapper": "java.lang.RuntimeException", "message": "disk full",
        "wrapper-message": "could not store",
    }),
    ("smallrye-retry", SMALLRYE_RETRY, ("orders", 3, 1234), {
        "attempts": "2", "exception": "java.lang.RuntimeException", "message": "no", "first-failure": "1700000000001",
    }),
    ("arroyo", ARROYO, ("?", 3, 1234), {}),
    ("django-kafka", DJANGO, ("orders", 3, 1234), {"message": "no stock", "stacktrace": "Traceback ..."}),
    ("django-kafka-retry", DJANGO_RETRY, ("?", -1, -1), {"message": "no stock", "due": "1700000000500"}),
    ("retriable-kafka-client", RETRIABLE, ("?", -1, -1), {"attempts": "2", "due": "1700000000000"}),
    ("eventferry", EVENTFERRY, ("orders", -1, -1), {
        "attempts": "5", "message": "no broker", "exception": "KafkaJSProtocolError", "last-failure": "1700000000500",
        "original-message-id": "6f1", "stacktrace": "Error: no...",
    }),
    ("posthog", POSTHOG, ("orders", 3, 1234), {
        "message": "boom", "step": "inputs", "group": "g", "last-failure": "1700000000500", "team_id": "2",
    }),
    ("posthog-old", POSTHOG_OLD, ("?", -1, -1), {"message": "boom", "step": "inputs"}),
]  # fmt: skip
NAMES = [name for name, *_ in SHAPES]


@pytest.mark.parametrize(("dialect", "headers", "origin", "told"), SHAPES, ids=NAMES)
def test_each_dialect_is_read(
    dialect: str, headers: Headers, origin: tuple[str, int, int], told: dict[str, str]
) -> None:
    """A dialect's headers give origin and story in the common words; the original headers stay, in order."""
    letter = read([*KEPT, *headers])
    assert letter.dialect == dialect
    assert letter.first_origin == origin
    assert letter.story.items() >= told.items()
    assert letter.headers == KEPT + [it for it in headers if it[0] == "original-topic"]
    assert letter.notes == ()
    assert letter.raw == [*KEPT, *headers]
    assert (letter.topic, letter.place, letter.key, letter.value, letter.replays) == ("dlq", "1:7", b"k", b"v", 0)
    if origin[0] != "?":
        assert letter.origin == origin


def test_the_names_of_spring_cloud_stream_are_read_in_binary_and_as_text() -> None:
    """Its binder writes numbers in binary, those who copied its names write text: both say the same."""
    binary, text = read(CLOUD), read(CLOUD_AS_TEXT)
    assert binary.story == text.story
    assert (binary.origin, text.origin, text.notes) == (("orders", 3, 1234), ("orders", 3, 1234), ())
    broken = read([(name, value if name != "x-original-offset" else b"\0" * 7) for name, value in CLOUD])
    assert broken.origin == ("orders", 3, -1)
    assert broken.notes == (
        "header x-original-offset is not a number in decimal, or of 8 bytes: 7 bytes, 0x00000000000000",
    )


BROKEN: list[tuple[Headers, str, bytes | None, str]] = [
    (SPRING, "kafka_dlt-original-partition", b"\0\0\0\0\0\0\3", "an integer of 4 bytes: 7 bytes, 0x00000000000003"),
    (SPRING, "kafka_dlt-original-offset", b"1234", "an integer of 8 bytes: 4 bytes, '1234'"),
    (SPRING, "kafka_dlt-original-topic", b"\xff", "text in UTF-8: 1 bytes, 0xff"),
    (OURS, "orderkit.dlq.partition", b"\0\0\0\0\0\0\3", "decimal: 7 bytes, 0x00000000000003"),
    (OURS, "orderkit.dlq.attempts", b"many", "a whole number in decimal: 4 bytes, 'many'"),
    (OURS, "orderkit.dlq.offset", b"9" * 5000, "decimal: 5000 bytes, '9999999999999999'..."),
    (HOME_MADE, "x-failed-at", b"yesterday", "ISO 8601, or in ms since 1970: 9 bytes, 'yesterday'"),
    (DJANGO_RETRY, "RETRY_TIMESTAMP", b"nan", "a time in seconds since 1970: 3 bytes, 'nan'"),
    (RETRIABLE, "retriable_kafka_timestamp", b"\1", "of 8 bytes: 1 bytes, 0x01"),
]


@pytest.mark.parametrize(("headers", "name", "value", "told"), BROKEN, ids=[name for _, name, *_ in BROKEN])
def test_a_header_that_is_not_what_it_should_be_is_noted(
    headers: Headers, name: str, value: bytes | None, told: str
) -> None:
    """A header of a wrong length or type leaves a note; all others are read, and nobody takes it for a number."""
    letter = read([(each, value if each == name else content) for each, content in headers])
    (note,) = letter.notes
    assert f"header {name} is not " in note
    assert note.endswith(told)
    assert letter.dialect == read(headers).dialect
    assert all(number >= -1 for number in (*letter.origin[1:], *letter.first_origin[1:]))
    assert len(letter.story) >= len(read(headers).story) - 1


def test_a_dialect_of_your_own_takes_five_lines() -> None:
    """The lines of docs/dead-letters.md, run as they stand, let dead letters of one more system be read."""
    page = (Path(__file__).parent.parent / "docs" / "dead-letters.md").read_text("utf-8")
    lines = page.partition("<!-- a dialect in five lines -->\n\n")[2].partition("\n\n")[0].splitlines()
    assert len(lines) == 1 + 5  # the import, and the five
    before = read([("shop-topic", b"orders"), ("shop-partition", SHORT(3)), ("shop-why", b"no stock")])
    many = len(DIALECTS)
    try:
        exec("\n".join(line[4:] for line in lines))
        after = read(before.raw)
        with pytest.raises(UsageError, match="a name of its own"):
            add_dialect(DIALECTS[-1])
    finally:
        del DIALECTS[many:]
        plans._plans.clear()
    assert (before.dialect, before.story) == ("", {})
    assert (after.dialect, after.origin, after.story["message"]) == ("shop", ("orders", 3, -1), "no stock")


def test_every_dialect_has_a_shape() -> None:
    """No dialect is in the table without a test."""
    assert [dialect.name for dialect in DIALECTS] == NAMES


def test_unknown_headers_are_kept_and_told_to_be_unknown() -> None:
    """A record with headers of nobody known is still read: nothing is dropped, nothing is made up."""
    letter = read([("x-error", b"no"), ("x-error", b"\xff")])
    assert (letter.dialect, letter.story, letter.origin) == ("", {}, ("?", -1, -1))
    assert letter.headers == [("x-error", b"no"), ("x-error", b"\xff")]
    assert read(None).headers == []


@pytest.mark.parametrize("dialect", ["orderkit", "spring", "connect"])
def test_the_newest_story_counts_and_the_first_origin_is_kept(dialect: str) -> None:
    """A record dead-lettered twice tells its last failure, and where it was first."""
    (headers,) = [headers for name, headers, *_ in SHAPES if name == dialect]
    second = [(name, b"elsewhere" if name.endswith("topic") else value) for name, value in headers]
    letter = read([*headers, *second])
    assert letter.origin == ("elsewhere", 3, 1234)
    assert letter.first_origin == ("orders", 3, 1234)


def test_of_two_dialects_the_one_written_last_counts() -> None:
    """A Spring dead letter that our consumer gave up on is ours; what Spring told stays with the original headers."""
    letter = read([*SPRING, *OURS])
    assert letter.dialect == "orderkit"
    assert letter.headers == SPRING


def test_our_own_first_origin_survives_another_dialect() -> None:
    """A replayed record that dies under Spring keeps the origin that the replay wrote, as decimal text."""
    own: Headers = [
        ("orderkit.dlq.topic", b"first"), ("orderkit.dlq.partition", b"2"), ("orderkit.dlq.offset", b"4321"),
        ("orderkit.dlq.replay-count", b"2"),
    ]  # fmt: skip
    letter = read([*own, *SPRING])
    assert (letter.dialect, letter.first_origin, letter.replays) == ("spring", ("first", 2, 4321), 2)
    assert letter.origin == ("orders", 3, 1234)


@pytest.mark.parametrize("broken", [None, b"", b"\xff\xfe", b"many", b"\x01\x02\x03"])
def test_a_broken_number_is_no_error(broken: bytes | None) -> None:
    """Whatever a number's header holds, the dead letter is read, and its origin is unknown or a number."""
    for _, headers, _, _ in SHAPES:
        spoiled = [(name, broken if "offset" in name.lower() else value) for name, value in headers]
        letter = read([*KEPT, *spoiled])
        assert isinstance(letter.origin[2], int)
        assert letter.headers == KEPT + [it for it in spoiled if it[0] == "original-topic"]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=8) | st.sampled_from([n for _, h, *_ in SHAPES for n, _ in h]),
                          st.none() | st.binary(max_size=9)), max_size=12))  # fmt: skip
def test_any_headers_can_be_read(headers: list[tuple[str, bytes | None]]) -> None:
    """No headers, in no mixture, break the reader; each is told or kept."""
    letter = read(list(headers))
    assert letter.replays >= 0
    plan = find_plan(list(headers))
    assert {i for _, i, _ in plan.told} | set(plan.kept) <= set(range(len(headers)))
    if not letter.dialect:
        assert letter.headers == headers


def test_a_dialect_that_can_be_written_can_be_read() -> None:
    """What `--dialect` offers is among the dialects."""
    assert set(WRITABLE) <= set(NAMES)
