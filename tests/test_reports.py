"""A walk through public reports of other people's systems: each is tried on the kit as its reporter met it.

A campaign: `pytest --campaign tests/test_reports.py`. The first line of each test names the report.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import pytest
from confluent_kafka import Producer
from helpers import AT_ONCE, Background, Kit, Record, average_of, read_to_end, take_orders, wait_for, within
from test_cli import orderkit, running, wait_for_output
from test_reach import silent
from test_refused import member
from test_schemas import FIELDS, record
from test_topic_logs import Cut

from orderkit.account.audit import account
from orderkit.brokers import ApacheBroker
from orderkit.dead_letters import read_topic
from orderkit.kafka.configs import TOPIC, change_config
from orderkit.ledger import Ledger
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.replay.job import Replay
from orderkit.retry import Permanent

pytestmark = [pytest.mark.campaign, pytest.mark.kafka]

CODEC = Codec()
Told = tuple[int, dict[str, Any], str]


@pytest.fixture
def kit(apache: ApacheBroker) -> Cut:
    """Give topics of one partition on the real broker, and a group that nobody has."""
    return Cut(broker=apache)


def refuse(_order: Order, _attempt: int) -> None:
    """Refuse every order."""
    raise Permanent("no")


def consume(kit: Kit, *arguments: str, idle: float = 3) -> Told:
    """Run `orderkit consume` on a kit's topics as a user would; give status, report and errors."""
    named = ["--topic", kit.topic, "--dlq-topic", kit.dead_letters, "--group", kit.group, "--idle", str(idle)]
    done = orderkit("consume", *named, "--json", *arguments, bootstrap=kit.connection.bootstrap)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


def numbers(report: dict[str, Any]) -> tuple[int, int, int, int, int]:
    """Give what counts."""
    averaged, dead, expired, lost, doubled = (
        report[name] for name in ("averaged", "dead", "expired", "lost", "duplicated")
    )
    return averaged, dead, expired, lost, doubled


def configure(kit: Kit, topic: str, name: str, value: str) -> None:
    """Set a property of a topic."""
    change_config(kit.connection.admin(), TOPIC, topic, {name: value})


def one_line(done: subprocess.CompletedProcess[str], status: int) -> str:
    """Expect a command to have failed with one line, and give it."""
    assert (done.returncode, done.stdout) == (status, ""), done.stderr
    (line,) = done.stderr.splitlines()
    return line


def read_all(kit: Kit, topic: str) -> list[Any]:
    """Read a topic as it is."""
    return list(read_topic(kit.connection, topic))


# The log


def test_an_offset_that_no_log_has(kit: Cut) -> None:
    """confluentinc/confluent-kafka-go#748: a commit of 1111 without metadata, 40 records: they are averaged once."""
    kit.send_orders(take_orders(40))
    kit.commit(1111)
    status, report, told = consume(kit)
    assert (status, numbers(report)) == (0, (40, 0, 0, 0, 0)), told
    assert kit.state().average == average_of(take_orders(40))


def test_offsets_that_expired(kit: Cut) -> None:
    """confluentinc/librdkafka#1442: the group's offsets are gone: all is read again, and averaged alone."""
    kit.send_orders(take_orders(40))
    assert consume(kit)[0] == 0
    admin = kit.connection.admin()
    for done in admin.delete_consumer_groups([kit.group]).values():
        done.result()
    status, report, told = consume(kit)
    assert (status, numbers(report)) == (0, (40, 0, 0, 0, 0)), told
    assert kit.state().average == average_of(take_orders(40))


def test_a_stale_commit_is_not_met_at_every_start(kit: Cut) -> None:
    """confluentinc/confluent-kafka-dotnet#1291: the topic is made anew under a consumer; later starts go on."""
    kit.send_orders(take_orders(60))
    consumer = kit.consumer()
    with Background(consumer):
        wait_for(lambda: kit.offsets() == {0: 60})
        kit.make_anew(take_orders(10, seed=2))
        wait_for(lambda: kit.offsets() == {0: 10}, 40)
    for _ in range(2):
        status, report, told = consume(kit)
        assert (status, numbers(report), told) == (0, (0, 0, 0, 0, 0), "")
    assert kit.state().average == average_of(take_orders(10, seed=2))


