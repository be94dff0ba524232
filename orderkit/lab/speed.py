"""Where the time goes: what a client does while it looks idle, and what one call costs beside many."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from confluent_kafka import Consumer, TopicPartition

from orderkit.lab.bench import Bench
from orderkit.lab.picture import Picture
from orderkit.lab.plots import LINES, legend, panel, theory
from orderkit.show.chart import COLOURS

PAUSE = 0.5  # of a back-off: a gap of so much between two batches is one, and no hiccup
WORK = 1.0  # seconds that reading may take beside its pauses
FACTOR = 3.0  # a prediction from two short measurements is that good, up or down
Stairs = list[tuple[float, int]]  # seconds since the first record, and records so far


def reading(shop: Bench, **settings: object) -> Stairs:
    """Read all orders of a bench with a plain client, as fast as it gives them, and note when they came.

    Args:
        shop: where they are.
        settings: librdkafka properties with `_` for `.`.
    """
    client = shop.plain(f"speed.{uuid.uuid4().hex[:8]}", **settings)
    stairs: Stairs = []
    start, many = 0.0, 0
    try:
        while many < len(shop.orders):
            if some := client.consume(1000, 0.05):
                start = start or time.perf_counter()
                many += len(some)
                stairs.append((time.perf_counter() - start, many))
    finally:
        client.close()
    return stairs


def pauses(stairs: Stairs, backoff: float) -> int:
    """Count the gaps between two batches that are as long as a back-off."""
    times = [at for at, _ in stairs]
    return sum(after - before > PAUSE * backoff for before, after in pairwise(times))


def stairs_picture(runs: Mapping[str, Stairs]) -> Picture:
    """Draw how many records had come, over time."""
    figure, axes = panel("seconds since the first record", "records", "The same records, read twice")
    for (name, stairs), hue in zip(runs.items(), (COLOURS["dead"], COLOURS["averaged"]), strict=False):
        x, y = zip(*stairs, strict=True)
        axes.step(x, y, where="post", color=hue, label=name, linewidth=2)
    legend(axes, "lower right")
    return Picture(figure)


def idle_band(many: int, backoff: float) -> tuple[float, float]:
    """Give the least and the most seconds of a run, when another one had so many pauses.

    Just when the queue is full is chance: a third of the pauses, and one, may be more or fewer.

    Args:
        many: the pauses of the other run.
        backoff: seconds of each pause in this one.
    """
    chance = many / 3 + 1
    return max(0.0, many - chance) * backoff, (many + chance) * backoff + WORK


def idle_picture(runs: Mapping[float, Stairs]) -> Picture:
    """Draw how long reading takes over the back-off, against theory: the pauses of the slowest run, and nothing else.

    Args:
        runs: seconds of back-off, and what `reading` gave.
    """
    longest = max(runs)
    many = pauses(runs[longest], longest)
    figure, axes = panel("back-off, seconds", "seconds for all records", "Reading is waiting")
    x = [0.0, longest]
    low, high = zip(*(idle_band(many, b) for b in x), strict=True)
    theory(axes, x, [many * b for b in x], (low, high), "pauses x back-off")
    axes.plot(list(runs), [stairs[-1][0] for stairs in runs.values()], "o", color=COLOURS["averaged"], label="measured")
    legend(axes, "upper left")
    return Picture(figure)


def best_of(work: Callable[[], object], times: int = 3) -> float:
    """Give the seconds of the quickest of some tries: the one that was least disturbed."""
    return min(_seconds(work) for _ in range(times))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def committing(shop: Bench, every: int, times: int = 5) -> tuple[int, float]:
    """Read all orders of a bench and commit after every so many.

    Args:
        shop: where they are.
        every: orders to a commit.
        times: tries; the quickest counts, as in `best_of`.

    Returns:
        The number of commits, and the seconds.
    """
    client = shop.plain(f"commits.{uuid.uuid4().hex[:8]}", fetch_queue_backoff_ms=10)
    tries = []
    try:
        for number in range(times):
            if number:
                client.seek(TopicPartition(shop.topic, 0, 0))
            tries.append(_committing(client, every, len(shop.orders)))
    finally:
        client.close()
    return min(tries, key=lambda one: one[1])


def _committing(client: Consumer, every: int, left: int) -> tuple[int, float]:
    commits, batch = 0, client.consume(min(every, left), 10)
    start = time.perf_counter()
    while batch:
        client.commit(message=batch[-1], asynchronous=False)
        commits, left = commits + 1, left - len(batch)
        batch = client.consume(min(every, left), 10) if left else []
    return commits, time.perf_counter() - start


def commits_theory(runs: Mapping[int, tuple[int, float]], orders: int) -> list[tuple[float, float, float]]:
    """Give for each batch, the smallest first, the seconds that `a + c / batch` expects, and the edges of its band.

    Args:
        runs: orders to a commit, and what `committing` gave.
        orders: how many were read.
    """
    sizes = sorted(runs)
    fixed, each = _split(sizes, [runs[size][1] for size in sizes], orders)
    expected = [fixed + each * orders / size for size in sizes]
    return [(seconds, seconds / FACTOR, seconds * FACTOR) for seconds in expected]


def commits_picture(runs: Mapping[int, tuple[int, float]], orders: int) -> Picture:
    """Draw seconds over the batch, against `a + c / batch`; the ends give the two numbers, and the rest is predicted.

    Args:
        runs: orders to a commit, and what `committing` gave.
        orders: how many were read.
    """
    sizes, (expected, low, high) = sorted(runs), zip(*commits_theory(runs, orders), strict=True)
    figure, axes = panel("orders to a commit", "seconds for all", f"{orders} orders")
    theory(axes, sizes, expected, (low, high), "a + c / batch")
    axes.plot(sizes, [runs[size][1] for size in sizes], "o", color=COLOURS["averaged"], label="measured")
    axes.set(xscale="log", yscale="log")
    legend(axes, "upper right")
    return Picture(figure)


def _split(sizes: Sequence[int], seconds: Sequence[float], orders: int) -> tuple[float, float]:
    """Solve `a + c * orders / size` for the smallest and the largest batch."""
    few, many = orders / sizes[-1], orders / sizes[0]
    each = max(0.0, (seconds[0] - seconds[-1]) / (many - few)) if many > few else 0.0
    return max(1e-4, seconds[-1] - each * few), each


def bars(seconds: Mapping[str, float]) -> Picture:
    """Draw ways to do the same by what they take, the first as one."""
    figure, axes = panel("time, the first is 1", "", "The same work", left=0.3)
    first = next(iter(seconds.values()))
    axes.barh(list(seconds), [value / first for value in seconds.values()], color=LINES[0], height=0.5)
    axes.invert_yaxis()
    return Picture(figure)
