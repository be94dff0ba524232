"""A partition's progress: what a commit carries, and up to where one may be made."""

from __future__ import annotations

import re
from zlib import crc32

import pytest
from confluent_kafka import Message
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from orderkit.account.average import RunningAverage
from orderkit.consuming.checkpoints import Checkpoint
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import History, Saved, this_process
from orderkit.members.commits import fitting
from orderkit.orders.order import Order

STEADY = settings(derandomize=True, deadline=None, max_examples=120)
COUNTS = st.integers(0, 2**63)
# No sum is larger than that of as many of the largest float32.
AVERAGES = COUNTS.flatmap(
    lambda many: st.builds(RunningAverage, st.just(many), st.integers(0, many * (2**277 - 2**253)))
)
SAVED = st.builds(Saved, AVERAGES, COUNTS, COUNTS, st.integers(1, 2**31), st.floats(min_value=0, max_value=1e11))
FRESH = st.builds(Saved, AVERAGES, COUNTS, COUNTS)

NOT_WHOLE = r"without an average|another version|changed, or cut off"

ORDER: Order = {"orderId": "1", "product": "Dock", "price": 1.0}


def records(*offsets: int) -> list[Message]:
    """Make records as a fetch gives them."""
    return [Message(topic="orders", partition=0, offset=offset, value=b"x") for offset in offsets]


def take(part: Partition, *offsets: int) -> list[int]:
    """Let a partition take these records."""
    return part.take(records(*offsets), [ORDER] * len(offsets))


def finish(part: Partition, many: int = 1) -> None:
    """Average the next records of a partition."""
    part.failed.pop(part.next, None)
    part.average.count += many
    part.went_past(range(part.next, part.next + many))


def fail(part: Partition, now: float = 1.0) -> None:
    """Count a failed attempt of the next record."""
    part.failed.setdefault(part.next, History()).failed(now)


# --- what a commit carries


@STEADY
@given(st.one_of(SAVED, FRESH), COUNTS)
def test_what_a_commit_carries_comes_back(saved: Saved, offset: int) -> None:
    """The metadata's text gives the same state back, to the last bit."""
    assert Saved.from_text(saved.to_text(offset), offset) == saved


def test_the_text_by_hand() -> None:
    """The metadata is one line of JSON: whose, of which offset, the exact sum, a checksum; and what is not 0."""
    average = RunningAverage.from_sum(120, "3391.23046875")
    plain = '{"orderkit":1,"offset":125,"count":120,"total":"3391.23046875","dead":4,"skipped":1'
    assert Saved(average, dead=4, skipped=1).to_text(125) == f'{plain},"crc":"{crc32(plain.encode()):08x}"}}'
    more = plain + ',"attempts":2,"since":1700000000.25'
    assert Saved(average, 4, 1, 2, 1700000000.25).to_text(125) == f'{more},"crc":"{crc32(more.encode()):08x}"}}'


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "by hand",
        "\N{PACKAGE}",
        "null",
        '"text"',
        "{}",
        '{"count":1,"total":"1","dead":0,"skipped":0}',
        "[" * 4096,
    ],
)
def test_what_another_program_saved_is_said_to_be_foreign(text: str | None) -> None:
    """What this kit did not write is never read, whatever it looks like."""
    with pytest.raises(ValueError, match="another program"):
        Saved.from_text(text, 5)


@STEADY
@given(SAVED, st.data())
def test_metadata_that_is_not_whole_is_not_read(saved: Saved, data: st.DataObject) -> None:
    """Cut off anywhere, or with one character changed, it is refused: no wrong average is ever taken up."""
    text = saved.to_text(5)
    i = data.draw(st.integers(0, len(text) - 1))
    with pytest.raises(ValueError, match=NOT_WHOLE):
        Saved.from_text(text[:i], 5)
    with pytest.raises(ValueError, match=NOT_WHOLE):
        Saved.from_text(text[:i] + ("0" if text[i] != "0" else "1") + text[i + 1 :], 5)


@STEADY
@given(SAVED, COUNTS, COUNTS)
def test_metadata_that_was_moved_is_not_read(saved: Saved, made: int, found: int) -> None:
    """A mirror may translate a commit to another offset: what it carries belongs to the first."""
    assume(made != found)
    with pytest.raises(ValueError, match=f"the average of offset {made}, by a tool that moved it"):
        Saved.from_text(saved.to_text(made), found)


@STEADY
@given(st.text(max_size=60))
@example('{"orderkit":1,"offset":5,"crc":""}')
def test_any_text_can_be_read(text: str) -> None:
    """No text does worse than be refused."""
    with pytest.raises(ValueError, match=r"\w"):
        Saved.from_text(text, 5)


def test_what_does_not_fit_is_not_committed_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """Metadata over 4,096 bytes is refused before it is sent; the partition's state stays, others are committed."""
    large, small = Partition("orders", 0, 0), Partition("orders", 1, 0)
    holes = tuple((10 * i, 0) for i in range(1, 2000))
    ready = [(large, Checkpoint(7, Saved(holes=holes))), (small, Checkpoint(9))]
    for _ in range(2):
        assert fitting(ready) == [ready[1]]
    (told,) = caplog.messages
    assert re.fullmatch(r"orders\[0\] cannot be committed at 7: .* takes \d+ bytes of 4096; it stays at 0", told)


