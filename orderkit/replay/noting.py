"""Note a replay in the journal while it runs. Nothing that happens to the journal stops the replay."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaException

from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.replay.journal import DONE, FAILED, INTERRUPTED, Entry, journal_folder, journal_topic, user_name
from orderkit.replay.report import ReplayReport

BEAT = 2.0  # seconds between two words of a replay that goes on
PATIENCE = 5.0  # seconds for the acknowledgement of a word


class FilePage:
    """Keeps the last word of a replay in a file of its own, which is whole at any moment."""

    def __init__(self, key: str) -> None:
        self._key = key

    def write(self, text: str) -> None:
        """Put `text` in the place of what there was.

        Raises:
            OSError: it cannot be kept.
        """
        folder = journal_folder()
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{self._key}.new"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(folder / f"{self._key}.json")


class TopicPage:
    """Writes each word of a replay into the journal's topic."""

    def __init__(self, connection: Connection, topic: str, key: str) -> None:
        self._topic, self._key = topic, key
        self._answer: list[object] = []
        # An idempotent producer asks for one more right; a word that comes twice says the same.
        settings = {"enable_idempotence": False, "message_timeout_ms": int(PATIENCE * 1000), "linger_ms": 0}
        self._producer = connection.producer(**settings)

    def write(self, text: str) -> None:
        """Append `text`, and wait until the broker has it.

        Raises:
            OSError: it does not take it.
        """
        self._answer = ["no answer"]
        try:
            self._producer.produce(self._topic, text, self._key, on_delivery=self._delivered)
        except (KafkaException, BufferError) as error:
            raise OSError(f"topic {self._topic}: {error}") from None
        self._producer.flush(PATIENCE + 1)
        if self._answer[0] is not None:
            raise OSError(f"topic {self._topic}: {self._answer[0]}")

    def _delivered(self, error: object, _report: object) -> None:
        self._answer[0] = None if error is None else error.str()  # type: ignore[attr-defined]


class Journal:
    """Notes a replay for as long as the block runs: in the journal's topic if there is one, else in a file.

    Args:
        connection: the cluster.
        source: the dead-letter topic.
        warn: takes a line when the journal cannot be written.
        told: what else to note of the replay, in the words of `Entry`.

    Raises:
        OrderkitError: the broker does not answer.
    """

    def __init__(self, connection: Connection, source: str, warn: Callable[[str], object], **told: Any) -> None:
        self._warn, self._over, self._report = warn, threading.Event(), ReplayReport(source, "")
        cluster, key = connection.metadata(), uuid.uuid4().hex
        self._known = {
            "id": key, "cluster": str(cluster.cluster_id), "source": source, "user": user_name(),
            "host": socket.gethostname(), "process": os.getpid(), "began": time.time(), **told,
        }  # fmt: skip
        self._pages: list[TopicPage | FilePage] = [FilePage(key)]
        if (topic := journal_topic(source)) in cluster.topics:  # asked for, a topic that is missing might be created
            self._pages.insert(0, TopicPage(connection, topic, key))
        self._thread = threading.Thread(target=self._go_on, name="journal", daemon=True)

    def watch(self, report: ReplayReport) -> None:
        """Take in how far the replay is."""
        self._report = report

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if error is None:
            self._write(INTERRUPTED if self._report.interrupted else DONE)
        elif isinstance(error, KeyboardInterrupt):
            self._write(INTERRUPTED)
        else:
            self._write(FAILED, str(error) if isinstance(error, OrderkitError) else f"{type(error).__name__}: {error}")

    def _go_on(self) -> None:
        while not self._over.wait(BEAT):
            self._write()

    def _write(self, end: str = "", error: str = "") -> None:
        """Write the last word; what refuses it is not asked again, and the next page takes its place."""
        report = self._report
        text = Entry(
            **self._known,
            told=time.time(),
            end=end,
            error=error,
            looked=report.looked,
            written=report.acknowledged,
            counts=dict(report.counts),
            targets=dict(report.targets),
        ).to_text()
        while self._pages:
            try:
                self._pages[0].write(text)
            except OSError as refused:
                self._pages.pop(0)
                rest = "It goes to a file of yours" if self._pages else "`orderkit dlq history` will not show it"
                self._warn(f"The journal cannot be written: {refused}. {rest}; the replay goes on.")
            else:
                return
