"""The journal of replays: each is noted from beginning to end, for the team or the user; and it stops none."""

from __future__ import annotations

import csv
import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import Kit, Record, open_broker, rarely, shared, shorten_sessions, wait_for
from test_dlq_cli import Capture, orderkit
from test_replay import dead_thirds, other_topic

from orderkit.errors import OrderkitError
from orderkit.replay import journal, noting
from orderkit.replay.job import Replay
from orderkit.replay.journal import Entry, create_journal, journal_folder, journal_topic, read_journal


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shorten_sessions(monkeypatch)
    monkeypatch.setenv("ORDERKIT_STATE", str(tmp_path / "state"))


def noted(kit: Kit) -> list[Entry]:
    """Read the journal of a kit's dead letters; all of it can be read."""
    return read_journal(kit.connection, pytest.fail, [kit.dead_letters])


def entry(**told: Any) -> Entry:
    """Make an entry."""
    return Entry(**{"id": "a", "cluster": "c", "source": "s", **told})


def test_a_replay_is_noted_with_who_what_where_and_how_many(kit: Kit, capsys: Capture) -> None:
    """Table, JSON and CSV say the same of a replay: whose, of what, with which filter, to where, how many, its end."""
    orderkit(kit, "replay", "--reason", "permanent", "--yes", capsys=capsys)
    orderkit(kit, "replay", "--dry-run", capsys=capsys)
    status, table, advice = orderkit(kit, "history", capsys=capsys)
    (told,) = json.loads(orderkit(kit, "history", "--json", capsys=capsys)[1])["replays"]
    (row,) = csv.DictReader(io.StringIO(orderkit(kit, "history", "--format", "csv", capsys=capsys)[1]))
    assert status == 0
    assert (told["user"], told["host"]) == (journal.user_name(), socket.gethostname())
    assert (told["source"], told["targets"], told["outcome"]) == (kit.dead_letters, {kit.topic: 10}, "done")
    assert (told["moved"], told["stayed"], told["counts"]["filtered"]) == (10, 0, 1)
    assert abs(told["began"] - time.time()) < 60
    assert {"user": told["user"], "source": kit.dead_letters, "to": kit.topic, "moved": "10", "outcome": "done",
            "filtered": "1", "filter": "reasons ('permanent',)"}.items() <= row.items()  # fmt: skip
    assert "done" in table
    assert f"{kit.dead_letters} to {kit.topic}, only reasons" in table
    assert f"--create {kit.dead_letters}" in advice


@pytest.fixture
def kit() -> Kit:
    """Give topics with eleven dead letters, one of them poison."""
    kit, _ = dead_thirds(30)
    kit.send([Record(b"\xff\xff")])
    kit.consumer().run(orders=1)
    return kit


def test_history_is_filtered(kit: Kit, capsys: Capture) -> None:
    """By topic, user, end, time and number; what nobody did is a line."""
    for group in "one", "two":
        orderkit(kit, "replay", "--yes", "--group", f"{kit.group}.{group}", capsys=capsys)

    def many(*only: str) -> int:
        return len(json.loads(orderkit(kit, "history", *only, "--json", capsys=capsys)[1])["replays"])

    user = journal.user_name()
    assert [many(), many("--limit", "1"), many("--user", user), many("--user", "nobody")] == [2, 1, 2, 0]
    assert [many("--ended", "done"), many("--ended", "killed"), many("--since", "1h")] == [2, 0, 2]
    assert [many("--since", "2999-01-01"), many("--dlq-topic", "other")] == [0, 0]
    assert orderkit(kit, "history", "--user", "nobody", capsys=capsys)[1] == "No replay is noted.\n"


