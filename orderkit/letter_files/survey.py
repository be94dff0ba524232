"""What is in a file of dead letters, looked at as a whole before the first of them is written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaException

from orderkit.dead_letters.times import when
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.kafka.configs import TOPIC, read_config
from orderkit.letter_files.copies import Bad, LetterSource, Portion

TOLD = 3  # bad lines that are quoted
DAY = 86_400_000  # ms
NEVER = 2**63  # ms since 1970


@dataclass
class Survey:
    """What a file holds.

    Args:
        source: its name.
        unit: "line" or "row".
        digest: tells its contents from others.
        letters: how many there are, by the topic where they lay.
        edited: how many have another value than they had.
        timeless: how many say 0 for a time, which the client cannot write; it writes the present one.
        bad: how many lines are no letters.
        told: the first of them.
        end: the number of the last line.
        last: topic and partition to the highest offset.
        oldest: topic to the earliest time at which one was written, in ms since 1970.
    """

    source: str
    unit: str
    digest: str = ""
    letters: Counter[str] = field(default_factory=Counter)
    edited: int = 0
    timeless: int = 0
    bad: int = 0
    told: list[Bad] = field(default_factory=list)
    end: int = 0
    last: dict[tuple[str, int], int] = field(default_factory=dict)
    oldest: dict[str, int] = field(default_factory=dict)

    def add(self, portion: Portion) -> None:
        """Take a portion in."""
        last, oldest = self.last, self.oldest
        for letter in portion.letters:
            part = letter.topic, letter.partition
            if letter.offset > last.get(part, -1):
                last[part] = letter.offset
            self.edited += letter.edited
            self.timeless += not letter.timestamp
            if 0 < letter.timestamp < oldest.get(letter.topic, NEVER):
                oldest[letter.topic] = letter.timestamp
        self.letters.update(letter.topic for letter in portion.letters)
        self.bad += len(portion.bad)
        self.told += portion.bad[: TOLD - len(self.told)]
        self.end = portion.end

    @property
    def complaint(self) -> str:
        """Say what is wrong with the first bad line, and how many there are."""
        number, why = self.told[0]
        more = f" (and {self.bad - 1} more like it)" if self.bad > 1 else ""
        return f"{self.source}: {self.unit} {number}: {why}{more}"


def survey(source: LetterSource, watch: Callable[[Survey], object], stopped: Callable[[], bool]) -> Survey:
    """Go through a whole file.

    Args:
        source: the file.
        watch: told now and then how far it is.
        stopped: asked now and then whether to give up.

    Raises:
        UsageError: it is no export of dead letters at all.
        OrderkitError: it cannot be read.
    """
    found = Survey(source.name, source.unit)
    try:
        for portion in source.portions():
            found.add(portion)
            if found.bad and not found.letters:
                raise UsageError(
                    f"{source.name} is no export of dead letters: {source.unit} {found.told[0].number}: "
                    f"{found.told[0].why}. `orderkit dlq export` writes one."
                )
            watch(found)
            if stopped():
                return found
        found.digest = source.digest()
    except OSError as error:
        raise OrderkitError(f"{source.name} cannot be read: {error.strerror or error}.") from None
    return found


def check_targets(
    connection: Connection, found: Survey, to: str | None, by_key: bool, hint: str = "--dlq-topic"
) -> dict[str, int]:
    """Make sure that each letter has a partition to go to; give topic to number of partitions.

    Raises:
        OrderkitError: a topic is missing.
        UsageError: one has too few partitions.
    """
    targets = {name: len(connection.partitions(name, hint)) for name in ([to] if to else sorted(found.letters))}
    for topic, partition in found.last:
        name = to or topic
        if partition >= targets[name] and not by_key:
            raise UsageError(
                f"{found.source} has letters of partition {partition}, and {name} has {targets[name]} partitions. "
                "Let it have more, or choose partitions anew with --by-key."
            )
    return targets


def check_still_there(connection: Connection, found: Survey, targets: Mapping[str, int]) -> None:
    """Refuse to double letters that lie where the file has them from, unless that topic was asked for by name.

    Raises:
        UsageError: their places are taken.
    """
    for topic in targets:
        for number, (low, high) in connection.watermarks(topic, "--dlq-topic").items():
            if low <= found.last.get((topic, number), -1) < high:
                raise UsageError(
                    f"The letters of {found.source} still lie in {topic} (partition {number}, offset "
                    f"{found.last[topic, number]}, say), and would be there twice. Name another topic with --to, or "
                    f"this one (--to {topic}) if you mean it."
                )


def check_kept(connection: Connection, found: Survey, to: str | None) -> None:
    """Refuse letters that are older than their target keeps records: the broker would delete them, soon and silently.

    Raises:
        UsageError: they are.
    """
    for topic, oldest in found.oldest.items():
        kept = kept_for(connection, to or topic)
        if 0 <= kept < time.time() * 1000 - oldest:
            raise UsageError(
                f"{found.source} has letters of {when(oldest)}, and {to or topic} keeps records for {kept / DAY:g} "
                "days: the broker would delete them. Raise its retention.ms, or name one that `orderkit topics create "
                "--dlq-topic NAME` has made."
            )


def kept_for(connection: Connection, topic: str) -> int:
    """Say for how many ms a topic keeps records, by the time that they tell; -1 for ever, or nobody says."""
    if connection.is_embedded:
        return -1
    try:
        told = read_config(connection.admin(), TOPIC, topic)
    except KafkaException:  # it may not be asked
        return -1
    own = told.get("message.timestamp.type") == "CreateTime" and "delete" in told.get("cleanup.policy", "")
    return int(told["retention.ms"]) if own else -1