def test_a_partition_goes_on_where_its_commit_stands() -> None:
    """Average, counts, attempts and their beginning are taken up from the commit."""
    part = Partition("orders", 2, 70, Saved(RunningAverage(60, 5), dead=7, skipped=3, attempts=2, since=9.5))
    assert (part.next, part.committed, part.average, part.dead, part.skipped) == (70, 70, RunningAverage(60, 5), 7, 3)
    assert part.failed == {70: History(2, 9.5)}
    assert str(part) == "orders[2]"


def test_a_partition_does_not_write_into_what_it_was_given() -> None:
    """The average a partition goes on from is a copy."""
    saved = Saved(RunningAverage(1, 1))
    finish(Partition("orders", 0, 1, saved))
    assert saved.average == RunningAverage(1, 1)


# --- attempts


def test_attempts_belong_to_the_record_at_the_offset() -> None:
    """If the first record fetched is the committed one, its attempts count on; of any other record they do not."""
    saved = Saved(attempts=2, since=5.0)
    same, later = Partition("orders", 0, 10, saved), Partition("orders", 0, 10, saved)
    assert take(same, 10, 11) == [10, 11]
    assert same.attempts(10) == 2
    assert take(later, 12) == [12]
    assert later.attempts(12) == 0


def test_a_second_fetch_leaves_the_head_s_attempts_alone() -> None:
    """Records that come in behind a waiting head change nothing about it."""
    part = Partition("orders", 0, 10)
    take(part, 10, 11)
    fail(part)
    assert take(part, 12, 13) == [12, 13]
    assert part.attempts(10) == 1
    assert part.backlog.offsets == [10, 11, 12, 13]


def test_without_a_commit_the_first_record_is_the_beginning() -> None:
    """A partition without a commit starts at the first offset it gets."""
    part = Partition("orders", 0)
    take(part, 40)
    assert part.next == 40


def test_a_gap_does_not_move_what_may_be_committed() -> None:
    """A first record beyond the committed offset does not count as done what lies between."""
    part = Partition("orders", 0, 10)
    take(part, 15)
    assert part.next == 10
    part.mark()
    assert part.points.ready() is None


# --- a client that goes back


def test_what_a_client_brings_again_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """After a reset of its offset a client delivers what was taken already: only what is new is taken, told once."""
    part = Partition("orders", 0)
    assert take(part, 40, 41, 42) == [40, 41, 42]
    assert take(part, 40, 41) == []
    assert take(part, 41, 42, 43) == [43]
    assert take(part, 44, 45, 42, 43, 44, 45, 46) == [44, 45, 46]
    assert part.backlog.offsets == [40, 41, 42, 43, 44, 45, 46]
    assert part.next == 40
    assert [record.getMessage() for record in caplog.records] == [
        "orders[0]: the client has gone back from 43 to 40; what it brings again is left out"
    ]


def test_what_lies_before_the_commit_is_left_out() -> None:
    """A client that begins before the commit, because that offset was out of range, brings what is done with."""
    assert take(Partition("orders", 0, 10), 0, 1, 9, 10, 11) == [10, 11]


@pytest.mark.parametrize("size", range(1, 14))
def test_a_restart_takes_the_holes_and_what_comes_after(size: int, caplog: pytest.LogCaptureFixture) -> None:
    """However the records come in batches: of those before `high` only the holes are not done with."""
    part = Partition("orders", 0, 5, Saved(high=8, holes=((1, 2), (4, 1))))
    offsets = range(5, 18)
    taken = [one for i in range(0, len(offsets), size) for one in take(part, *offsets[i : i + size])]
    assert taken == [5, 6, 9, 13, 14, 15, 16, 17]
    assert part.holes == {5, 6, 9}
    assert caplog.records == []


def test_a_hole_that_was_deleted_is_not_waited_for() -> None:
    """A hole that the topic no longer has does not hold the commit."""
    part = Partition("orders", 0, 5, Saved(high=8, holes=((1, 2), (4, 1))))
    assert take(part, 6, 7, 10, 13) == [6, 13]
    assert part.holes == {6}


@STEADY
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9), st.booleans()), max_size=25), st.booleans())
def test_every_record_is_taken_once_wherever_the_client_goes_back_to(
    steps: list[tuple[int, int, bool]], restarted: bool
) -> None:
    """Whatever a client brings again, and whenever all is undone meanwhile: at hand is what is not done with, once."""
    saved = Saved(high=6, holes=((2, 0), (3, 1))) if restarted else Saved()
    part, start = Partition("orders", 0, 5, saved, keep=True), 5
    position = furthest = start
    for back, many, undone in steps:
        position = max(0, position - max(0, back - 6))  # half of the time it goes on where it was
        batch = range(position, position + many)
        take(part, *batch)
        position = batch.stop
        furthest = max(furthest, position)
        part = part.undone() if undone else part
    wanted = {5, 7, 8, *range(11, furthest)} if restarted else set(range(start, furthest))
    assert part.backlog.offsets == sorted(wanted & set(range(furthest)))


