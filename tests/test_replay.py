"""Replay: what is meant goes back whole, nothing is lost or counted twice, and every brake holds."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    AT_ONCE,
    Kit,
    Record,
    average_of,
    open_broker,
    shared,
    shorten_sessions,
    take_orders,
    wait_for,
)

from orderkit.brokers import ApacheBroker
from orderkit.dead_letters import DeadLetterRecord, Headers, LetterFilter, Where, read_dead_letters
from orderkit.errors import OrderkitError, UsageError
from orderkit.orders.avro import Codec
from orderkit.orders.order import Order
from orderkit.replay.job import Replay, default_group
from orderkit.replay.mending import Mender, load_transform
from orderkit.replay.parallel import ParallelReplay
from orderkit.replay.positions import Position
from orderkit.replay.report import ReplayReport
from orderkit.replay.seen import check_replays
from orderkit.retry import Permanent


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_sessions(monkeypatch)


def refuse_thirds(order: Order, _attempt: int) -> None:
    """Refuse every third order for good."""
    if int(order["orderId"]) % 3 == 0:
        raise Permanent("a third")


def dead_thirds(many: int = 60, partitions: int = 4, kit: Kit | None = None) -> tuple[Kit, list[Order]]:
    """Let a consumer dead-letter every third of some orders."""
    kit, orders = kit or Kit(partitions), take_orders(many)
    kit.send_orders(orders)
    kit.consumer(refuse_thirds, policy=AT_ONCE).run(orders=many)
    return kit, orders


def replayed(kit: Kit, topic: str | None = None) -> list[DeadLetterRecord]:
    """Give the records of a topic that a replay wrote."""
    return [record for record in read_dead_letters(kit.connection, topic or kit.topic) if record.replays]


def replay(kit: Kit, **settings: Any) -> ReplayReport:
    """Replay a kit's dead letters."""
    return Replay(kit.connection, kit.dead_letters, **settings).run()


def other_topic(kit: Kit, partitions: int = 4) -> str:
    """Make one more topic."""
    name = f"other.{kit.topic}"
    kit.connection.create_topics({name: partitions})
    return name


def test_what_died_goes_back_whole_and_is_averaged_once() -> None:
    """After the cause is mended a replay brings every dead order into the average, exactly once."""
    kit, orders = dead_thirds()
    report = replay(kit)
    assert report.counts == {"moved": 20}
    assert report.targets == {kit.topic: 20}
    kit.consumer().run(orders=20)
    assert kit.state().average == average_of(orders)
    originals = {letter.origin: letter for letter in kit.letters()}
    for record in replayed(kit):
        letter = originals[record.first_origin]
        assert (record.key, record.value, record.headers) == (letter.key, letter.value, letter.headers)
        assert record.partition == letter.origin[1]
        assert record.replays == 1


def test_a_second_replay_has_nothing_left_to_do() -> None:
    """The group's offsets say what was moved: the same command again moves nothing, new letters only."""
    kit, _ = dead_thirds()
    replay(kit)
    assert replay(kit).looked == 0
    kit.consumer(refuse_thirds, policy=AT_ONCE).run(orders=20)
    assert replay(kit).counts == {"moved": 20}


def test_a_preview_moves_nothing_and_says_what_would_move() -> None:
    """Looking first writes no record and moves no offset."""
    kit, _ = dead_thirds()
    job = Replay(kit.connection, kit.dead_letters)
    assert job.preview().counts == job.preview().counts == {"moved": 20}
    assert replayed(kit) == []
    assert replay(kit).counts == {"moved": 20}


def test_a_double_replay_is_noticed_and_not_written() -> None:
    """Letters that another replay brought back are known by the origin in the target, and stay."""
    kit, orders = dead_thirds()
    replay(kit)
    again = replay(kit, group="somebody.else")
    assert again.counts == {"doubled": 20}
    kit.consumer().run(orders=20)
    assert kit.state().average == average_of(orders)
    assert check_replays(kit.connection, kit.topic).doubled == 0


