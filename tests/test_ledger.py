"""The ledger: tallies that see every loss and every double, columns that fit together, and their frame."""

from __future__ import annotations

import math
import random
import sys
import threading
from collections import Counter
from fractions import Fraction
from itertools import islice

import pandas as pd
import pytest
from helpers import note_failure
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orderkit.account.block import Attempt
from orderkit.account.frames import LiveFrame
from orderkit.account.tally import AVERAGED, DEAD, FATES, FINISHED, NOT_SEEN, RETRY, SKIPPED, TAKEN, UNDONE, Tally
from orderkit.ledger import Ledger
from orderkit.orders.order import Order, random_orders
from orderkit.retry import Failure, Poison

STEADY = settings(derandomize=True, deadline=None, max_examples=200)
T = "orders"


def orders(many: int, seed: int = 1) -> list[Order]:
    """Take the first random orders of a seed."""
    return list(islice(random_orders(seed), many))


def average(ledger: Ledger, offsets: list[int], partition: int = 0, at: float = 1.0) -> None:
    """Note that these records were taken and averaged, as one run."""
    ledger.took(T, partition, offsets)
    ledger.note(at, T, partition, offsets, orders(len(offsets)))


def fail(ledger: Ledger, offset: int, fate: int, *, attempt: int = 1, at: float = 1.0, wait: float = 0.0) -> None:
    """Note a failed attempt."""
    note_failure(ledger, T, 0, offset, fate, orders(1)[0], number=attempt, at=at, wait=wait)


# --- tallies


class Slow:
    """A tally as one would write it without any thought of speed."""

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.back: set[int] = set()
        self.times: Counter[int] = Counter()

    def cell(self, offset: int) -> int:
        """Give the state of one offset."""
        times = self.times[offset]
        return min(255, times + TAKEN) if times else TAKEN if offset in self.taken else NOT_SEEN


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["take", "finish"]), st.lists(st.integers(0, 12), min_size=1, max_size=6)),
        st.tuples(
            st.sampled_from(["take", "finish"]),
            st.builds(lambda low, many: list(range(low, low + many)), st.integers(0, 12), st.integers(1, 8)),
        ),
        st.tuples(st.just("forget"), st.integers(0, 14).map(lambda offset: [offset])),
        st.tuples(st.just("give back"), st.just(list[int]())),
    ),
    max_size=12,
)


@STEADY
@given(st.integers(0, 12), STEPS)
@example(5, [("take", [5, 6, 7]), ("finish", [5, 6, 7]), ("finish", [6])])
@example(3, [("take", [1, 2, 3]), ("finish", [1, 3, 3])])  # as long as a gapless run, and none
def test_the_fast_way_equals_the_slow_one(base: int, steps: list[tuple[str, list[int]]]) -> None:
    """However offsets are taken, finished and forgotten, in runs or singly, every cell is as if counted one by one."""
    fast, slow = Tally(base), Slow()
    for step, offsets in steps:
        if step == "take":
            fast.take(offsets)
            slow.taken |= set(offsets)
        elif step == "finish":
            fast.finish(offsets)
            slow.times.update(offsets)
        elif step == "give back":
            fast.give_back()
            slow.back |= slow.taken - slow.times.keys()
            slow.taken &= slow.times.keys()
        else:
            fast.forget_from(offsets[0])
            slow.back |= {offset for offset in slow.taken | slow.times.keys() if offset >= offsets[0]}
            slow.taken = {offset for offset in slow.taken if offset < offsets[0]}
            slow.times = Counter({offset: n for offset, n in slow.times.items() if offset < offsets[0]})
    cells = dict(enumerate(fast.cells, fast.base))
    assert [cells.get(offset, NOT_SEEN) for offset in range(30)] == [slow.cell(offset) for offset in range(30)]
    assert fast.doubled() == sum(times - 1 for times in slow.times.values() if times > 1)
    assert fast.count(TAKEN) == sum(slow.cell(offset) == TAKEN for offset in range(30))
    open_still = {offset for offset in slow.back if offset % 3}  # the others were done with elsewhere
    assert fast.taken(lambda offset: offset % 3 > 0) == sorted(open_still | slow.taken | slow.times.keys())


