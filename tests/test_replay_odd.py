"""Replay of somebody else's dead letters: what cannot go stays and is counted, and everything else goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers import Kit, Record, average_of, open_broker, rarely, shorten_sessions, wait_for, within
from test_replay import dead_thirds, other_topic, replay, replayed

from orderkit.brokers import ApacheBroker
from orderkit.dead_letters import DeadLetterRecord, Headers, LetterFilter, Where
from orderkit.dead_letters.payload import PayloadReader
from orderkit.errors import OrderkitError
from orderkit.kafka.configs import TOPIC, change_config
from orderkit.letter_files.values import Values
from orderkit.orders.schemas import read_schema
from orderkit.replay import job as replaying
from orderkit.replay.batch import Batch
from orderkit.replay.claims import EXPIRED, Claim, refuse_others
from orderkit.replay.job import Replay
from orderkit.replay.journal import read_journal
from orderkit.replay.mending import Mender
from orderkit.replay.positions import Position
from orderkit.replay.report import ReplayReport
from orderkit.replay.routing import Router
from orderkit.replay.seen import ReplayCheck, check_replays
from orderkit.replay.sending import Sender


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_sessions(monkeypatch)


OWN, SPRING = "orderkit.dlq.", "kafka_dlt-original-"
MARK = {OWN: ("orderkit.dlq.reason", b"permanent"), SPRING: ("kafka_dlt-exception-fqcn", b"Down")}


def letter(topic: str, partition: bytes = b"0", offset: bytes = b"7", dialect: str = OWN) -> Record:
    """Make a dead letter that tells such an origin."""
    told: Headers = [(f"{dialect}topic", topic.encode()), (f"{dialect}partition", partition),
                     (f"{dialect}offset", offset), MARK[dialect]]  # fmt: skip
    return Record(b"value", b"key", [("mine", b"kept"), *told])


BROKEN = [
    letter("{topic}", b"\0" * 7),
    letter("{topic}", b"0", b"seven"),
    letter("{topic}", b"-1"),
    letter("{topic}", b"", b"7"),
    letter("", b"0", b"7"),
    letter("{topic}", b"\0" * 7, b"\0" * 8, SPRING),
    letter("{topic}", b"\0" * 4, b"\0" * 3, SPRING),
    letter("{topic}", b"\xff" * 4, b"\0" * 8, SPRING),
    Record(b"value", b"key", [("original_partition", b"0"), ("original_offset", b"7"), ("mine", b"kept")]),
]


def to_send(kit: Kit, record: Record) -> Record:
    """Let a letter come from the kit's other topic."""
    filled = [
        (name, it.replace(b"{topic}", kit.dead_letters.encode()) if isinstance(it, bytes) else it)
        for name, it in record.headers
    ]
    return replace(record, headers=filled)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda it: repr(it.headers[-3:])[:60])
def test_a_letter_with_a_broken_origin_stays_or_goes_where_it_is_sent(broken: Record) -> None:
    """A header that tells no partition or offset means that there is no origin: the letter stays, or goes `--to`."""
    kit = Kit()
    good = letter(kit.dead_letters)
    kit.send([to_send(kit, broken), good])
    report = Replay(kit.connection, kit.topic).run()
    assert (report.counts, report.failed) == ({"moved": 1, "nowhere": 1}, 0)
    target = other_topic(kit)
    assert Replay(kit.connection, kit.topic, to=target).run().counts == {"moved": 2}
    without, whole = sorted(replayed(kit, target), key=lambda record: record.first_origin)
    assert (without.first_origin[0], whole.first_origin) == ("?", (kit.dead_letters, 0, 7))
    assert (without.key, without.value, without.headers) == (whole.key, whole.value, whole.headers)


def test_one_without_an_origin_that_dies_again_has_the_new_one() -> None:
    """A letter that was sent `--to` a topic and died there comes from there, however broken its headers were before."""
    kit = Kit()
    dlq = Kit()
    dlq.send([letter(kit.topic, b"\0" * 7)])
    Replay(dlq.connection, dlq.topic, to=kit.topic).run()
    kit.consumer().run(orders=1)
    (again,) = kit.letters()
    assert (again.first_origin, again.replays) == ((kit.topic, 0, 0), 1)
    assert replay(kit).counts == {"moved": 1}