def test_a_double_replay_without_the_look_is_reported() -> None:
    """Who replays twice without looking finds each doubled record in the report, with its place."""
    kit, _ = dead_thirds()
    replay(kit)
    replay(kit, group="somebody.else", check=False)
    found = check_replays(kit.connection, kit.topic)
    assert (found.replayed, found.doubled, dict(found.by_count)) == (40, 20, {1: 40})
    assert found.examples[0][0][0] == kit.topic
    assert "20 WERE REPLAYED TWICE" in str(found)
    assert replay(kit, group="a.third").checks[kit.topic].doubled == 20


def test_a_dead_letter_written_twice_is_moved_once() -> None:
    """A letter that lies in the topic twice, because its writer did not hear the acknowledgement, counts once."""
    kit, _ = dead_thirds(3, 1)
    (letter,) = kit.letters()
    again = Kit(1)
    told: Headers = [(f"orderkit.dlq.{name}", value.encode()) for name, value in letter.story.items()]
    copies = [Record(letter.value, letter.key, [*letter.headers, *told])] * 2
    again.send(copies)
    report = Replay(again.connection, again.topic, to=other_topic(again)).run()
    assert report.counts == {"moved": 1, "doubled": 1}


def test_the_cap_ends_the_circle_and_parks() -> None:
    """A record that dies after every replay is replayed so often and no more; then it is parked, story and all."""
    kit, _ = dead_thirds(3, 1)
    parking = other_topic(kit, 1)
    for round_ in (1, 2):
        assert replay(kit, max_replays=2, parking=parking).counts == {"moved": 1}
        kit.consumer(refuse_thirds, policy=AT_ONCE).run(orders=1)
        assert max(letter.replays for letter in kit.letters()) == round_
    assert {letter.first_origin for letter in kit.letters()} == {(kit.topic, 0, 2)}
    assert replay(kit, max_replays=2, group="no.parking").counts == {"doubled": 2, "spent": 1}
    assert replay(kit, max_replays=2, parking=parking).counts == {"parked": 1}
    (parked,) = read_dead_letters(kit.connection, parking)
    assert (parked.replays, parked.story["reason"]) == (2, "permanent")


def test_limit_and_rate_hold() -> None:
    """No more than the limit moves, the next run goes on there; and never faster than the rate."""
    kit, _ = dead_thirds()
    group = "limited." + kit.group
    assert replay(kit, limit=0, group=group).written == 0
    assert replay(kit, limit=7, group=group).written == 7
    start = time.monotonic()
    assert replay(kit, rate=20.0, group=group).written == 13
    assert time.monotonic() - start >= 11 / 20  # the last two are not waited for
    assert len(replayed(kit)) == len({record.first_origin for record in replayed(kit)}) == 20


FILTERS: list[tuple[LetterFilter, Callable[[DeadLetterRecord, Order], bool]]] = [
    (LetterFilter(products=["Lamp", "Dock"]), lambda _, order: order["product"] in ("Lamp", "Dock")),
    (LetterFilter(keys=["3", "9"]), lambda letter, _: letter.key in (b"3", b"9")),
    (LetterFilter(where=Where("price > 40 and product != 'Dock'", ["price", "product"])),
     lambda _, order: order["price"] > 40 and order["product"] != "Dock"),
    (LetterFilter(partitions=[2]), lambda letter, _: letter.origin[1] == 2),
    (LetterFilter(reasons=["permanent"], exceptions=["Perm*"]), lambda _letter, _order: True),
    (LetterFilter(attempts=(2, 9)), lambda _letter, _order: False),
    (LetterFilter(until=1.0), lambda _letter, _order: False),
    (LetterFilter(places={(1, 0), (2, 1), (9, 9)}), lambda letter, _: letter.place in ("1:0", "2:1")),
]  # fmt: skip


