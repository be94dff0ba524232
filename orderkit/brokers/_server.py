"""The Java process of a real broker, under its keeper."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orderkit.brokers import _jars, _keeper
from orderkit.brokers._settings import to_java
from orderkit.errors import OrderkitError

END_LIMIT = _keeper.PATIENCE + 10.0  # seconds
JAVA_OPTIONS = [
    "-XX:+IgnoreUnrecognizedVMOptions",  # AOTCache is new in Java 25
    "-XX:+UseSerialGC",  # one small heap
    "-XX:TieredStopAtLevel=1",  # compile fast rather than well: a second less at every start
    "-XX:-UsePerfData",  # a file in the temporary folder, which a killed Java leaves behind
    "-Xlog:disable",  # of Java's own lines keep the errors only
    "-Xlog:all=error:stderr",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",  # says STARTED
]
STARTED = "Kafka Server started"  # once every listener has its port; the first answers before
# Java's lines that say nothing of why it ended.
CHATTER = "Picked up ", "NOTE: Picked up ", "OpenJDK 64-Bit Server VM warning", "WARNING: "


class PortTaken(OrderkitError):
    """Another program took a port between the moment it was found free and Kafka's start."""


class Server:
    """The process, its folder and its log. It knows nothing of the broker object, so that it can outlive it.

    Args:
        folder: where settings, log and data are.
        temporary: whether `close` removes the folder.
        heap: how much memory Java may take, as in `512m`.
        home: where Kafka's jars are.
    """

    def __init__(self, folder: Path, temporary: bool, heap: str, home: Path) -> None:
        self.folder = folder
        self.temporary = temporary
        self.data = folder / "data"
        self.log = folder / "broker.log"
        self.settings = folder / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0  # bytes of earlier starts
        self._home = home
        self._memory = f"-Xmx{heap}"

    @property
    def running(self) -> bool:
        """Whether Java is there; not whether it answers."""
        return self._process is not None and self._process.poll() is None

    @property
    def started(self) -> bool:
        """Whether it has all its ports, by its own word."""
        return STARTED in self.said

    def _command(self, *options: str) -> list[str]:
        home = self._way_home()
        whole = [*JAVA_OPTIONS, *options, self._memory, f"-XX:AOTCache={home / 'kafka.aot'}"]
        return [_jars.java(), *whole, "-cp", str(home / "jars" / "*"), "kafka.Kafka", str(self.settings)]

    def _way_home(self) -> Path:
        """Give a way to the jars, from the folder, that holds no `:`: Java would read two ways."""
        if os.pathsep not in str(self._home):
            return self._home
        link = Path("kafka")
        (self.folder / link).unlink(missing_ok=True)
        (self.folder / link).symlink_to(self._home, target_is_directory=True)
        return link

    @property
    def fell(self) -> bool:
        """Whether it ran before, and did not stop in good order: it leaves a file behind if it does."""
        return (self.data / ".lock").exists() and not (self.data / ".kafka_cleanshutdown").exists()

    def write(self, settings: Mapping[str, str]) -> None:
        """Write the settings that it finds at its start."""
        self.settings.touch(mode=0o600)  # it may hold a password
        self.settings.write_text(to_java(settings), encoding="utf-8")

    @property
    def said(self) -> str:
        """What it has written into its log since its start."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def launch(self, *options: str) -> None:
        """Start Java under its keeper, in its folder and in a session that Ctrl-C does not reach.

        Args:
            options: further ones for Java.
        """
        end = _keeper.REMOVED if self.temporary else _keeper.KEPT
        keeper = [sys.executable, "-P", str(Path(_keeper.__file__)), str(self.folder / "in-use"), end]
        apart: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            apart = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603  the kit's own command
                [*keeper, *self._command(*options)],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                env=_jars.java_environment(),
                **apart,
            )

    def end(self, word: str) -> None:
        """Tell the keeper to `stop` or `kill` Java, or nothing, to desert it; wait until Java has ended."""
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError):  # it is gone already
            process.stdin.write(word.encode())
        process.stdin.close()
        process.wait(END_LIMIT)
        self._process = None

    def close(self) -> None:
        """End it, and remove a temporary folder; should we be killed meanwhile, the keeper does."""
        self.end("" if self.temporary else "stop")
        if self.temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def complaint(self) -> OrderkitError:
        """Say why the broker does not run, in the words of its own log."""
        text = self.said
        causes = re.findall(r"^(?:Caused by: )?[\w.$]+(?:Exception|Error): (.+)", text, re.MULTILINE)
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith(CHATTER)]
        reason = causes[-1] if causes else lines[0] if lines else "it gives no reason"
        kind = PortTaken if "BindException" in text else OrderkitError
        return kind(f"Apache Kafka does not start: {reason.strip().rstrip('.')}. Its log is {self.log}.")