def test_letters_that_tell_no_partition_are_no_copies_of_each_other() -> None:
    """Two letters of one topic with the same offset are one letter only if their partition is told."""
    kit = Kit()
    told: Headers = [("__connect.errors.topic", kit.dead_letters.encode()), ("__connect.errors.offset", b"5")]
    kit.send([Record(b"a", b"k", told), Record(b"b", b"k", told)])
    assert Replay(kit.connection, kit.topic).run().counts == {"moved": 2}


def test_letters_of_a_topic_that_is_gone_stay_and_go_when_it_is_back() -> None:
    """Where one topic of many is missing the others' letters move; the same command moves the rest once it is there."""
    kit = Kit()
    gone = f"{kit.topic}.gone"
    kit.send([letter(kit.dead_letters, offset=b"1"), letter(gone, offset=b"1"), letter("no name at all!"),
              letter(gone, offset=b"2"), letter(kit.dead_letters, offset=b"2")])  # fmt: skip
    report = Replay(kit.connection, kit.topic).run()
    assert (report.counts, report.waiting, report.failed) == ({"moved": 2, "missing": 3}, 3, 3)
    assert [note.partition(",")[0] for note in report.notes] == [f"2 from {gone}", "1 from no name at all!"]
    with pytest.raises(OrderkitError, match="which does not exist"):
        Replay(kit.connection, kit.topic).run()
    kit.connection.create_topics({gone: 4})
    assert Replay(kit.connection, kit.topic).run().counts == {"moved": 2, "missing": 1}


def test_values_that_are_no_orders_are_chosen_and_mended_too(tmp_path: Path) -> None:
    """A condition and a transform see the fields of JSON and of any record; each goes back in the form that it had."""
    kit, file = Kit(), tmp_path / "payment.avsc"
    fields = [{"name": "who", "type": "string"}, {"name": "cents", "type": "long"}]
    file.write_text(json.dumps({"type": "record", "name": "Payment", "fields": fields}))
    mark = read_schema(file).mark
    values = [mark + b"\x06ann\x02", b'{"who":"ann","cents":1}', b'{"who":"bob","cents":1}', b"ann", None]
    kit.send([replace(letter(kit.dead_letters, offset=b"%d" % i), value=value) for i, value in enumerate(values)])
    reader, seen = PayloadReader(file), list[object]()

    def double(payment: dict[str, Any], _letter: DeadLetterRecord) -> dict[str, Any]:
        seen.append(payment)
        return {**payment, "cents": payment["cents"] * 2}

    mender, only = Mender(double, values=Values(file)), LetterFilter(where=Where("who == 'ann'"))
    report = Replay(kit.connection, kit.topic, only=only, mender=mender, reader=reader).run()
    assert report.counts == {"moved": 2, "filtered": 3}
    assert seen == [{"who": "ann", "cents": 1}] * 2
    back = {record.value: record.original_value for record in replayed(kit, kit.dead_letters)}
    assert back == {mark + b"\x06ann\x04": values[0], b'{"who":"ann","cents":2}': values[1]}