def test_no_lag_is_negative(kit: Cut) -> None:
    """confluentinc/kafka#101: offsets beyond the end after a topic was made anew: no number is negative."""
    kit.send_orders(take_orders(40))
    assert consume(kit)[0] == 0
    kit.make_anew(take_orders(5))
    done = orderkit("average", "--group", kit.group, "--topic", kit.topic, bootstrap=kit.connection.bootstrap)
    assert not re.search(r"-\d", done.stdout.replace(kit.group, "")), done.stdout
    assert "Traceback" not in done.stderr


def test_no_lag_where_nothing_is_left(kit: Cut) -> None:
    """redpanda-data/redpanda#30624: a log that expired down to its end leaves no lag, and the rest is named expired."""
    kit.send_orders(take_orders(30))
    consumed = consume(kit, "--orders", "10")
    assert consumed[1]["averaged"] == 10
    kit.cut(30)
    status, report, _ = consume(kit)
    assert (status, report["expired"]) == (1, 20)
    assert kit.left() == 0


def test_offsets_that_came_before_their_records(kit: Cut) -> None:
    """redpanda-data/console#590: a mirror moves offsets first, then records: each is averaged once."""
    kit.commit(35)
    consumer = kit.consumer()
    with Background(consumer):
        wait_for(lambda: kit.offsets() != {0: 35})
        for start in range(0, 50, 10):
            kit.send_orders(take_orders(50)[start : start + 10])
        wait_for(lambda: kit.offsets() == {0: 50}, 40)
    assert kit.state().average == average_of(take_orders(50))


def test_lag_behind_transactions(kit: Cut) -> None:
    """spring-projects/spring-kafka#1587: transaction markers are no orders: the group stands at the end of the log."""
    producer = Producer({"bootstrap.servers": kit.connection.bootstrap, "transactional.id": kit.topic, "log_level": 0})
    producer.init_transactions()
    for order in take_orders(6):
        producer.begin_transaction()
        producer.produce(kit.topic, CODEC.encode(order), partition=0)
        producer.commit_transaction()
    status, report, told = consume(kit)
    assert (status, numbers(report)) == (0, (6, 0, 0, 0, 0)), told
    assert kit.left() == 0


def test_partitions_that_are_added_are_read(kit: Cut) -> None:
    """Blizzard/node-rdkafka#1013, Parsely/pykafka#653: partitions that came later are read from their start."""
    kit.send_orders(take_orders(10))
    consumer = kit.consumer(ledger=Ledger())
    with Background(consumer):
        wait_for(lambda: kit.offsets() == {0: 10})
        kit.add_partitions(3)
        kit.send_orders(take_orders(30, seed=2))
        wait_for(lambda: kit.left() == 0, 60)
    assert account(consumer.ledger, kit.state(), kit.topic).averaged == 40


def test_a_topic_made_anew_while_somebody_writes(kit: Cut) -> None:
    """confluentinc/librdkafka#3255: what is written to the new topic is read, also what came before it was noticed."""
    consumer, written, done = kit.consumer(), list[object](), threading.Event()
    producer = Producer({"bootstrap.servers": kit.connection.bootstrap, "log_level": 0, "message.timeout.ms": 20000})

    def noted(_error: object, record: object) -> None:
        written.append(record)

    def write() -> None:
        for order in take_orders(4000, seed=3):
            producer.produce(
                kit.topic, CODEC.encode(order), partition=0, on_delivery=lambda e, m: written.append((e, m))
            )
            producer.poll(0.005)
            if done.is_set():
                break
        producer.flush(30)

    kit.send_orders(take_orders(20))
    with Background(consumer):
        wait_for(lambda: kit.offsets() == {0: 20})
        writing = threading.Thread(target=write)
        writing.start()
        kit.make_anew()
        wait_for(lambda: len(written) > 1500, 60)
        done.set()
        writing.join()
        wait_for(lambda: kit.left() == 0, 60)
    assert kit.state().average == average_of([CODEC.decode(record.value()) for record in read_all(kit, kit.topic)])