def test_a_double_and_a_gap_are_visible() -> None:
    """An offset finished twice counts once as doubled; one that was never finished stays taken."""
    tally = Tally(100)
    tally.take(range(100, 110))
    tally.finish(range(100, 104))
    tally.finish([103, 105])
    assert tally.doubled() == 1
    assert tally.count(TAKEN) == 5
    assert tally.count(FINISHED) == 4


def test_a_tally_grows_to_both_sides() -> None:
    """Offsets below the first one seen are kept too."""
    tally = Tally(10)
    tally.take([10])
    tally.finish([7])
    assert (tally.base, list(tally.cells)) == (7, [FINISHED, NOT_SEEN, NOT_SEEN, TAKEN])


def test_a_cell_never_overflows() -> None:
    """An offset finished a thousand times is a double, not a crash."""
    tally = Tally(0)
    for _ in range(1000):
        tally.finish([0])
    assert tally.cells[0] == 255
    assert tally.doubled() == 253


def test_a_million_records_take_a_million_bytes() -> None:
    """A tally needs one byte an offset."""
    tally = Tally(0)
    for start in range(0, 1_000_000, 1000):
        tally.take(range(start, start + 1000))
        tally.finish(range(start, start + 1000))
    assert len(tally.cells) == tally.count(FINISHED) == 1_000_000


# --- events


def test_counts_and_columns_agree() -> None:
    """Each event adds one row to every column and one to its fate's count."""
    ledger = Ledger()
    average(ledger, [0, 1, 2])
    fail(ledger, 3, RETRY, wait=0.5)
    fail(ledger, 3, DEAD, attempt=2)
    fail(ledger, 4, SKIPPED)
    assert ledger.counts == [3, 1, 1, 1, 0]
    assert list(ledger.fate) == [AVERAGED, AVERAGED, AVERAGED, RETRY, DEAD, SKIPPED]
    assert {len(column) for column in ledger._columns} == {6}
    assert (ledger.finished, ledger.retries, dict(ledger.reasons)) == (5, 1, {"transient": 1})


def test_a_retry_is_no_fate() -> None:
    """A failed attempt with another to come leaves its record in flight."""
    ledger = Ledger()
    ledger.took(T, 0, [0])
    fail(ledger, 0, RETRY)
    assert ledger.tallies[T, 0].count(TAKEN) == 1
    assert ledger.finished == 0


def test_partitions_and_topics_are_kept_apart() -> None:
    """The same offset of two partitions is two records."""
    ledger = Ledger()
    average(ledger, [5], partition=0)
    average(ledger, [5], partition=1)
    ledger.took("other", 0, [5])
    assert set(ledger.tallies) == {(T, 0), (T, 1), ("other", 0)}
    assert all(tally.doubled() == 0 for tally in ledger.tallies.values())


@STEADY
@given(st.integers(0, 20), st.lists(st.integers(1, 15), max_size=20))
def test_keep_bounds_memory_and_no_count(keep: int, runs: list[int]) -> None:
    """Only the latest events stay, at least `keep` and at most twice that; counts and tallies cover all."""
    ledger, offset = Ledger(keep), 0
    for many in runs:
        average(ledger, list(range(offset, offset + many)))
        offset += many
        assert min(keep, offset) <= len(ledger) <= 2 * keep
        assert {len(column) for column in ledger._columns} == {len(ledger)}
        assert list(ledger.offset) == list(range(offset - len(ledger), offset))
    assert ledger.counts[AVERAGED] == ledger.finished == offset
    assert sum(tally.count(FINISHED) for tally in ledger.tallies.values()) == offset
    assert (ledger.dropped, ledger.complete) == (offset - len(ledger), offset == len(ledger))


# --- forgetting what was not committed