def test_where_there_is_a_topic_the_team_sees_the_journal(
    kit: Kit, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the journal's topic a replay leaves nothing in the user's folder, and somebody else's command shows it."""
    assert orderkit(kit, "history", "--create", kit.dead_letters, capsys=capsys)[0] == 0
    orderkit(kit, "replay", "--yes", capsys=capsys)
    assert not journal_folder().exists()
    monkeypatch.setenv("ORDERKIT_STATE", str(tmp_path / "of somebody else"))
    status, out, err = orderkit(kit, "history", capsys=capsys)
    assert (status, out.count("done"), err) == (0, 1, "")


def test_no_topic_is_created_unasked(kit: Kit, capsys: Capture) -> None:
    """A replay, and a look at the journal, create nothing."""
    before = set(kit.connection.metadata().topics)
    orderkit(kit, "replay", "--yes", capsys=capsys)
    orderkit(kit, "history", capsys=capsys)
    assert set(kit.connection.metadata().topics) == before
    assert orderkit(kit, "history", "--create", "gone", capsys=capsys)[0] == 1


def test_a_journal_that_cannot_be_written_stops_no_replay(
    kit: Kit, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder that is none, and a topic that refuses, are one line of warning each; all letters move."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("ORDERKIT_STATE", str(tmp_path / "file"))
    status, out, err = orderkit(kit, "replay", "--yes", "--limit", "5", capsys=capsys)
    assert (status, err.count("\n"), "5  moved" in out) == (0, 1, True)
    assert "The journal cannot be written" in err
    monkeypatch.setattr(noting, "PATIENCE", 1.0)
    create_journal(kit.connection, kit.dead_letters)
    shared().refuse(journal_topic(kit.dead_letters))
    monkeypatch.setenv("ORDERKIT_STATE", str(tmp_path))
    status, out, err = orderkit(kit, "replay", "--yes", capsys=capsys)
    assert (status, err.count("\n"), "6  moved" in out) == (0, 1, True)
    assert "It goes to a file of yours" in err
    shared().accept(journal_topic(kit.dead_letters))
    assert [it.written for it in noted(kit)] == [6]


def test_a_replay_that_failed_or_was_interrupted_is_noted_so() -> None:
    """The journal has the error of one that failed, and tells an end that somebody asked for from the end of all."""
    kit, _ = dead_thirds()
    with (
        pytest.raises(OrderkitError, match="told so"),
        noting.Journal(kit.connection, kit.dead_letters, pytest.fail, to="x"),
    ):
        raise OrderkitError("told so")
    job = Replay(kit.connection, kit.dead_letters, rate=50)
    with noting.Journal(kit.connection, kit.dead_letters, pytest.fail) as page:

        def stop(report: Any) -> None:
            page.watch(report)
            if report.written >= 5:
                job.stop()

        page.watch(job.run(stop))
    interrupted, failed = noted(kit)
    assert (failed.end, failed.error, failed.is_exact) == ("failed", "told so", False)
    assert (interrupted.end, interrupted.is_exact) == ("interrupted", True)
    assert 5 <= interrupted.moved < 20


CHILD = ("dlq", "replay", "--yes", "--rate", "20")


@pytest.mark.parametrize("topic", [False, True])
def test_a_killed_replay_is_seen_as_killed(topic: bool) -> None:
    """Begun and never ended: while its process is there it runs, then it was killed; with what it moved for certain."""
    kit, _ = dead_thirds(300)
    if topic:
        create_journal(kit.connection, kit.dead_letters)
    target = other_topic(kit)
    where = ["--bootstrap-server", kit.connection.bootstrap, "--dlq-topic", kit.dead_letters, "--to", target]
    with subprocess.Popen([sys.executable, "-m", "orderkit", *CHILD, *where], stdout=subprocess.DEVNULL) as child:
        wait_for(rarely(lambda: any(it.written for it in noted(kit))))
        assert noted(kit)[0].outcome(time.time()) == "running"
        child.kill()
    (found,) = noted(kit)
    there = sum(high for _, high in kit.connection.watermarks(target).values())
    assert (found.outcome(time.time()), found.is_exact) == ("killed", False)
    assert 0 < found.moved <= there


def test_a_silent_replay_of_another_machine_was_killed() -> None:
    """Where nobody can ask for the process, its silence counts; and an end that was told stays."""
    far = entry(host="far", process=1, told=1000.0)
    assert [far.outcome(1000.0 + s) for s in (0, journal.SILENCE, journal.SILENCE + 1)] == ["running"] * 2 + ["killed"]
    assert replace(far, end="done").outcome(9e9) == "done"


ODD: list[bytes | None] = [
    None, b"", b"\xff", b"[]", b"7", b'{"id": "a"}', b'{"orderkit": 1}', b'{"orderkit": 1, "id": 5, "source": "s"}',
    entry(counts={"moved": "many"}).to_text().encode(), entry(began=float("inf")).to_text().encode(),
    entry(settings=[]).to_text().encode(), entry(process="x").to_text().encode(), b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("text", ODD, ids=lambda text: repr(text)[:40])
def test_what_is_no_entry_is_passed_over(text: bytes | None) -> None:
    """Whatever somebody else writes into the journal is not shown, and stops nothing."""
    with pytest.raises((ValueError, TypeError, RecursionError)):
        Entry.from_text(text)


def test_strangers_in_topic_and_folder_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between odd records and odd files the entries are found."""
    kit, _ = dead_thirds(3, 1)
    create_journal(kit.connection, kit.dead_letters)
    cluster = str(kit.connection.metadata().cluster_id)
    good = entry(id="good", cluster=cluster, source=kit.dead_letters, end="done")
    later = replace(good, told=5.0, end="failed")
    monkeypatch.setattr(kit, "topic", journal_topic(kit.dead_letters))
    kit.send([Record(text) for text in (*ODD, later.to_text().encode(), good.to_text().encode())])
    journal_folder().mkdir(parents=True)
    (journal_folder() / "odd.json").write_bytes(b"\xff{")
    (journal_folder() / "far.json").write_text(replace(good, id="far", cluster="another").to_text())
    assert noted(kit) == [later]


def test_an_entry_comes_back_as_it_was() -> None:
    """What a later version adds is left out, what this one knows is kept."""
    told = entry(to="t", only="x", counts={"moved": 3}, targets={"t": 3}, written=3, end="done", began=1.5)
    assert Entry.from_text(told.to_text()) == told
    assert Entry.from_text(json.dumps({**json.loads(told.to_text()), "new": 1})) == told
    assert (told.moved, told.is_exact) == (3, True)


@pytest.mark.parametrize("name", ["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def test_the_topic_is_kept_and_small(name: str, request: pytest.FixtureRequest) -> None:
    """The journal's topic is compacted to the last word of each replay, and created once."""
    kit = Kit(1, open_broker(name, request))
    assert create_journal(kit.connection, kit.dead_letters)
    assert not create_journal(kit.connection, kit.dead_letters)
    with noting.Journal(kit.connection, kit.dead_letters, pytest.fail):
        pass
    assert [it.end for it in noted(kit)] == ["done"]


def test_whoever_has_no_name_or_home_replays_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may know neither: the replay is noted without, or warned of."""

    def nobody(*_: object) -> Any:
        raise KeyError("uid")

    def homeless(*_: object, **__: object) -> Any:
        raise RuntimeError("no home")

    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr(journal, "user_state_path", homeless)
    monkeypatch.delenv("ORDERKIT_STATE")
    told: list[str] = []
    warn: Callable[[str], object] = told.append
    kit, _ = dead_thirds(3, 1)
    with noting.Journal(kit.connection, kit.dead_letters, warn):
        pass
    assert len(told) == 1
    assert "ORDERKIT_STATE" in told[0]
    assert journal.user_name()