@pytest.mark.parametrize(("only", "meant"), FILTERS, ids=[str(only) for only, _ in FILTERS])
def test_only_what_is_meant_moves(only: LetterFilter, meant: Callable[[DeadLetterRecord, Order], bool]) -> None:
    """Exactly the letters that fulfil the filter move; the others can be moved by another filter later."""
    kit, _ = dead_thirds()
    codec = Codec()
    wanted = {letter.origin for letter in kit.letters() if meant(letter, codec.decode(letter.value))}
    report = replay(kit, only=only)
    assert {record.first_origin for record in replayed(kit)} == wanted
    assert report.counts["filtered"] == 20 - len(wanted)
    assert replay(kit).counts["moved"] == 20 - len(wanted)


def test_a_transform_mends_poison_and_the_original_is_kept() -> None:
    """The edit hook gets what cannot be read, its order goes back, and what it was before is in a header."""
    kit, orders = Kit(), take_orders(2)
    kit.send([Record(b"\xff\xff", b"broken"), Record(Codec().encode(orders[1]), b"2")])
    kit.consumer(policy=AT_ONCE).run(orders=2)

    def mend(order: Order | None, letter: DeadLetterRecord) -> Order:
        assert order is None
        assert letter.story["reason"] == "poison"
        return orders[0]

    assert replay(kit, mender=Mender(mend)).counts == {"moved": 1}
    (record,) = replayed(kit)
    assert Codec().decode(record.value) == orders[0]
    assert record.original_value == b"\xff\xff"
    kit.consumer().run(orders=1)
    assert kit.state().average == average_of(orders)


def test_a_transform_that_raises_leaves_that_record_and_it_is_tried_again() -> None:
    """What the hook cannot mend stays, is counted and told; the same replay tries it again, and only it."""
    kit, orders = dead_thirds()

    def halting(order: Order | None, _letter: DeadLetterRecord) -> Order | None:
        assert order is not None
        if order["orderId"] in ("9", "12"):
            raise LookupError("no price list")
        return None if order["orderId"] == "15" else order

    report = replay(kit, mender=Mender(halting))
    assert report.counts == {"moved": 17, "failed": 2, "left": 1}
    assert (report.waiting, report.failed) == (3, 2)
    assert "LookupError: no price list" in report.errors[0]
    assert Replay(kit.connection, kit.dead_letters).preview().counts == {"moved": 3}
    assert replay(kit).counts == {"moved": 3}
    kit.consumer().run(orders=20)
    assert kit.state().average == average_of(orders)


@pytest.mark.parametrize("gives", [42, {"orderId": "1"}, {"orderId": "1", "product": "Lamp", "price": -1.0}])
def test_a_transform_that_gives_no_order_leaves_the_record(gives: Any) -> None:
    """What is no order, or one that makes no sense, is not written."""
    kit, _ = dead_thirds(3, 1)
    assert replay(kit, mender=Mender(lambda _order, _letter: gives)).counts == {"failed": 1}
    assert replayed(kit) == []


@pytest.mark.parametrize("name", ["nothing", "no_such_module:f", "orderkit.kafka:nothing", "orderkit.kafka:ORDERS"])
def test_a_transform_that_is_not_there_is_one_line(name: str) -> None:
    """A module, or a function, that does not exist is wrong usage, with its name."""
    with pytest.raises(UsageError, match="--transform"):
        load_transform(name)


def test_what_is_no_dead_letter_topic_is_refused() -> None:
    """Replaying a topic without known headers moves nothing and says so."""
    kit = Kit()
    kit.send_orders(take_orders(5))
    with pytest.raises(OrderkitError, match="holds no dead letters: none of the 5 records"):
        Replay(kit.connection, kit.topic, to=kit.dead_letters).run()
    assert kit.letters() == []


