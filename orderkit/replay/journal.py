"""The journal of replays: who moved which dead letters, from where, where to, how many, and how it ended.

A replay writes what there is to say of it again and again under one id, from its beginning to its end; the last word
counts, and one that falls silent without an end was killed. Where the journal has a topic, beside the dead-letter
topic, the team sees it, compacted to the last word of each replay. Else the word is in a file of the user's own, for
which nobody needs a right. The states are those of a message move task of Amazon SQS, with `killed` beside them.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from orderkit.dead_letters.reader import read_topic
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.kafka.properties import bare
from orderkit.replay.batch import FAILURES, FILTERED, MOVED, PARKED

SUFFIX = ".orderkit-replays"
JOURNAL_CONFIG = {"cleanup.policy": "compact", "segment.ms": str(86_400_000)}  # what is older than a day is compacted
SILENCE = 30.0  # seconds without a word after which a replay on another machine is taken for killed
DONE, INTERRUPTED, FAILED, KILLED, RUNNING = ENDS = ("done", "interrupted", "failed", "killed", "running")


@dataclass(frozen=True)
class Entry:
    """What the journal says of one replay.

    Args:
        id: of the replay.
        cluster: the id of its cluster.
        source: the dead-letter topic.
        to: the target of all; `None` where each letter went back to where it came from.
        group: whose offsets are its progress.
        only: the filter, as text; empty for all.
        settings: what else it was told: brakes, parking, transform, mode.
        user, host, process: who ran it, and where.
        began, told: when it began, and when this was written; seconds since 1970.
        end: how it ended; empty before.
        error: why it failed.
        looked: dead letters decided about.
        written: records that the broker has acknowledged, and whose offsets are noted.
        counts: how many of those looked at had which fate, as in `ReplayReport`.
        targets: how many went to which topic.
    """

    id: str
    cluster: str
    source: str
    to: str | None = None
    group: str = ""
    only: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    user: str = ""
    host: str = ""
    process: int = 0
    began: float = 0.0
    told: float = 0.0
    end: str = ""
    error: str = ""
    looked: int = 0
    written: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    targets: Mapping[str, int] = field(default_factory=dict)

    def outcome(self, now: float) -> str:
        """Say how it ended, `now` being the time in seconds since 1970; one that never said so was killed."""
        if self.end:
            return self.end
        gone = self.host == socket.gethostname() and not is_alive(self.process)
        return KILLED if gone or now - self.told > SILENCE else RUNNING

    @property
    def moved(self) -> int:
        """How many were moved for certain, the parked left out."""
        return max(0, self.written - self.parked)

    @property
    def is_exact(self) -> bool:
        """Whether all that it wrote was acknowledged and told; of one that did not end so, it may be some more."""
        return self.end in (DONE, INTERRUPTED) and self.written == self.counts.get(MOVED, 0) + self.parked

    @property
    def parked(self) -> int:
        """How many went to the parking topic."""
        return self.counts.get(PARKED, 0)

    @property
    def failed(self) -> int:
        """How many were meant and could not go, as in `ReplayReport`."""
        return sum(self.counts.get(fate, 0) for fate in FAILURES)

    @property
    def stayed(self) -> int:
        """How many were meant and stayed for another reason."""
        rest = (MOVED, PARKED, FILTERED, *FAILURES)
        return self.looked - sum(self.counts.get(fate, 0) for fate in rest)

    def to_text(self) -> str:
        """Write it as JSON in one line."""
        return json.dumps({"orderkit": 1, **asdict(self)})

    @classmethod
    def from_text(cls, text: str | bytes | None) -> Entry:
        """Read what `to_text` wrote, whatever a later version has added.

        Raises:
            ValueError: it is nothing of the kind.
        """
        told = json.loads(text or b"null")
        if not isinstance(told, dict) or "orderkit" not in told:
            raise ValueError("no entry of the journal")
        entry = cls(**{it.name: told[it.name] for it in fields(cls) if it.name in told})
        numbers = (entry.began, entry.told, *entry.counts.values(), *entry.targets.values())
        whole = all(isinstance(getattr(entry, name), kind) for name, kind in KINDS.items())
        if not whole or not all(isinstance(it, int | float) and isfinite(it) for it in numbers):
            raise ValueError("an entry of the journal that somebody changed")
        return entry


KINDS: dict[str, Any] = {
    **dict.fromkeys(("id", "cluster", "source", "group", "only", "user", "host", "end", "error"), str),
    **dict.fromkeys(("process", "looked", "written"), int), **dict.fromkeys(("began", "told"), (int, float)),
    **dict.fromkeys(("settings", "counts", "targets"), dict), "to": (str, type(None)),
}  # fmt: skip


def is_alive(process: int) -> bool:
    """Whether a process of this machine is there; where that cannot be asked, it is."""
    if os.name != "posix" or process <= 0:
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; or no number of a process
        pass
    return True


def user_name() -> str:
    """Give the name of whoever runs this; a container may know none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown"


