"""Clocks that are set, and times that no calendar has: nobody waits for them, and nothing breaks on them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from helpers import Kit, soon, take_orders
from hypothesis import given
from hypothesis import strategies as st

from orderkit.consuming.saved import History
from orderkit.dead_letters import DeadLetterRecord, LetterFilter
from orderkit.dead_letters.filters import parse_attempts, parse_place, parse_time
from orderkit.dead_letters.frame import dead_letter_frame
from orderkit.dead_letters.stats import Stats
from orderkit.dead_letters.times import LAST, moment, when, whole
from orderkit.engines.topics import PREFIX, Retried
from orderkit.errors import UsageError
from orderkit.orders.order import Order
from orderkit.retry import RetryPolicy, Transient
from orderkit.retry.backoff import Backoff

HOUR = 3600.0
ODD_TIMES = [-1, 0, 1, 1_767_182_400, 1_767_182_400_000_000, 1_767_182_400_000_000_000, LAST, LAST + 1, 2**63 - 1]


class WallClock:
    """A wall clock that can be set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real, self.ahead = time.time, 0.0
        monkeypatch.setattr(time, "time", lambda: self._real() + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    return WallClock(monkeypatch)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
@pytest.mark.parametrize("engine", ["pause", "in-place", "topics", "key-parking"])
def test_a_clock_that_is_set_changes_no_back_off(engine: str, jump: float, clock: WallClock) -> None:
    """With the wall clock an hour off in mid back-off, an order has its attempts in time, and none ends its limit."""
    kit, base, seen = Kit(), 0.3, list[float]()

    def handle(_order: Order, attempt: int) -> None:
        seen.append(time.monotonic())
        if attempt < 3:
            if engine == "in-place":  # nothing else gets a turn while it sleeps
                clock.ahead += jump
            raise Transient("not yet")

    def watch() -> bool:
        if engine != "in-place" and consumer.ledger.retries:
            clock.ahead = jump
        return late()

    kit.send_orders(take_orders(1))
    policy = RetryPolicy(3, Backoff("fixed", base=base), max_elapsed=60.0)
    consumer, late = kit.consumer(handle, engine=engine, policy=policy), soon(lambda: False, 20)
    consumer.run(orders=1, until=watch)
    assert consumer.ledger.counts[0] == 1  # averaged, not given up
    assert all(after - before >= base for before, after in pairwise(seen))


@pytest.mark.parametrize("ahead", [HOUR, -HOUR])
def test_elapsed_time_is_not_the_wall_clocks(ahead: float, clock: WallClock) -> None:
    """Between two failures in one process, a limit counts the seconds that went by."""
    history = History()
    history.failed(time.time())
    clock.ahead = ahead
    history.failed(time.time())
    assert 0 <= history.elapsed < 10


def test_what_another_process_wrote_is_elapsed_too(clock: WallClock) -> None:
    """A first failure that was written down counts by the wall clock, and is never in the future."""
    history = History(1, clock._real() - 50)
    history.failed(time.time())
    assert 50 <= history.elapsed < 60
    history = History(1, clock._real() + HOUR)
    history.failed(time.time())
    assert 0 <= history.elapsed < 10


class Written:
    """A record of a retry topic, of which the headers matter."""

    def __init__(self, **told: object) -> None:
        self._headers = [(PREFIX + name, str(value).encode()) for name, value in told.items()]

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


WORDS = st.one_of(st.floats(), st.integers(), st.text(st.characters(codec="utf-8")))


@given(due=WORDS, since=WORDS, wait=WORDS, attempts=WORDS)
def test_no_header_makes_a_record_wait_longer_than_its_back_off(
    due: object, since: object, wait: object, attempts: object
) -> None:
    """Whatever stands in a retry record's headers, it is due within the longest back-off, and no number is negative."""
    record = Retried(Written(due=due, since=since, wait=wait, attempts=attempts))  # type: ignore[arg-type]
    history = record.history(5.0)
    assert history.due <= time.monotonic() + 5.0
    assert 0 <= history.wait <= 5.0
    assert history.attempts >= 0
    history.failed(time.time())
    assert history.elapsed >= 0
    assert int(history.since * 1000) >= 0  # as the dead letter tells it


@given(st.integers(-(2**70), 2**70))
def test_every_number_can_be_written_as_a_time(milliseconds: int) -> None:
    """A time in any unit is shown: as a date where a calendar has it, else as its number; Kafka's -1 is no time."""
    text = when(milliseconds)
    if milliseconds == -1:
        assert text is None
    elif text and text.endswith(" ms"):
        assert text == f"{milliseconds} ms"
    else:
        assert datetime.fromisoformat(str(text)).tzinfo == UTC


@given(st.one_of(st.none(), st.text(), st.integers().map(str), st.integers(10**17).map(str)))
def test_whole_numbers_fit_into_64_bits(text: str | None) -> None:
    """A header that should be a number is one that 64 bits hold, or none."""
    number = whole(text)
    assert number is None or -(2**63) <= number < 2**63
    assert moment(number) is None or 0 <= (moment(number) or 0) <= LAST


def letter(timestamp: int, **story: str) -> DeadLetterRecord:
    return DeadLetterRecord("dlq", 0, 0, timestamp, None, b"x", [], story)


@pytest.mark.parametrize("timestamp", ODD_TIMES)
def test_odd_times_in_filter_frame_and_statistics(timestamp: int) -> None:
    """Filter, frame and statistics take any time; a record without one is in no span of time."""
    odd = letter(timestamp, **{"first-failure": str(timestamp), "last-failure": "9" * 5000, "attempts": "9" * 5000})
    frame = dead_letter_frame([odd, letter(1_700_000_000_000)])
    assert frame["written"].isna()[0] == (not 0 <= timestamp <= LAST)
    assert frame["written"][1] == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert frame["last_failure"].isna()[0]
    assert frame["attempts"].isna()[0]
    assert frame.to_csv()
    stats = Stats("dlq")
    stats.span([timestamp])
    assert stats.oldest == stats.newest == (None if timestamp == -1 else timestamp)
    in_span = [LetterFilter(since=0.0).matches(odd), LetterFilter(until=1e30).matches(odd)]
    assert in_span == [timestamp != -1] * 2
    assert LetterFilter().matches(odd)


def test_settings_of_a_filter_may_have_space_round_them() -> None:
    """White space round a time, a range or a place is nobody's error."""
    assert parse_time("since", " 2023-11-14\n") == parse_time("since", "2023-11-14")
    assert parse_attempts(" 2-5\r\n") == (2.0, 5.0)
    assert parse_place("\t1:2 ") == (1, 2)


@pytest.mark.parametrize("place", ["9" * 5000 + ":0", "0:" + "9" * 40, "-1:0", "1:-2", "²:1", "1", ":", ""])
def test_a_place_that_cannot_be_is_wrong_usage(place: str) -> None:
    """A place is two numbers that Kafka could have."""
    with pytest.raises(UsageError, match="PARTITION:OFFSET"):
        parse_place(place)