def test_letters_of_nobody_known_stay_among_others() -> None:
    """A record that somebody else put into the dead-letter topic stays there, counted."""
    kit = Kit()
    told: Headers = [("__connect.errors.topic", kit.dead_letters.encode()), ("__connect.errors.partition", b"0"),
                     ("__connect.errors.offset", b"5")]  # fmt: skip
    kit.send([Record(b"a", b"k", told), Record(b"b", b"k", [("x", b"y")])])
    report = Replay(kit.connection, kit.topic).run()
    assert report.counts == {"moved": 1, "unknown": 1}
    assert report.targets == {kit.dead_letters: 1}


@pytest.mark.parametrize("prefix", ["orderkit.dlq.", "__connect.errors."])
def test_a_target_with_fewer_partitions_takes_all_by_key(prefix: str) -> None:
    """Letters from partitions that their topic has no longer are moved all the same; one line tells how many."""
    kit = Kit()

    def letter(partition: int) -> Record:
        told = {"topic": kit.dead_letters, "partition": str(partition), "offset": "7", "reason": "permanent"}
        return Record(str(partition).encode(), b"k", [(prefix + name, text.encode()) for name, text in told.items()])

    kit.send([letter(partition) for partition in range(5)])
    report = Replay(kit.connection, kit.topic).run()
    assert report.counts == {"moved": 5}
    assert report.notes == [f"4 of 5 to {kit.dead_letters} by key: it has not the partitions that they came from"]
    assert report.as_dict()["by_key"] == {kit.dead_letters: 4}
    assert sorted(record.value or b"" for record in replayed(kit, kit.dead_letters)) == [b"0", b"1", b"2", b"3", b"4"]


def test_another_topic_may_have_fewer_partitions() -> None:
    """With `to` all are placed by key, whatever partitions there are, and there is nothing to tell."""
    kit, _ = dead_thirds()
    target = other_topic(kit, 1)
    report = replay(kit, to=target)
    assert (report.counts, report.notes) == ({"moved": 20}, [])
    assert {record.first_origin for record in replayed(kit, target)} == {letter.origin for letter in kit.letters()}


def test_circles_missing_targets_and_lost_origins_are_refused() -> None:
    """Source = target, a missing topic, and letters that do not say where to, are one line each; nothing moves."""
    kit, _ = dead_thirds(3, 1)
    with pytest.raises(UsageError, match="Source and target are both"):
        Replay(kit.connection, kit.dead_letters, to=kit.dead_letters)
    with pytest.raises(UsageError, match="Source and target are both"):
        Replay(kit.connection, kit.dead_letters, parking=kit.dead_letters)
    with pytest.raises(OrderkitError, match="does not exist"):
        Replay(kit.connection, kit.dead_letters, to="gone")
    with pytest.raises(OrderkitError, match="does not exist"):
        Replay(kit.connection, "gone")
    with pytest.raises(OrderkitError, match="does not exist"):
        replay(kit, parking="gone")
    nowhere = Kit()
    nowhere.send([Record(b"a", b"k", [("original_partition", b"0"), ("original_offset", b"5")])])
    with pytest.raises(OrderkitError, match="do not say which topic"):
        Replay(nowhere.connection, nowhere.topic).run()
    loop = Kit()
    loop.send([Record(b"a", b"k", [("__dlq.errors.topic", loop.topic.encode())])])
    with pytest.raises(OrderkitError, match=r"come from .* itself"):
        Replay(loop.connection, loop.topic).run()
    assert replayed(kit) == []


def test_a_refused_target_loses_nothing() -> None:
    """While the target refuses, the replay fails and its offsets stay; afterwards the same command moves all, once."""
    kit, _ = dead_thirds()
    target, broker = other_topic(kit), shared()
    broker.refuse(target)
    with pytest.raises(OrderkitError, match="could not be written"):
        replay(kit, to=target, check=False)
    broker.accept(target)
    assert replay(kit, to=target).counts == {"moved": 20}
    assert len({record.first_origin for record in replayed(kit, target)}) == len(replayed(kit, target)) == 20