def test_forgetting_voids_final_fates_from_an_offset_on() -> None:
    """Fates from the offset on are void and will be decided anew; those before it, and other partitions', stand."""
    ledger = Ledger()
    average(ledger, [0, 1, 2])
    average(ledger, [2, 3], partition=1)
    fail(ledger, 3, RETRY)
    fail(ledger, 3, DEAD, attempt=2)
    fail(ledger, 4, SKIPPED)
    ledger.forget_from(T, 0, 2)
    assert ledger.counts[AVERAGED] == 4
    assert ledger.counts[DEAD] == ledger.counts[SKIPPED] == ledger.reasons["transient"] == 0
    assert ledger.tallies[T, 0].count(FINISHED) == 2
    assert ledger.tallies[T, 1].count(FINISHED) == 2


def test_a_second_delivery_after_forgetting_is_no_double() -> None:
    """Records that were forgotten and come again are counted once."""
    ledger = Ledger()
    average(ledger, [0, 1, 2, 3])
    ledger.forget_from(T, 0, 1)
    average(ledger, [1, 2, 3])
    assert ledger.counts[AVERAGED] == 4
    assert ledger.tallies[T, 0].doubled() == 0


def test_forgetting_what_was_never_seen_changes_nothing() -> None:
    """Unknown partitions and offsets beyond the last are nothing to forget."""
    ledger = Ledger()
    average(ledger, [0, 1])
    ledger.forget_from(T, 7, 0)
    ledger.forget_from(T, 0, 2)
    assert (ledger.finished, ledger.tallies[T, 0].count(FINISHED)) == (2, 2)


def test_forgetting_reaches_events_that_were_dropped() -> None:
    """Counts cover all events, so those that are no longer remembered can be voided too."""
    ledger = Ledger(keep=2)
    for offset in range(10):
        average(ledger, [offset])
    ledger.forget_from(T, 0, 3)
    assert ledger.counts[AVERAGED] == ledger.tallies[T, 0].count(FINISHED) == 3


# --- frames

COLUMNS = {
    "seq": "int64",
    "at": "float64",
    "topic": "category",
    "partition": "int64",
    "offset": "int64",
    "order_id": "object",
    "price": "float64",
    "attempt": "int64",
    "fate": "category",
    "wait": "float64",
    "reason": "object",
    "error": "object",
    "running_average": "float64",
}


def some_events() -> Ledger:
    """Fill a ledger with every kind of event."""
    ledger, chance = Ledger(), random.Random(3)
    for offset, order in enumerate(orders(400, seed=9)):
        fate = chance.choice([AVERAGED, AVERAGED, AVERAGED, RETRY, DEAD, SKIPPED])
        ledger.took(T, offset % 3, [offset])
        told = [Attempt(0, float(offset), 2, fate, 0.5, "r", "e")] if fate != AVERAGED or offset % 2 else []
        known = order if fate == AVERAGED or chance.random() < 0.5 else Poison("no order")
        ledger.note(float(offset), T, offset % 3, [offset], [known], told, int(fate != RETRY))
    return ledger


@pytest.mark.parametrize("ledger", [Ledger(), some_events()], ids=["empty", "full"])
def test_a_frame_has_its_columns_and_types(ledger: Ledger) -> None:
    """Names, order and types of the columns are as written down, with and without events."""
    frame = ledger.frame()
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == COLUMNS
    assert list(frame.columns) == list(COLUMNS)
    assert tuple(frame["fate"].cat.categories) == FATES
    assert len(frame) == len(ledger)


def test_a_frame_says_what_the_ledger_says() -> None:
    """Every row is its event; what is not known is None, or NaN for a price."""
    ledger = some_events()
    frame = ledger.frame()
    assert frame["seq"].tolist() == list(range(len(ledger)))
    assert frame["at"].tolist() == list(ledger.at)
    assert frame["topic"].tolist() == ledger.topic
    assert frame["offset"].tolist() == list(ledger.offset)
    assert frame["partition"].tolist() == list(ledger.partition)
    assert frame["attempt"].tolist() == list(ledger.attempt)
    assert frame["wait"].tolist() == list(ledger.wait)
    assert frame["order_id"].tolist() == ledger.order_id
    assert frame["reason"].tolist() == ledger.reason
    assert frame["error"].tolist() == ledger.error
    assert [FATES.index(fate) for fate in frame["fate"]] == list(ledger.fate)
    known = [None if math.isnan(price) else price for price in ledger.price]
    assert [None if pd.isna(price) else price for price in frame["price"]] == known
    assert frame["order_id"].isna().tolist() == frame["price"].isna().tolist()


