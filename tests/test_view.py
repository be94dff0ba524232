"""The live view: what a terminal shows while orders flow, and how it ends."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from collections.abc import Mapping

import pytest
from helpers import read_to_end, take_orders
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orderkit import EmbeddedBroker, Faults, Ledger, OrderProducer, RetryingConsumer, Run
from orderkit.account.average import RunningAverage
from orderkit.account.report import Report
from orderkit.account.tally import DEAD, RETRY
from orderkit.cli.demo import pace
from orderkit.consuming.partition import Partition
from orderkit.consuming.saved import Saved
from orderkit.show.closing import account_lines
from orderkit.show.course import MOST, Course, Holdings, Point
from orderkit.show.plot import BLOCKS, columns, lane, plot
from orderkit.show.view import View, consumer_view

needs_terminals = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are not to be had on Windows")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.parametrize("many", [1, 2, 60])
def test_a_plot_keeps_its_size_and_its_ends(many: int) -> None:
    """However many values there are, the plot has its height, a column for each, and rises from floor to top."""
    rows = plot([float(value) for value in range(many)], height=6)
    assert len(rows) == 6
    assert {len(row) for row in rows} == {many}
    assert set("".join(rows)) <= set(BLOCKS)
    assert rows[-1][0] != " "
    if many > 1:
        assert rows[0][-1] == BLOCKS[-1]
        assert rows[0][0] == " "


def test_a_plot_of_nothing_is_empty() -> None:
    """Before the first order there is nothing to draw."""
    assert plot([], height=2) == ["", ""]


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(1, 100), st.booleans(), st.booleans())), st.integers(1, 90))
def test_columns_span_the_whole_width_and_lose_no_mark(steps: list[tuple[int, float, bool, bool]], width: int) -> None:
    """The last order is in the last column, the last average is shown there, and every failure has a mark."""
    points, orders = [], 0
    for more, mean, retried, died in steps:
        orders += more
        points.append(Point(orders, mean, retried, died))
    shown = columns(points, width)
    assert len(shown.means) <= width
    assert len(shown.means) == width or not orders
    assert not points or shown.means[-1] == points[-1].mean
    assert bool(shown.retried) == any(point.retried for point in points)
    assert bool(shown.died) == any(point.died for point in points)
    assert all(0 <= column < width for column in shown.retried | shown.died)
    assert lane({0}, width, "|") == "|" + " " * (width - 1)


@pytest.mark.parametrize("frames", [[1], [3, 1, 1], [3 * MOST], [MOST, 1, MOST], [5, 3 * MOST, 7], [99] * 60], ids=str)
def test_a_course_ends_at_the_true_average_whatever_its_length(frames: list[int]) -> None:
    """However many events come between two frames, the last point is the running average, and points are bounded."""
    ledger, truth = Ledger(keep=2 * MOST), RunningAverage(3, 3 << 149)  # three orders of 1.0 were averaged before
    inherited, course = RunningAverage(3, 3 << 149), Course(ledger)
    first = 0
    for many in frames:
        orders = take_orders(many)
        ledger.note(0.0, "orders", 0, list(range(first, first + many)), orders)
        truth.add_all([order["price"] for order in orders])
        first += many
        course.follow(inherited)
        assert len(course.points) <= MOST
        assert course.points[-1].orders == first
        assert course.points[-1].mean == pytest.approx(truth.mean)


def test_a_course_marks_failures_where_they_were() -> None:
    """A retry and a death are marked at the orders that were done with then."""
    ledger = Ledger()
    attempts = [(1, 0.0, 1, RETRY, 0.0, "transient", "no"), (1, 0.0, 2, DEAD, 0.0, "transient", "no")]
    ledger.note(0.0, "orders", 0, [0, 1, 2], take_orders(3), attempts)
    course = Course(ledger)
    course.follow(RunningAverage())
    assert [(point.orders, point.retried, point.died) for point in course.points] == [
        (1, False, False),
        (1, True, False),
        (2, False, True),
        (3, False, False),
    ]


def test_a_partition_that_was_given_back_stays_in_the_average() -> None:
    """What a consumer has seen of a partition counts on; when the partition comes back, nothing counts twice."""
    holdings, one = Holdings(), RunningAverage(1, 1 << 149)
    first, other = Partition("orders", 0), Partition("orders", 1, 5, Saved(average=RunningAverage(5, 5 << 149)))
    holdings.look([first, other])
    first.average.add(3.0)
    other.average.add(2.0)
    assert (holdings.average.count, holdings.inherited.count) == (7, 5)
    holdings.look([])
    assert holdings.average.count == 7
    again = Partition("orders", 0, 2, Saved(average=first.average.merge(one)))  # somebody else has averaged one more
    holdings.look([again])
    assert (holdings.average.count, holdings.inherited) == (8, RunningAverage(6, 6 << 149))


def test_a_frame_tells_the_fates_as_they_are() -> None:
    """The numbers in a frame are the ledger's and the producer's."""
    with EmbeddedBroker({}) as broker:
        run = Run(broker, orders=60, faults=Faults(7, transient_rate=0.4, poison_rate=0.1))
        view = View(run.consumer, run.produced, run.orders)
        assert "waiting for the first order" in drawn(view)
        run.start().wait(30)
        text = drawn(view)
    averaged, retries, dead, *_ = run.ledger.counts
    assert dead > 0
    for told in ("produced 60", f"averaged {averaged}", f"retries {retries}", f"dead {dead}", "waiting: nothing"):
        assert told in text
    assert run.name not in text


def test_a_group_that_goes_on_is_told_from_what_was_done_here() -> None:
    """A consumer that goes on with a group's average says how many orders it took itself, and how many are in it."""
    with EmbeddedBroker() as broker:
        OrderProducer(broker.connection).run(take_orders(60))
        RetryingConsumer(broker.connection).run(orders=60)
        OrderProducer(broker.connection).run(take_orders(40))
        consumer = RetryingConsumer(broker.connection)
        view = View(consumer)
        consumer.run(orders=40, until=lambda: bool(drawn(view)) and False)
        text = drawn(view)
        assert "averaged 40" in text
        assert f"running average {consumer.state().average.rounded()} over 100 orders" in text
        assert consumer_view(consumer, None, quiet=False) is None  # in a pipe there is none