def test_a_topic_made_anew_at_once(kit: Cut) -> None:
    """confluentinc/confluent-kafka-python#1787: recreated quickly, twice: the consumer goes on, and says so."""
    kit.send_orders(take_orders(20))
    consumer = kit.consumer()
    with Background(consumer):
        wait_for(lambda: kit.offsets() == {0: 20})
        for orders in (take_orders(20, seed=2), take_orders(20, seed=3)):
            kit.make_anew(orders)
            expected = average_of(orders)
            wait_for(lambda expected=expected: kit.state().average == expected, 40)  # type: ignore[misc]


def test_a_topic_that_is_deleted_is_said(kit: Cut) -> None:
    """confluentinc/librdkafka#4836: a topic that goes away while it is read: one line names it, the run ends."""
    kit.send_orders(take_orders(5))
    command = [sys.executable, "-m", "orderkit", "consume", "--topic", kit.topic, "--dlq-topic", kit.dead_letters]
    command += ["--group", kit.group, "--idle", "30", "--bootstrap-server", kit.connection.bootstrap]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: kit.offsets() == {0: 5})
        kit.connection.delete_topics([kit.topic])
        _, told = process.communicate(timeout=60)
    assert kit.topic in told
    assert "Traceback" not in told


# Records


def test_thousands_of_null_headers(kit: Cut) -> None:
    """confluentinc/confluent-kafka-python#1191: header values that are null, in 5,000 records, half of them dead."""
    orders = take_orders(5000)
    kit.send([Record(CODEC.encode(order), b"k", [("none", None), ("a", b"1")]) for order in orders])

    def odd(order: Order, _attempt: int) -> None:
        if int(order["orderId"]) % 2:
            raise Permanent("odd")

    consumer = kit.consumer(odd, policy=AT_ONCE)
    consumer.run(orders=5000)
    letters = kit.letters()
    assert len(letters) == sum(int(order["orderId"]) % 2 for order in orders)
    assert all(letter.headers == [("none", None), ("a", b"1")] for letter in letters)


def test_tombstones(kit: Cut) -> None:
    """confluentinc/confluent-kafka-python#189: a null value is poison, set aside as null."""
    kit.send([Record(None, b"k"), Record(CODEC.encode(take_orders(1)[0]), b"k")])
    status, report, told = consume(kit)
    assert (status, numbers(report)) == (0, (1, 1, 0, 0, 0)), told
    assert [letter.value for letter in kit.letters()] == [None]


def test_an_empty_value_is_a_record(kit: Cut) -> None:
    """confluentinc/confluent-kafka-python#340: a message of no bytes is false in Python, and a record all the same."""
    kit.send([Record(b"", b"k"), Record(CODEC.encode(take_orders(1)[0]), b"k"), Record(b"")])
    status, report, told = consume(kit)
    assert (status, numbers(report)) == (0, (1, 2, 0, 0, 0)), told
    assert [letter.value for letter in kit.letters()] == [b"", b""]


def test_headers_do_not_grow_round_by_round(kit: Cut) -> None:
    """spring-projects/spring-kafka#1994: dead and replayed 12 times: the record stays as large as after the second."""
    kit.send_orders(take_orders(1))
    sizes = []
    for _ in range(12):
        kit.consumer(refuse, policy=AT_ONCE).run(orders=1)
        last = read_all(kit, kit.dead_letters)[-1]
        sizes.append(sum(len(name) + len(value or b"") for name, value in last.headers()))
        Replay(kit.connection, kit.dead_letters, max_replays=100).run()
    assert max(sizes) <= sizes[1] + 8, sizes