@pytest.mark.kafka
@pytest.mark.parametrize("exactly_once", [False, True])
def test_a_letter_that_is_too_large_stays_and_others_go_on(apache: ApacheBroker, exactly_once: bool) -> None:
    """A letter of 16 MB whose target takes 1 MB is counted and stays; the rest moves; once it may, it goes, too."""
    kit = Kit(2, apache)
    admin, large_records = kit.connection.admin(), {"max.message.bytes": "20000000"}
    change_config(admin, TOPIC, kit.topic, large_records)
    wait_for(rarely(lambda: _takes(kit, kit.topic, 16 * 1024 * 1024 - 2000)))
    small = [replace(letter(kit.dead_letters, offset=str(i).encode()), partition=i % 2) for i in range(20)]
    kit.send(small)
    before = sum(high for _, high in kit.connection.watermarks(kit.topic).values()) - 20
    large = Replay(kit.connection, kit.topic, exactly_once=exactly_once).run()
    assert large.counts == {"moved": 20, "refused": before}
    assert (large.waiting, large.failed, large.targets) == (before, before, {kit.dead_letters: 20})
    assert len(replayed(kit, kit.dead_letters)) == 20
    assert Replay(kit.connection, kit.topic, exactly_once=exactly_once).run().counts == {"refused": before}
    change_config(admin, TOPIC, kit.dead_letters, large_records)

    def goes() -> bool:
        report = Replay(kit.connection, kit.topic, exactly_once=exactly_once).run()
        return report.counts == {"moved": before}

    wait_for(goes)
    assert Replay(kit.connection, kit.topic, exactly_once=exactly_once).run().looked == 0


def _takes(kit: Kit, topic: str, size: int) -> bool:
    """Write one large letter; whether the topic took it."""
    record = letter(kit.dead_letters, offset=b"999")
    producer, told = kit.connection.producer(message_max_bytes=20_000_000), list[object]()
    headers: Any = record.headers
    producer.produce(topic, b"x" * size, b"k", 0, headers=headers, on_delivery=lambda error, _: told.append(error))
    producer.flush(20)
    return told == [None]


def test_two_replays_of_one_group_are_not_at_work_at_once() -> None:
    """While one is at work the other is refused in a line; then it finds nothing left, and nothing went twice."""
    kit, _ = dead_thirds()
    first, refused = Replay(kit.connection, kit.dead_letters, rate=40), list[str]()

    def second(report: ReplayReport) -> None:
        if report.written < 3 or refused:
            return
        with pytest.raises(OrderkitError, match="is at work") as error:
            replay(kit)
        refused.append(str(error.value))

    assert first.run(second).counts == {"moved": 20}
    assert f"process {os.getpid()}" in refused[0]
    assert replay(kit).looked == 0
    assert len(replayed(kit)) == 20


def test_of_replays_that_begin_at_the_same_moment_at_most_one_is_at_work() -> None:
    """However many begin together, none is at work beside another: each letter is moved once."""
    kit, _ = dead_thirds()
    gate, ends = threading.Barrier(4), list[str]()

    def begin() -> None:
        job = Replay(kit.connection, kit.dead_letters, check=False, rate=60)
        gate.wait()
        try:
            ends.append(str(dict(job.run().counts)))
        except OrderkitError as error:
            ends.append("at work" if "is at work" in str(error) else str(error))

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert set(ends) <= {"at work", "{'moved': 20}"}
    replay(kit, check=False)
    assert len(replayed(kit)) == 20


def test_a_double_replay_costs_the_average_what_the_report_says() -> None:
    """Replayed once each order counts once; replayed again without the look, the average is wrong by those reported."""
    kit, orders = dead_thirds()
    replay(kit)
    kit.consumer().run(orders=20)
    assert (kit.state().average, check_replays(kit.connection, kit.topic).doubled) == (average_of(orders), 0)
    assert replay(kit, group="second." + kit.group).counts == {"doubled": 20}
    replay(kit, group="third." + kit.group, check=False, limit=7)
    kit.consumer().run(orders=7)
    found = check_replays(kit.connection, kit.topic)
    twice = [orders[offset * kit.partitions + partition] for (_, partition, offset), _ in found.examples]
    assert (found.doubled, len(twice)) == (7, 7)
    assert kit.state().average == average_of([*orders, *twice])


def test_a_claim_ends_with_its_process_or_its_time() -> None:
    """A claim counts while its process is there; on another machine, and in any case, no longer than its time."""
    now, mine = time.time(), Claim()
    far = Claim(host="far", at=now)
    assert far.is_live
    assert not replace(far, at=now - EXPIRED - 1).is_live
    assert not Claim(process=2**22 + 1, at=now).is_live  # beyond what Linux gives a process
    assert Claim(process=os.getppid(), at=now).is_live
    assert not Claim(at=now).is_live  # of this process, and it has let go
    with pytest.raises(OrderkitError, match="on far"):
        refuse_others("g", [None, mine, far], mine)
    position = Position(5, {1, 2}, mine)
    commit: Any = type("Commit", (), dict(zip(("offset", "metadata"), position.to_commit(), strict=True)))
    assert (back := Position.from_commit(commit, 0)).claim is not None
    assert (back.claim.id, back.stay, back.next) == (mine.id, {1, 2}, 5)
    assert Claim.from_json(["a", 1]) is Claim.from_json("x") is None