def test_a_refused_request_loses_nothing() -> None:
    """Records may be refused when they are on their way already: the replay fails, and the same command moves them."""
    kit, _ = dead_thirds()
    target = other_topic(kit)
    shared().fail_next(1, "POLICY_VIOLATION")
    with pytest.raises(OrderkitError, match="could not be written"):
        replay(kit, to=target)
    replay(kit, to=target)
    assert len({record.first_origin for record in replayed(kit, target)}) == 20


def test_groups_differ_by_source_target_and_filter() -> None:
    """What a filter has passed over is not lost for another one: each has its own progress."""
    names = {
        default_group("a"), default_group("b"), default_group("a", "t"),
        default_group("a", None, LetterFilter(reasons=["poison"])), default_group("a", None, LetterFilter(keys=["k"])),
    }  # fmt: skip
    assert len(names) == 5
    assert default_group("a", "t") == default_group("a", "t", LetterFilter())


@pytest.mark.parametrize("stay", [set(), {3}, set(range(0, 400, 2)), set(range(0, 200_000, 7))])
def test_what_stays_fits_the_commit(stay: set[int]) -> None:
    """Offsets that stay are in the metadata; where they do not fit, the offset itself waits: none is passed over."""
    position = Position(200_000, set(stay))
    offset, text = position.to_commit()
    assert len(text) <= 4096
    commit: Any = type("Commit", (), {"offset": offset, "metadata": text})
    back = Position.from_commit(commit, 0)
    assert all(back.wants(one) for one in stay)
    assert back.first == min(stay, default=200_000)
    if len(stay) < 1000:
        assert back == position


CHILD = """
import sys
from orderkit.kafka import Connection
from orderkit.replay.job import Replay
there, source, target, mode = sys.argv[1:]
job = Replay(Connection(there), source, to=target, rate=400, exactly_once=mode == "exactly-once")
print("ready", flush=True)
job.run(lambda report: print(report.written, flush=True))
print("done", flush=True)
"""


@pytest.mark.parametrize(
    ("name", "mode"),
    [("embedded", "at-least-once"), *[pytest.param("apache", m, marks=pytest.mark.kafka)
                                       for m in ("at-least-once", "exactly-once")]],
)  # fmt: skip
def test_a_replay_killed_again_and_again_loses_none(name: str, mode: str, request: pytest.FixtureRequest) -> None:
    """Killed with -9 at any point and started again, it ends with every letter moved, and none twice."""
    kit, _ = dead_thirds(900, kit=Kit(4, open_broker(name, request)))
    target = other_topic(kit)
    arguments = [kit.connection.bootstrap, kit.dead_letters, target, mode]
    for kills in range(20):
        with subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            seen = 0
            for line in child.stdout:
                seen += line.strip().isdigit()
                if kills < 4 and seen > kills:  # after the first, second ... portion it has begun
                    child.send_signal(signal.SIGKILL)
                    break
            else:
                assert child.wait(30) == 0
                break
    assert kills >= 3
    records = replayed(kit, target)
    assert {record.first_origin for record in records} == {letter.origin for letter in kit.letters()}
    assert len(records) == 300


@pytest.mark.kafka
def test_a_dead_letter_topic_deleted_meanwhile_is_one_line(apache: ApacheBroker) -> None:
    """A topic that goes while it is replayed ends the replay with an error, not with a hang; what moved stays moved."""
    kit, _ = dead_thirds(900, kit=Kit(4, apache))
    target = other_topic(kit)
    job = Replay(kit.connection, kit.dead_letters, to=target, rate=100)

    def delete(report: ReplayReport) -> None:
        if report.written >= 10 and kit.dead_letters in kit.connection.metadata().topics:
            kit.connection.delete_topics([kit.dead_letters])

    with pytest.raises(OrderkitError, match=kit.dead_letters):
        job.run(delete)
    assert len(replayed(kit, target)) >= 10
    with pytest.raises(OrderkitError, match="does not exist"):
        Replay(kit.connection, kit.dead_letters, to=target)