def test_a_dead_letter_that_its_topic_refuses(kit: Cut) -> None:
    """logstash-plugins/logstash-output-kafka#167: larger than the topic allows: nothing is lost, the line says why."""
    configure(kit, kit.dead_letters, "max.message.bytes", "2000")
    kit.send([Record(b"x" * 5000, b"k"), Record(CODEC.encode(take_orders(1)[0]), b"k")])
    status, report, told = consume(kit)
    assert (status, report["lost"], kit.letters()) == (1, 0, []), told
    assert "Message size too large" in told
    assert kit.offsets() == {0: 0}  # it waits


def test_keys_and_values_that_are_no_text(kit: Cut) -> None:
    """fkie-cad/Logprep#663: bytes that are no UTF-8, in key, value and header: set aside and listed."""
    odd = b"\xff\xfe\x00\x9b31m"
    kit.send([Record(odd, odd, [("h", odd)]), Record(CODEC.encode(take_orders(1)[0]), odd)])
    status, report, told = consume(kit)
    assert (status, numbers(report)) == (0, (1, 1, 0, 0, 0)), told
    listed = orderkit("dlq", "list", "--dlq-topic", kit.dead_letters, bootstrap=kit.connection.bootstrap)
    assert listed.returncode == 0
    assert "\x9b" not in listed.stdout


# Names and settings


def test_the_longest_topic_name(apache: ApacheBroker) -> None:
    """confluentinc/librdkafka#529: a topic of 249 characters works; one more is refused with the rule."""
    topic, letters = "o" * 249, "d" * 249
    named = ["--topic", topic, "--dlq-topic", letters]
    assert orderkit("topics", "create", *named, bootstrap=apache.bootstrap).returncode == 0
    made = orderkit("produce", "--topic", topic, "--orders", "3", "--rate", "0", bootstrap=apache.bootstrap)
    assert made.returncode == 0, made.stderr
    done = orderkit("consume", *named, "--idle", "2", "--json", bootstrap=apache.bootstrap)
    assert json.loads(done.stdout)["averaged"] == 3
    line = one_line(orderkit("consume", "--topic", "o" * 250, bootstrap=apache.bootstrap), 2)
    assert "249" in line


def test_a_broker_that_is_not_there(free_port: int) -> None:
    """confluentinc/confluent-kafka-python#199: producing to nobody is one line that can be printed anywhere."""
    with within(20):
        line = one_line(orderkit("produce", "--orders", "1", bootstrap=f"127.0.0.1:{free_port}"), 1)
    assert "127.0.0.1" in line


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("client.id = foobar\n", id="edenhill/kcat#383"),
        pytest.param("client.id=foobar\n\n# Confluent\n\n", id="confluentinc/examples#661"),
        pytest.param("\ufeffclient.id=foobar\r\n\r\nenable.idempotence=true \r\n", id="apache/kafka#13670"),
        pytest.param("schema.registry.url=http://localhost:1\nclient.id=a\n", id="edenhill/kcat#170"),
    ],
)
def test_settings_files_of_others(text: str, kit: Cut, tmp_path: Path) -> None:
    """White space, blank lines, CRLF, and what only other clients know: the orders are averaged."""
    file = tmp_path / "client.properties"
    file.write_text(text)
    kit.send_orders(take_orders(3))
    status, report, told = consume(kit, "--command-config", str(file))
    assert (status, numbers(report)) == (0, (3, 0, 0, 0, 0)), told


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("sasl_mechanism=PLAIN\n", "dots", id="confluentinc/confluent-kafka-python#604"),
        pytest.param(
            "ssl.truststore.location=/path/kafka.client.truststore.jks\nssl.truststore.password=Welcome1\n",
            "JKS",
            id="confluentinc/librdkafka#1412",
        ),
        pytest.param("sasl.kerberos.keytabs=x\n", "sasl.kerberos.keytabs", id="fede1024/rust-rdkafka#523"),
        pytest.param(
            "group.protocol=consumer\npartition.assignment.strategy=range\n",
            "partition.assignment.strategy",
            id="confluentinc/librdkafka#5028",
        ),
    ],
)
def test_settings_that_cannot_be(text: str, named: str, kit: Cut, tmp_path: Path) -> None:
    """A name with underscores, one that nobody has, one that the group's protocol excludes: one line names it."""
    file = tmp_path / "client.properties"
    file.write_text(text)
    named_topics = ["--topic", kit.topic, "--dlq-topic", kit.dead_letters, "--group", kit.group, "--idle", "2"]
    done = orderkit("consume", *named_topics, "--command-config", str(file), bootstrap=kit.connection.bootstrap)
    line = one_line(done, 2)
    assert named in line