def test_the_account_says_what_it_counts() -> None:
    """*Taken* where nothing was produced; the fates that occur; red, and no tick, when something is lost."""
    report = Report(9, 6, 1, 0, 2, 0, 0, 4, "1.5000", 7, "kafka", count=106, counted="taken")
    lines = account_lines(report)
    assert [line.plain for line in lines] == [
        "✔ every order is accounted for: 9 taken = 6 averaged + 1 dead + 2 in flight",
        "  4 retries; lost 0, duplicated 0",
        "  average 1.5000 over 106 orders",
    ]
    assert "green" in str(lines[0].spans[0].style)
    broken = account_lines(Report(9, 6, 1, 0, 1, 1, 0, 4, "1.5000", 7, "kafka"), ascii_only=True)
    assert broken[0].plain.startswith("NO THE LAW IS BROKEN: 9 produced")
    assert broken[0].plain.isascii()
    assert all("red" in str(line.spans[0].style) for line in broken[:2])


def drawn(view: View) -> str:
    """Draw one frame as text."""
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115  closed with the console
    with console.file:
        console.print(view.render())
        return console.export_text()


def on_a_terminal(arguments: list[str], kafka: str | None = None, columns: int = 100, **env: str) -> str:
    """Run `orderkit` on a pseudo-terminal and give all it wrote, without colours."""
    import fcntl
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    left_out = {"KAFKA_BOOTSTRAP_SERVERS", "COLUMNS", "LINES", "CI"}
    kept: Mapping[str, str] = {name: value for name, value in os.environ.items() if name not in left_out}
    there = {"KAFKA_BOOTSTRAP_SERVERS": kafka} if kafka else {}
    with subprocess.Popen(
        [sys.executable, "-m", "orderkit", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**kept, "TERM": "xterm", **there, **env},
    ) as process:
        os.close(theirs)
        text = read_to_end(ours)
        process.wait(60)
    os.close(ours)
    return ESCAPES.sub("", text.decode(errors="replace"))


FRAME = re.compile(r"╭.*?╯", re.DOTALL)


