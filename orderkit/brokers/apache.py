"""Real Apache Kafka as a child process: no Docker, no Java to install, no ZooKeeper. Needs the extra `orderkit[kafka]`."""

from __future__ import annotations

import base64
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import javaproperties
from confluent_kafka import KafkaException

from orderkit.brokers import _jars, _keeper
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import DEAD_LETTERS, ORDERS, Connection

HOST = "127.0.0.1"
START_LIMIT = 60.0  # seconds until a broker that does not answer has failed
END_LIMIT = _keeper.PATIENCE + 10.0
PORT_ATTEMPTS = 5  # another program may take a free port before Kafka does
DEFAULT_TOPICS = {ORDERS: 4, DEAD_LETTERS: 4}
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
QUICK_CLIENT = {"log_level": "0", "reconnect.backoff.ms": "20", "reconnect.backoff.max.ms": "100"}
JAVA_OPTIONS = [
    "-XX:+IgnoreUnrecognizedVMOptions",  # the last two are new in Java 25
    "-XX:+UseSerialGC",  # one small heap
    "-XX:TieredStopAtLevel=1",  # compile fast rather than well: a second less at every start
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-XX:AOTMode=auto",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
]
OURS = {  # settings that follow from the arguments
    "process.roles",
    "node.id",
    "listeners",
    "listener.security.protocol.map",
    "controller.listener.names",
    "controller.quorum.voters",
    "inter.broker.listener.name",
    "log.dirs",
}
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
    "group.initial.rebalance.delay.ms": "0",  # nobody else is coming
    "group.min.session.timeout.ms": "1000",  # lessons about lost members should not take a minute
    "group.share.min.record.lock.duration.ms": "1000",
    "offsets.topic.num.partitions": "4",  # of 50 by default: fewer files to make at the first start
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",  # bytes of heap, taken at once; 128 MB by default
}


class _PortTaken(OrderkitError):
    pass


class _Server:
    """The Java process, its folder and its log. It knows nothing of the broker, so that it can outlive it."""

    def __init__(self, folder: Path, temporary: bool, heap: str, home: Path) -> None:
        self.folder = folder
        self.temporary = temporary
        self.log = folder / "broker.log"
        self.settings = folder / "server.properties"
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        memory = [f"-Xmx{heap}", f"-XX:AOTCache={home / 'kafka.aot'}"]
        self._command = [_jars.java(), *JAVA_OPTIONS, *memory, "-cp", str(home / "jars" / "*"), "kafka.Kafka"]

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def launch(self) -> None:
        """Start Java under its keeper, in a session that Ctrl-C does not reach."""
        keeper = [sys.executable, "-P", str(Path(_keeper.__file__)), *self._command, str(self.settings)]
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(  # noqa: S603  the kit's own command
                keeper, stdin=subprocess.PIPE, stdout=log, stderr=log, bufsize=0, **apart
            )

    def end(self, word: str) -> None:
        """Tell the keeper to `stop` or `kill` Java, and wait until it has."""
        if self.process is None or self.process.stdin is None:
            return
        with contextlib.suppress(OSError):  # it is gone already
            self.process.stdin.write(word.encode() + b"\n")
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait(END_LIMIT)
        self.process = None

    def close(self) -> None:
        """End it and remove what was only lent."""
        self.end("stop")
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def complaint(self) -> OrderkitError:
        """Say why the broker does not run, in the words of its own log."""
        text = self.log.read_bytes()[self._log_start :].decode(errors="replace")
        causes = re.findall(r"^(?:Caused by: )?[\w.$]+(?:Exception|Error): (.+)", text, re.MULTILINE)
        lines = [line for line in text.splitlines() if line.strip()]
        reason = causes[-1] if causes else lines[0] if lines else "it says nothing"
        kind = _PortTaken if "BindException" in text else OrderkitError
        return kind(f"Apache Kafka does not start: {reason.rstrip('.')}. Its log is {self.log}.")


class ApacheBroker:
    """A real Kafka broker, one node, on free ports of this machine; it ends with this process.

    Args:
        topics: topics to create, name to number of partitions.
        folder: where its data stay; without one they are temporary.
        listeners: name to security protocol. One without protection is always there, for this class itself.
        properties: further broker settings, as in `server.properties`.
        heap: how much memory Java may take, as in `512m`.
        quiet: say nothing about the first download.

    Raises:
        OrderkitError: the extra is missing, the download fails, or Kafka does not start; says why.
        UsageError: a listener or a setting that cannot be.
    """

    kind = "apache"

    def __init__(
        self,
        topics: Mapping[str, int] | None = None,
        *,
        folder: str | Path | None = None,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        heap: str = "512m",
        quiet: bool = False,
    ) -> None:
        self._listeners = _checked(listeners or {})
        self._properties = dict(properties or {})
        if taken := OURS & self._properties.keys():
            raise UsageError(f"{', '.join(sorted(taken))} cannot be set: it follows from `listeners` and `folder`.")
        _jars.java()
        home = _jars.kafka_home(quiet)
        place = Path(folder).absolute() if folder else Path(tempfile.mkdtemp(prefix="orderkit-kafka-"))
        _format(place / "data", home / "template")
        self._server = _Server(place, folder is None, heap, home)
        self._end = weakref.finalize(self, self._server.close)  # on `close`, when nobody refers to it, or at exit
        self._start_on_free_ports()
        self.bootstrap = self.address(next(name for name, kind in self._listeners.items() if kind == "PLAINTEXT"))