# Waiting


def test_a_server_that_is_no_kafka() -> None:
    """confluentinc/confluent-kafka-python#829: port 2181, or whatever accepts and says nothing: named within 20 s."""
    with silent() as (host, port), within(20):
        line = one_line(orderkit("consume", bootstrap=f"{host}:{port}"), 1)
    assert str(port) in line


def test_an_address_that_nobody_answers() -> None:
    """cakesolutions/scala-kafka-client#109: an address where packets vanish: named within 20 s."""
    with within(20):
        line = one_line(orderkit("consume", bootstrap="192.0.2.1:9092"), 1)
    assert "192.0.2.1:9092" in line


def test_one_bootstrap_server_is_down(kit: Cut, free_port: int) -> None:
    """seglo/kafka-lag-exporter#194: two are named, one is down: the other is used."""
    kit.send_orders(take_orders(4))
    named = ["--topic", kit.topic, "--dlq-topic", kit.dead_letters, "--group", kit.group, "--idle", "3", "--json"]
    done = orderkit("consume", *named, bootstrap=f"127.0.0.1:{free_port},{kit.connection.bootstrap}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["averaged"] == 4


def test_a_group_of_other_clients(kit: Cut) -> None:
    """tulios/kafkajs#463: members with an assignor that ours has not: the line names it, within 25 s."""
    named = ["--topic", kit.topic, "--dlq-topic", kit.dead_letters, "--group", kit.group, "--idle", "30"]
    with member(kit, partition_assignment_strategy="cooperative-sticky"), within(25):
        done = orderkit("consume", *named, bootstrap=kit.connection.bootstrap)
    assert done.returncode == 1
    assert "cooperative-sticky" in done.stderr


# Schemas


def field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    """Make a field of a record."""
    return {"name": name, "type": kind, **more}


NESTED = field("buyer", {"type": "record", "name": "Buyer", "fields": [field("city", "string")]})


@pytest.mark.parametrize(
    ("writer", "reader", "more"),
    [
        pytest.param(FIELDS, [*FIELDS, field("good", "int", default=1)], {}, id="fastavro/fastavro#176"),
        pytest.param([*FIELDS, field("age", ["null", "int"], default=None)], FIELDS, {"age": 3}, id="mtth/avsc#168"),
        pytest.param(
            FIELDS, [*FIELDS, field("note", ["string", "null"], default=None)], {}, id="fastavro/fastavro#785"
        ),
        pytest.param(
            [*FIELDS, field("buyer", ["null", NESTED["type"]])],
            [*FIELDS, field("buyer", ["null", {**NESTED["type"], "doc": "who pays"}], default=None)],
            {"buyer": {"city": "Glasgow"}},
            id="fastavro/fastavro#489",
        ),
    ],
)
def test_schemas_that_resolve(writer: Any, reader: Any, more: dict[str, Any], kit: Cut, tmp_path: Path) -> None:
    """What the specification resolves is read, with the average that its writer would have."""
    wrote, reads = tmp_path / "writer.avsc", tmp_path / "reader.avsc"
    wrote.write_text(json.dumps(record(*writer)))
    reads.write_text(json.dumps(record(*reader)))
    orders = take_orders(5)
    parsed = fastavro.parse_schema(record(*writer))

    def encode(order: Order) -> bytes:
        out = BytesIO()
        fastavro.schemaless_writer(out, parsed, {**order, **more})
        return out.getvalue()

    kit.send([Record(encode(order), b"k") for order in orders])
    status, report, told = consume(kit, "--schema", str(reads), "--writer-schema", str(wrote))
    assert (status, numbers(report)) == (0, (5, 0, 0, 0, 0)), told
    assert kit.state().average == average_of(orders)


def test_a_schema_that_promises_less(kit: Cut, tmp_path: Path) -> None:
    """fastavro/fastavro#406: a reader whose product may be null is no reader of orders: refused by its rule."""
    reads = tmp_path / "reader.avsc"
    reads.write_text(json.dumps(record(FIELDS[0], field("product", ["string", "null"]), FIELDS[2])))
    line = one_line(orderkit("consume", "--schema", str(reads), bootstrap=kit.connection.bootstrap), 2)
    assert "'product' must be of type 'string'" in line


# Terminals


@pytest.mark.parametrize(
    "command", [["--help"], ["doctor"], ["demo", "--orders", "20", "--rate", "0"], ["consume", "-h"]]
)
def test_a_windows_console(command: list[str]) -> None:
    """Azure/azure-cli#26843, agentrust-io/cmcp#396, code42/code42cli#338: cp1252, also into a pipe: no code fails."""
    env = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-m", "orderkit", *command], env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"UnicodeEncodeError" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["consume", "extra\x1b]0;title\x07"],
        ["\x1b[31mred"],
        ["consume", "--schema", "no\x1b[2Jfile.avsc"],
        ["consume", "--engine", "\x1b[2J"],
        ["consume", "--max-attempts", "\x1b[2J"],
        ["consume", "--no\x1b[2Jsuch"],
    ],
)
def test_escape_codes_in_arguments(arguments: list[str]) -> None:
    """pallets/click#3832: what stands in an argument is shown in the error, and not obeyed by the terminal."""
    ours, theirs = os.openpty()
    with subprocess.Popen([sys.executable, "-m", "orderkit", *arguments], stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        told = read_to_end(ours)
    os.close(ours)
    assert process.returncode
    assert b"\x1b" not in told
    assert b"\x07" not in told


def test_times_that_no_calendar_has(kit: Cut) -> None:
    """apache/spark#55038, BrightTag/kafkameter#19: times in micro- and nanoseconds, zero: dead letters are listed."""
    producer = Producer({"bootstrap.servers": kit.connection.bootstrap, "log_level": 0})
    configure(kit, kit.topic, "message.timestamp.after.max.ms", str(2**63 - 1))
    for at in (1_700_000_000_000_000, 1_700_000_000_000_000_000, 1):
        producer.produce(kit.topic, b"poison", b"k", 0, timestamp=at)
    assert producer.flush(20) == 0
    status, report, told = consume(kit)
    assert (status, numbers(report)) == (0, (0, 3, 0, 0, 0)), told
    for command in (["dlq", "list"], ["dlq", "show", "0:0"], ["dlq", "list", "--json"]):
        done = orderkit(*command, "--dlq-topic", kit.dead_letters, bootstrap=kit.connection.bootstrap)
        assert done.returncode == 0, done.stderr


# What stays behind


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda one: one.name)
def test_nothing_stays_of_a_broker(how: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """spring-projects/spring-kafka#928, chbatey/kafka-unit#34: the temporary folder is empty after each kind of end."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running("broker", "--apache") as process:
        wait_for_output(process, "is up")
        assert list(tmp_path.iterdir())
        process.send_signal(how)
        process.wait(30)
    wait_for(lambda: not list(tmp_path.iterdir()))


def test_a_broker_whose_folder_was_cleaned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """embeddedkafka/embedded-kafka-schema-registry#247: /tmp is cleaned under a broker: Ctrl-C ends it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with running("broker", "--apache") as process:
        wait_for_output(process, "is up")
        for path in tmp_path.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=40)
    assert "Traceback" not in told