def test_a_history_keeps_its_first_failure() -> None:
    """The time of the first failure stays, whatever follows."""
    history = History()
    history.failed(5.0)
    history.failed(9.0)
    assert (history.attempts, history.since) == (2, 5.0)


def test_the_backlog_keeps_its_columns_together() -> None:
    """Adding and dropping keep messages, orders and offsets side by side."""
    part = Partition("orders", 0, 0)
    take(part, 0, 1, 2)
    part.backlog.drop(2)
    assert part.backlog.offsets == [2]
    assert [message.offset() for message in part.backlog.messages] == [2]
    assert len(part.backlog) == len(part.backlog.orders) == 1


# --- checkpoints


def test_nothing_new_is_marked_when_nothing_moved() -> None:
    """A mark without progress makes no checkpoint, at the start and after a checkpoint was given out."""
    part = Partition("orders", 0, 10, Saved(attempts=1, since=2.0))
    part.mark()
    assert (len(part.points), part.points.ready()) == (0, None)
    finish(part)
    part.mark()
    part.mark()
    assert len(part.points) == 1
    assert part.points.ready() is not None
    part.mark()
    assert part.points.ready() is None


def test_nothing_is_marked_before_anything_is_known() -> None:
    """A partition without a commit and without a record has nothing to commit."""
    part = Partition("orders", 0)
    part.mark()
    assert len(part.points) == 0


def test_a_failed_attempt_alone_is_worth_a_commit() -> None:
    """An attempt more at the same offset is a new checkpoint, so that attempts survive a restart."""
    part = Partition("orders", 0, 10)
    fail(part, 3.0)
    part.mark()
    ready = part.points.ready()
    assert ready is not None
    assert (ready.offset, ready.saved.attempts, ready.saved.since) == (10, 1, 3.0)


def test_a_checkpoint_is_a_snapshot() -> None:
    """What happens after a mark does not change what that mark saved."""
    part = Partition("orders", 0, 0)
    finish(part, 3)
    part.mark()
    finish(part, 2)
    part.dead += 1
    ready = part.points.ready()
    assert ready is not None
    assert (ready.offset, ready.saved) == (3, Saved(RunningAverage(3, 0), at_work=this_process()))


def test_a_letter_holds_its_own_checkpoint_and_all_after_it() -> None:
    """What came before an unacknowledged letter may be committed; what came with it or later has to wait."""
    part = Partition("orders", 0, 0)
    finish(part, 5)
    part.mark()
    letter = part.points.expect_ack()
    finish(part)
    part.mark()
    finish(part)
    part.mark()
    first = part.points.ready()
    assert first is not None
    assert first.offset == 5
    assert (part.points.ready(), len(part.points)) == (None, 2)
    letter.unacknowledged -= 1
    last = part.points.ready()
    assert last is not None
    assert (last.offset, len(part.points)) == (7, 0)


@STEADY
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("average"), st.integers(1, 5)),
            st.tuples(st.sampled_from(["letter", "skip", "fail", "mark", "ready"]), st.just(0)),
            st.tuples(st.just("acknowledge"), st.integers(0, 10)),
        ),
        max_size=60,
    )
)
def test_no_checkpoint_passes_an_unacknowledged_letter(steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order: all letters before a checkpoint are acknowledged, and its counts exact."""
    part = Partition("orders", 0, 0)
    fates: list[str] = []  # of each offset
    open_letters: list[tuple[int, Checkpoint]] = []
    given_out: list[int] = []

    def look() -> None:
        ready = part.points.ready()
        if ready is None:
            return
        before = fates[: ready.offset]
        assert all(offset >= ready.offset for offset, _ in open_letters)
        assert len(before) == ready.offset
        counts = ready.saved.average.count, ready.saved.dead, ready.saved.skipped
        assert counts == (before.count("average"), before.count("letter"), before.count("skip"))
        assert not given_out or ready.offset >= given_out[-1]
        given_out.append(ready.offset)

    for step, number in steps:
        if step == "average":
            finish(part, number)
            fates += ["average"] * number
        elif step == "letter":
            open_letters.append((part.next, part.points.expect_ack()))
            part.dead += 1
            part.failed.pop(part.next, None)
            part.went_past([part.next])
            fates.append("letter")
        elif step == "skip":
            part.skipped += 1
            part.failed.pop(part.next, None)
            part.went_past([part.next])
            fates.append("skip")
        elif step == "fail":
            fail(part)
        elif step == "mark":
            part.mark()
        elif step == "acknowledge" and open_letters:
            open_letters.pop(number % len(open_letters))[1].unacknowledged -= 1
        elif step == "ready":
            look()

    part.mark()
    look()
    for _, checkpoint in open_letters:  # once all are acknowledged, all can be committed
        checkpoint.unacknowledged -= 1
    open_letters.clear()
    look()
    assert len(part.points) == 0
    assert len(fates) == (given_out[-1] if given_out else 0)
