"""Real Apache Kafka as a child process: no Docker, no Java to install. Needs the extra `orderkit[kafka]`."""

from __future__ import annotations

import tempfile
import time
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from confluent_kafka import KafkaException

from orderkit.brokers import _jars
from orderkit.brokers._fallen import give_up
from orderkit.brokers._ports import Ports
from orderkit.brokers._server import PortTaken, Server
from orderkit.brokers._settings import CONTROLLER, HOST, OURS, cluster_of, format_log, placed
from orderkit.dead_letters import DLQ_CONFIG
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import DEAD_LETTERS, ORDERS, Connection

START_LIMIT = 60.0  # seconds until a broker that does not answer has failed
ATTEMPTS = 5  # at finding ports that nobody else takes
DEFAULT_TOPICS = {ORDERS: 4, DEAD_LETTERS: 4}
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
EAGER = {"log_level": "0", "reconnect.backoff.ms": "20", "reconnect.backoff.max.ms": "100"}


class ApacheBroker:
    """A real Kafka broker, one node, on free ports of this machine. It ends with this process at the latest.

    Args:
        topics: topics to create, name to number of partitions.
        folder: where its data stay; without one they are temporary.
        port: of the PLAINTEXT listener; without one a free port is taken.
        listeners: name to security protocol; one in PLAINTEXT is added if there is none, for this object's own use.
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
        port: int | None = None,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        heap: str = "512m",
        quiet: bool = False,
    ) -> None:
        self._listeners = _checked(listeners or {})
        self._port = port
        self._properties = dict(properties or {})
        if taken := OURS & self._properties.keys():
            raise UsageError(f"{', '.join(sorted(taken))}: not for `properties`, it follows from the other arguments.")
        home = _jars.kafka_home(quiet)
        self._server = Server(_folder(folder), folder is None, heap, home)
        self._end = weakref.finalize(self, self._server.close)  # on `close`, when nobody refers to it, or at exit
        self._prepare(home)
        self._start_on_free_ports()
        self.bootstrap = self.address(self._plain)
        self.connection = Connection(self.bootstrap)
        self.create_topics(DEFAULT_TOPICS if topics is None else topics)

    def _prepare(self, home: Path) -> None:
        try:
            if self._server.temporary:  # made only now that `close` knows of it: a signal may come at any moment
                self._server.folder.mkdir(mode=0o700)
            format_log(self._server.data, home / "template")
        except OSError as error:  # a full disk, a folder that may not be written
            raise OrderkitError(
                f"Apache Kafka cannot keep its data in {self._server.folder}: {error.strerror or error}. "
                "Name another folder."
            ) from None

    @property
    def _plain(self) -> str:
        return next(name for name, protocol in self._listeners.items() if protocol == "PLAINTEXT")

    def address(self, listener: str) -> str:
        """Give `host:port` of one listener.

        Raises:
            UsageError: there is no listener of that name.
        """
        if listener not in self._listeners:
            raise UsageError(f"There is no listener {listener!r}. Choose from: {', '.join(self._listeners)}.")
        return f"{HOST}:{self._ports.numbers[listener]}"

    def create_topics(self, topics: Mapping[str, int]) -> None:
        """Create topics (name to number of partitions); those that exist stay as they are. They can be used at once.

        The one for dead letters keeps its records for ever.

        Raises:
            OrderkitError: a name Kafka does not allow, or the broker is down or closed.
        """
        self._must_be_open()
        others = dict(topics)
        if (letters := others.pop(DEAD_LETTERS, None)) is not None:
            self.connection.create_topics({DEAD_LETTERS: letters}, DLQ_CONFIG)
        if others:
            self.connection.create_topics(others)

    def down(self) -> None:
        """Stop Kafka in good order; its records stay for `up`."""
        self._must_be_open()
        self._server.end("stop")

    def kill(self) -> None:
        """End Kafka as a power cut would; its records stay for `up`, as far as they are written."""
        self._must_be_open()
        self._server.end("kill")

    def up(self) -> None:
        """Start Kafka again on its data and its ports. Does nothing while it runs."""
        self._must_be_open()
        if not self._server.running:
            self._start()

    def close(self) -> None:
        """End Kafka for good and remove temporary data. A second call does nothing; the program's end does it too."""
        self._end()
        self._ports.close()

    def _must_be_open(self) -> None:
        if not self._end.alive:
            raise OrderkitError("This Apache broker is closed. Open a new one with ApacheBroker().")

    def _start_on_free_ports(self) -> None:
        temporary = self._server.temporary
        for attempt in range(1, ATTEMPTS + 1):
            given = {} if self._port is None else {self._plain: self._port}
            self._ports = Ports([*self._listeners, CONTROLLER], given)
            try:
                return self._start()
            except PortTaken:
                if attempt == ATTEMPTS:
                    raise
                self._server.temporary = temporary
        return None

    def _start(self) -> None:
        if self._server.fell:
            give_up(self._server, self._ports.numbers[CONTROLLER])
        self._server.write(self._settings())
        self._server.launch()
        try:
            self._await()
        except OrderkitError:
            self._server.end("stop")
            self._server.temporary = False  # its log says more than one line can
            raise

    def _await(self) -> None:
        """Wait until the broker answers, at every listener: this one, and not another that took a port a moment ago."""
        admin, ours = Connection(self.address(self._plain), EAGER).admin(), cluster_of(self._server.data)
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            if not self._server.running:
                raise self._server.complaint()
            try:
                found = admin.list_topics(timeout=0.5)
            except KafkaException:
                continue  # not yet
            if found.brokers and found.cluster_id == ours and self._server.started:
                return
            time.sleep(0.01)
        raise OrderkitError(f"Apache Kafka does not answer after {START_LIMIT:g} s. Its log is {self._server.log}.")

    def _settings(self) -> dict[str, str]:
        data = self._server.data.name  # from its folder: a comma on the way there would divide it
        listening = placed({**self._listeners, CONTROLLER: "PLAINTEXT"}, self._ports.numbers, data)
        return {**listening, "inter.broker.listener.name": self._plain, **self._properties}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if not self._end.alive else "up" if self._server.running else "down"
        return f"ApacheBroker({self.bootstrap}, {state})"


def _folder(named: str | Path | None) -> Path:
    """Give the folder for a broker's data, or the name of a temporary one.

    Raises:
        OrderkitError: there is no place for temporary files.
        UsageError: Java cannot be told of that folder.
    """
    try:
        place = _jars.must_be_text(Path(named or tempfile.gettempdir()).absolute())
    except OSError as error:
        raise OrderkitError(f"There is no folder for temporary files: {error.strerror or error}. Set TMPDIR.") from None
    return place if named else place / f"orderkit-kafka-{uuid.uuid4().hex[:12]}"


def _checked(listeners: Mapping[str, str]) -> dict[str, str]:
    for name, protocol in listeners.items():
        if protocol not in PROTOCOLS or name == CONTROLLER:
            raise UsageError(f"Listener {name}: {protocol} cannot be. Protocols are {', '.join(PROTOCOLS)}.")
    return dict(listeners) if "PLAINTEXT" in listeners.values() else {"PLAINTEXT": "PLAINTEXT", **listeners}