def numbers(frame: str) -> dict[str, str]:
    """Read the numbers in a frame, by their names."""
    found = dict(re.findall(r"(produced|taken|averaged|retries|dead) (\d+)", frame))
    if average := re.search(r"running average ([\d.]+) over (\d+) orders", frame):
        found |= {"average": average[1], "count": average[2]}
    return found


@needs_terminals
@pytest.mark.parametrize("more", [["--rate", "100"], ["--rate", "0"], ["--rate", "200", "--failure-rate", "0.6"]])
def test_no_frame_contradicts_itself_and_the_last_one_is_the_account(more: list[str]) -> None:
    """In every frame the average is over the orders averaged; the last frame has the account's numbers."""
    text = on_a_terminal(["demo", "--orders", "100", *more])
    frames = [numbers(frame) for frame in FRAME.findall(text)]
    assert all(frame.get("count", "0") == frame["averaged"] for frame in frames)
    account = text.rpartition("╯")[2]
    orders = re.search(r"every order is accounted for: (\d+) produced = (\d+) averaged \+ (\d+) dead", account)
    average = re.search(r"average ([\d.]+) over (\d+) orders", account)
    retries = re.search(r"(\d+) retries", account)
    assert orders
    assert average
    assert retries
    assert frames[-1] == {
        "produced": orders[1], "averaged": orders[2], "dead": orders[3],
        "average": average[1], "count": average[2], "retries": retries[1],
    }  # fmt: skip
    assert "orderkit notebook" in account


@needs_terminals
def test_a_consumer_that_stops_at_an_order_shows_what_it_did() -> None:
    """An end by an error has its account all the same: the frame's numbers are those below it, and then the error."""
    with EmbeddedBroker({"orders": 1, "orders-dlq": 1}) as broker:
        OrderProducer(broker.connection).run(take_orders(60))
        spent = ["--when-spent", "stop", "--failure-rate", "0.5", "--seed", "3", "--backoff-base", "0"]
        text = on_a_terminal(["consume", *spent], broker.bootstrap)
    last = numbers(FRAME.findall(text)[-1])
    assert last["taken"] == "60"
    assert 0 < int(last["averaged"]) == int(last["count"])
    assert f"60 taken = {last['averaged']} averaged + 0 dead + {60 - int(last['averaged'])} in flight" in text
    assert f"average {last['average']} over {last['count']} orders" in text.rpartition("╯")[2]
    assert text.rstrip().endswith("The offset is kept: start again for one more.")


@needs_terminals
def test_produce_shows_its_count() -> None:
    """On a terminal `produce` counts what the broker has acknowledged."""
    with EmbeddedBroker() as broker:
        text = on_a_terminal(["produce", "--rate", "100", "--orders", "30"], broker.bootstrap)
    assert "orders acknowledged; Ctrl-C ends it" in text
    assert "30 produced, 30 acknowledged, 0 failed" in text


@needs_terminals
def test_the_demo_names_the_broker_it_uses_and_what_comes_next() -> None:
    """With an exported address the demo says that it goes there, and why; its dead letters can be listed after it."""
    with EmbeddedBroker({}) as broker:
        text = on_a_terminal(["demo", "--orders", "60", "--rate", "0", "--permanent-rate", "0.2"], broker.bootstrap)
        assert f"Using the broker at {broker.bootstrap}, because KAFKA_BOOTSTRAP_SERVERS names it" in text
        command = text.rpartition("Next: orderkit ")[2].split()
        assert "permanent" in on_a_terminal(command, broker.bootstrap)


@pytest.mark.parametrize(
    ("terminal", "env", "options", "rate"),
    [
        (True, {}, {}, 62.5),
        (True, {}, {"orders": 5000}, 625.0),
        (True, {"CI": "true"}, {}, 500.0),
        (True, {}, {"as_json": True}, 500.0),
        (False, {}, {}, 500.0),
        (True, {}, {"rate": 0.0}, 0.0),
    ],
)
def test_the_demo_lasts_eight_seconds_where_somebody_watches(
    terminal: bool, env: dict[str, str], options: dict[str, float], rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal all orders take 8 s; in a pipe, in CI and as JSON the run is quick; --rate has the last word."""
    monkeypatch.delenv("CI", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert pace({"orders": 500, "rate": None, "as_json": False, **options}) == rate