def journal_topic(source: str) -> str:
    """Name the journal's topic beside a dead-letter topic."""
    return f"{source}{SUFFIX}"


def journal_folder() -> Path:
    """Name the folder of the journal's files: in `ORDERKIT_STATE`, else where the platform has a user's state.

    Raises:
        OSError: there is no home folder.
    """
    own = bare(os.environ.get("ORDERKIT_STATE", ""))
    try:
        state = Path(own).expanduser() if own else user_state_path("orderkit", appauthor=False).expanduser()
    except RuntimeError:  # no HOME, and a user whom the system does not know
        raise OSError("there is no home folder to keep it in; name one in ORDERKIT_STATE") from None
    return state / "replays"


def create_journal(connection: Connection, source: str) -> bool:
    """Create the journal's topic beside a dead-letter topic; whether it was missing.

    Raises:
        OrderkitError: there is no such dead-letter topic, or the broker does not create one.
    """
    connection.partitions(source, "--dlq-topic")
    return bool(connection.create_topics({journal_topic(source): 1}, JOURNAL_CONFIG))


def read_journal(
    connection: Connection, warn: Callable[[str], object], sources: Container[str] | None = None
) -> list[Entry]:
    """Read what the journal has of this cluster's replays, its topics and the user's own files together.

    Args:
        connection: the cluster.
        warn: takes a line for each part of the journal that cannot be read.
        sources: only of these dead-letter topics; by default of all.

    Returns:
        The last word of each replay, the newest replay first.

    Raises:
        OrderkitError: the broker does not answer.
    """
    cluster, last = connection.metadata(), dict[str, Entry]()
    topics = [name for name in sorted(cluster.topics) if name.endswith(SUFFIX)]
    texts = [_topic_texts(connection, name, warn) for name in topics
             if sources is None or name.removesuffix(SUFFIX) in sources]  # fmt: skip
    for text in (*(text for some in texts for text in some), *_file_texts(warn)):
        try:
            entry = Entry.from_text(text)
        except (ValueError, TypeError, RecursionError):  # a stranger's record, or a file that somebody wrote into
            continue
        here = entry.cluster == str(cluster.cluster_id) and (sources is None or entry.source in sources)
        if here and (entry.id not in last or last[entry.id].told <= entry.told):
            last[entry.id] = entry
    return sorted(last.values(), key=lambda entry: entry.began, reverse=True)


def _topic_texts(connection: Connection, topic: str, warn: Callable[[str], object]) -> Iterator[bytes | None]:
    try:
        yield from (message.value() for message in read_topic(connection, topic))
    except OrderkitError as error:
        warn(f"The journal in {topic} cannot be read: {error}")


def _file_texts(warn: Callable[[str], object]) -> Iterator[bytes]:
    try:
        yield from (path.read_bytes() for path in sorted(journal_folder().glob("*.json")))
    except OSError as error:
        warn(f"The journal of this user cannot be read: {error}.")


def as_dict(entry: Entry) -> dict[str, object]:
    """Give an entry as JSON has it, with its outcome now."""
    summed = {"moved": entry.moved, "parked": entry.parked, "stayed": entry.stayed, "failed": entry.failed}
    return {**asdict(entry), **summed, "outcome": entry.outcome(time.time())}
