"""A replay that is killed at a random point loses none and doubles none, and the journal says that it was killed.

Whole commands on real brokers, `kill -9`, and an audit that reads the topics with a plain client: each letter carries
an id in a header of its own, and nothing of the replay's code decides what is counted.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from helpers import Kit, Late, Record, rarely, wait_for

from orderkit.brokers import ApacheBroker
from orderkit.dead_letters.story import OWN, Headers
from orderkit.replay.journal import Entry, create_journal, read_journal

MODES: tuple[list[str], ...] = ([], ["--exactly-once"], ["--jobs", "2"])
CAMPAIGN = 120


@dataclass(frozen=True)
class Plan:
    """What a seed decides.

    Args:
        partitions: of the dead-letter topic, and of the target.
        letters: how many.
        kills: after how many records in the target each run is killed, and how many seconds later.
        options: of the command.
        shared: whether the journal has a topic.
    """

    partitions: tuple[int, int]
    letters: int
    kills: tuple[tuple[int, float], ...]
    options: list[str]
    shared: bool

    @classmethod
    def of(cls, seed: int) -> Plan:
        """Draw a plan."""
        chance = random.Random(seed)
        letters = chance.randint(200, 800)
        kills = sorted((chance.choice((0, chance.randint(1, letters))), chance.random() ** 3) for _ in range(2))
        options = [*MODES[seed % len(MODES)], "--rate", str(chance.choice((400, 2000, 1_000_000)))]
        partitions = chance.randint(1, 4), chance.randint(1, 4)
        return cls(partitions, letters, tuple(kills), options, chance.random() < 0.5)


def write_letters(kit: Kit, many: int, seed: int) -> None:
    """Write letters of any payload, keyed or not, each with an id of its own."""
    chance, records = random.Random(seed), []
    for i in range(many):
        told: Headers = [(name, b"1") for name in OWN]
        told[:3] = [(OWN[0], b"elsewhere"), (OWN[1], str(i % 3).encode()), (OWN[2], str(i // 3).encode())]
        value = chance.choice((None, b"", chance.randbytes(chance.randint(1, 300))))
        key = chance.choice((None, str(i % 7).encode()))
        records.append(Record(value, key, [("id", str(i).encode()), *told], i % kit.partitions))
    kit.send(records)


def ids(kit: Kit, topic: str) -> Counter[bytes]:
    """Count the ids that a topic has to show, with a plain client that sees no open or aborted transaction."""
    where = {"bootstrap.servers": kit.connection.bootstrap, "group.id": "audit", "isolation.level": "read_committed"}
    reader, found = Consumer({**where, "enable.partition.eof": True, "enable.auto.commit": False}), Counter[bytes]()
    try:
        numbers = list(reader.list_topics(topic, timeout=10).topics[topic].partitions)
        reader.assign([TopicPartition(topic, number, 0) for number in numbers])
        left, deadline = set(numbers), time.monotonic() + 30
        while left:
            if time.monotonic() > deadline:
                raise Late(f"{topic} is not read to its end")
            message = reader.poll(0.2)
            if message is None:
                continue
            if error := message.error():
                assert error.name() == "_PARTITION_EOF", error
                left.discard(message.partition())
            else:
                headers: Any = message.headers()
                found[dict(headers)["id"]] += 1
    finally:
        reader.close()
    return found


def command(kit: Kit, target: str, options: list[str]) -> list[str]:
    """Give the command line of a replay."""
    where = ["--bootstrap-server", kit.connection.bootstrap, "--dlq-topic", kit.topic, "--to", target]
    return [sys.executable, "-m", "orderkit", "dlq", "replay", "--yes", *where, *options]


def kill_after(kit: Kit, target: str, line: list[str], many: int, later: float) -> bool:
    """Run a replay, kill it once its target has so many records and a time in seconds is over; whether it was hurt."""
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        ends = kit.connection.watermarks

        def there() -> bool:
            return process.poll() is not None or sum(high for _, high in ends(target).values()) >= many

        wait_for(rarely(there, 0.02), 60)
        try:
            process.wait(later)
        except subprocess.TimeoutExpired:
            process.kill()
            return True
    return False


def finish(line: list[str]) -> None:
    """Run a replay to its end; processes of one that was killed may be at work for a moment still."""

    def ended() -> bool:
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0 or "is at work" in done.stderr, done.stderr
        return done.returncode == 0

    wait_for(rarely(ended, 0.3), 60)


def check_journal(entries: list[Entry], hurt: int, letters: int) -> None:
    """Hold the journal against what was done to the replays: the last is done, those that were hurt are killed."""
    outcomes = [entry.outcome(time.time()) for entry in entries]
    assert outcomes[0] == "done"
    assert entries[0].is_exact
    assert outcomes.count("killed") <= hurt  # one that was killed before it began has no entry
    assert all(outcome in ("done", "killed", "failed") for outcome in outcomes)
    assert sum(entry.written for entry in entries) <= letters
    assert all(entry.user and entry.host and entry.source and entry.to for entry in entries)


SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.campaign) for seed in range(3, CAMPAIGN))]


@pytest.mark.kafka
@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_point_it_loses_none_and_doubles_none(seed: int, apache: ApacheBroker) -> None:
    """However often it is killed, the same command at last has moved each letter, once; the journal tells the kills."""
    plan = Plan.of(seed)
    kit = Kit(plan.partitions[0], apache)
    target = f"target.{kit.topic}"
    kit.connection.create_topics({target: plan.partitions[1]})
    if plan.shared:
        create_journal(kit.connection, kit.topic)
    write_letters(kit, plan.letters, seed)
    line = command(kit, target, plan.options)
    hurt = sum(kill_after(kit, target, line, *kill) for kill in plan.kills)
    finish(line)
    assert ids(kit, kit.topic).keys() == ids(kit, target).keys()
    assert set(ids(kit, target).values()) == {1}
    check_journal(read_journal(kit.connection, pytest.fail, [kit.topic]), hurt, plan.letters)