def test_the_running_average_is_that_of_the_orders_averaged_so_far() -> None:
    """Each row shows the average of all averaged orders up to it; NaN before the first."""
    ledger = Ledger()
    fail(ledger, 0, DEAD)
    for offset, order in enumerate(orders(200), start=1):
        ledger.note(1.0, T, 0, [offset], [order])
        if offset % 5 == 0:
            fail(ledger, offset, RETRY)
    shown = ledger.frame()["running_average"].tolist()
    total, count = Fraction(0), 0
    assert math.isnan(shown[0])
    for row in range(1, len(shown)):
        if ledger.fate[row] == AVERAGED:
            total, count = total + Fraction(ledger.price[row]), count + 1
        assert shown[row] == pytest.approx(float(total / count), rel=1e-12)


def test_a_frame_of_a_trimmed_ledger_counts_on() -> None:
    """`seq` goes on counting over events that are no longer there."""
    ledger = Ledger(keep=3)
    for offset in range(10):
        average(ledger, [offset])
    frame = ledger.frame()
    assert frame["seq"].tolist() == frame["offset"].tolist()
    assert frame["seq"].iloc[-1] == 9


def test_the_running_average_covers_what_was_dropped() -> None:
    """The running average is of all orders averaged so far, remembered or not."""
    whole, short = Ledger(), Ledger(keep=5)
    for ledger in (whole, short):
        for offset, order in enumerate(orders(40)):
            ledger.note(1.0, T, 0, [offset], [order])
    wanted = whole.frame()["running_average"].tolist()
    shown = short.frame()["running_average"].tolist()
    assert shown == pytest.approx(wanted[-len(shown) :])


@pytest.mark.parametrize("keep", [None, 50])
def test_a_frame_can_be_taken_while_the_worker_writes(keep: int | None) -> None:
    """A frame is made of whole rows, however many events come in, or go, while it is made."""
    ledger, done = Ledger(keep), threading.Event()
    source = orders(10_000)

    def work() -> None:
        for offset, order in enumerate(source):
            if done.is_set():
                return
            ledger.note(float(offset), T, 0, [offset], [{**order, "orderId": str(offset)}])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(30):
            frame = ledger.frame()
            assert frame["at"].tolist() == frame["offset"].tolist() == frame["seq"].tolist()
            assert frame["order_id"].tolist() == [str(offset) for offset in frame["offset"]]
    finally:
        done.set()
        worker.join()
        sys.setswitchinterval(before)


def test_a_frame_that_grows_is_the_frame_made_at_once() -> None:
    """Converted bit by bit it has the same values, through events that are dropped and fates that are voided."""
    ledger = Ledger(keep=40)
    live = LiveFrame(ledger)
    for start in range(0, 200, 10):
        some: list[Order | Failure] = list(orders(10, start))
        some[3] = Poison("bad")
        tries = [Attempt(3, 1.0, 1, DEAD, 0.0, "poison", "bad"), Attempt(5, 1.0, 1, RETRY, 0.1, "transient", "late")]
        ledger.note(1.0, f"topic-{start % 3}", start % 2, range(start, start + 10), some, tries)
        if start % 70 == 0:
            ledger.forget_from(f"topic-{start % 3}", start % 2, start + 5)
        grown, at_once = live.update(), ledger.frame()
        grown["topic"], at_once["topic"] = grown["topic"].astype(str), at_once["topic"].astype(str)
        assert grown.equals(at_once)
    assert ledger.dropped > 0
    assert ledger.counts[UNDONE] > 0