@pytest.mark.kafka
def test_exactly_once_shows_nothing_of_a_failed_transaction(apache: ApacheBroker, monkeypatch: Any) -> None:
    """A transaction that fails before its offsets are in leaves no visible record, and the next replay moves all."""
    kit, _ = dead_thirds(kit=Kit(4, apache))
    target = other_topic(kit)
    from orderkit.replay.transacting import TransactionalSender

    def refuse(*_: object) -> Any:
        raise OrderkitError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(TransactionalSender, "_produce", refuse)
        with pytest.raises(OrderkitError, match="killed here"):
            replay(kit, to=target, exactly_once=True)
    assert replayed(kit, target) == []
    assert replay(kit, to=target, exactly_once=True).counts == {"moved": 20}
    wait_for(lambda: len(replayed(kit, target)) == 20)  # the broker notes the end in each partition in its own time


def test_exactly_once_is_refused_where_it_would_be_a_lie() -> None:
    """The embedded broker takes transactions and enforces nothing."""
    kit, _ = dead_thirds(3, 1)
    with pytest.raises(UsageError, match="real broker"):
        replay(kit, exactly_once=True)


def move_all(kit: Kit, target: str, **settings: Any) -> ReplayReport:
    """Replay with two processes."""
    return ParallelReplay(kit.connection, kit.dead_letters, 2, to=target, **settings).run()


def test_several_processes_move_all_once() -> None:
    """Shared among processes a replay moves the same letters, with one account and one progress."""
    kit, _ = dead_thirds()
    target, only = other_topic(kit), LetterFilter(where=Where("price > 40", ["price"]))
    some = move_all(kit, target, only=only, group=kit.group + ".a")
    rest = move_all(kit, target, group=kit.group + ".b")
    assert some.written + rest.written == 20
    assert rest.counts["doubled"] == some.written > 0
    assert {record.first_origin for record in replayed(kit, target)} == {letter.origin for letter in kit.letters()}
    assert move_all(kit, target, group=kit.group + ".b").looked == 0


def test_several_processes_fail_as_one_does() -> None:
    """What one process meets is told by all, in a line; what needs a single process is refused."""
    kit, _ = dead_thirds(12)
    with pytest.raises(OrderkitError, match="does not exist"):
        move_all(kit, "gone")
    with pytest.raises(OrderkitError, match="does not exist"):
        move_all(kit, other_topic(kit), parking="gone")
    with pytest.raises(UsageError, match="neither a transform nor a limit"):
        move_all(kit, other_topic(kit), limit=1)


def children(process: int) -> list[int]:
    """List the processes that a process of this machine has started."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found += map(int, task.read_text().split())
    return found


def is_gone(process: int) -> bool:
    """Say whether a process has ended; one that nobody has asked for its status has ended, too."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].startswith("Z")
    return True


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells who has started whom")
@pytest.mark.parametrize("rate", ["2", "1000000"])
def test_a_killed_replay_leaves_no_process_behind(rate: str) -> None:
    """The processes of a replay that is killed end, in the middle of their work as well as when it is done."""
    kit, _ = dead_thirds()
    target = other_topic(kit)
    words = ["dlq", "replay", "--to", target, "--dlq-topic", kit.dead_letters, "--jobs", "2", "--rate", rate, "--yes"]
    command = [sys.executable, "-m", "orderkit", *words, "--bootstrap-server", kit.connection.bootstrap]
    started: set[int] = set()  # seen so far: when the records are there, they may have ended

    def at_work() -> bool:
        started.update(children(process.pid))
        return len(started) >= 2 and bool(replayed(kit, target))

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_for(at_work)
        process.kill()
    wait_for(lambda: all(map(is_gone, started)))