@pytest.mark.parametrize("name", ["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def test_ctrl_c_in_the_middle_is_130_and_the_same_command_goes_on(name: str, request: pytest.FixtureRequest) -> None:
    """Interrupted, it ends within seconds, says how far it is, and has noted that; then it goes on, nothing twice."""
    kit, _ = dead_thirds(300, kit=Kit(4, open_broker(name, request)))
    line = [sys.executable, "-m", "orderkit", "dlq", "replay", "--yes", "--dlq-topic", kit.dead_letters]
    line += ["--bootstrap-server", kit.connection.bootstrap]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*line, "--rate", "20"], **told) as child:  # type: ignore[call-overload]
        wait_for(rarely(lambda: len(replayed(kit)) >= 3))
        child.send_signal(signal.SIGINT)
        with within(5):
            out, err = child.communicate()
    assert child.returncode == 130, err
    assert "moved; the same command goes on there" in err
    moved = len(replayed(kit))
    assert f"{moved}  moved to {kit.topic}" in out
    assert 3 <= moved < 100
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, f"{100 - moved}  moved" in done.stdout) == (0, True), done
    journal = read_journal(kit.connection, pytest.fail, [kit.dead_letters])
    assert [(it.end, it.moved, it.is_exact) for it in journal] == [
        ("done", 100 - moved, True),
        ("interrupted", moved, True),
    ]
    assert len(replayed(kit)) == 100


def test_a_replay_that_is_stopped_while_it_looks_at_a_target_moves_nothing() -> None:
    """Ctrl-C is heard during the look at what was replayed before; no letter moves, none is passed over."""
    kit, _ = dead_thirds()
    job = Replay(kit.connection, kit.dead_letters)

    def check(*_: object) -> ReplayCheck:
        job.stop()
        return ReplayCheck(kit.topic)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replaying, "check_replays", check)
        report = job.run()
    assert (report.looked, report.interrupted) == (0, True)
    assert replay(kit).counts == {"moved": 20}


def test_the_rate_makes_up_for_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long look at the target the rate holds as before: no burst."""
    kit, _ = dead_thirds()

    def check(*_: object) -> ReplayCheck:
        time.sleep(1.0)
        return ReplayCheck(kit.topic)

    monkeypatch.setattr(replaying, "check_replays", check)
    times: list[float] = []
    Replay(kit.connection, kit.dead_letters, rate=20.0).run(lambda _: times.append(time.monotonic()))
    assert times[-1] - times[0] >= 16 / 20  # the first two, and the last two, are not waited for


def test_after_a_late_portion_the_rate_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes late is waited for like any other: the next does not follow at once."""
    kit, _ = dead_thirds()
    route, send, times = Router.route, Sender.send, list[float]()

    def late(self: Router, *what: Any) -> Batch:
        time.sleep(0.5 if len(times) == 2 else 0.0)
        return route(self, *what)

    def noted(self: Sender, *what: Any) -> None:
        times.append(time.monotonic())
        send(self, *what)

    monkeypatch.setattr(Router, "route", late)
    monkeypatch.setattr(Sender, "send", noted)
    assert Replay(kit.connection, kit.dead_letters, rate=5.0, limit=6).run().written == 6
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.1  # 0.2, and a machine that is busy


def test_no_brake_holds_up_a_look_ahead() -> None:
    """To see what would move takes no longer because it will move slowly."""
    kit, _ = dead_thirds()
    with within(5):
        assert Replay(kit.connection, kit.dead_letters, rate=0.5).preview().counts == {"moved": 20}
