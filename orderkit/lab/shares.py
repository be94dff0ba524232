"""A share group at work on real Kafka: deliveries counted by the broker, and its own dead letters."""

from __future__ import annotations

import time
import uuid
from collections import Counter

from orderkit.account.tally import AVERAGED, DEAD, RETRY
from orderkit.brokers import ApacheBroker
from orderkit.brokers.dlq import use_broker_dlq
from orderkit.dead_letters import DeadLetterRecord, read_dead_letters
from orderkit.errors import OrderkitError
from orderkit.lab.picture import Picture
from orderkit.lab.plots import legend, panel
from orderkit.orders.faults import Faults
from orderkit.retry import RetryPolicy
from orderkit.retry.backoff import Backoff
from orderkit.run import Run

PATIENCE = 30.0  # seconds for the broker to write its dead letters
HUES = {"share group": "#0072B2", "consumer group": "#E69F00"}


def share_run(
    broker: ApacheBroker, *, orders: int, failure_rate: float, max_attempts: int, backoff_base: float, seed: int,
    engine: str = "share", broker_dlq: bool = True,
) -> Run:  # fmt: skip
    """Make a run on one partition; nothing is started yet.

    Args:
        broker: Kafka 4.4 or newer.
        orders: how many.
        failure_rate: share of deliveries that fail.
        max_attempts: deliveries of one order, in all.
        backoff_base: seconds that are asked for between two of them.
        seed: decides the orders and their fates.
        engine: `share`, or one of the others to compare it with.
        broker_dlq: whether the broker itself writes the dead letters of the share group.
    """
    name = uuid.uuid4().hex[:8]
    if engine == "share" and broker_dlq:
        use_broker_dlq(broker.connection, f"orderkit.{name}", f"dlq.orders.{name}", 1)
    policy = RetryPolicy(max_attempts, Backoff("fixed", backoff_base))
    faults = Faults(seed, failure_rate)
    return Run(broker, orders=orders, seed=seed, faults=faults, policy=policy, engine=engine, partitions=1, name=name)


def broker_letters(run: Run) -> list[DeadLetterRecord]:
    """Read the dead letters that the broker has written for a run; wait until all are there.

    Raises:
        OrderkitError: they do not come.
    """
    deadline, expected = time.monotonic() + PATIENCE, run.ledger.counts[DEAD]
    while True:
        letters = list(read_dead_letters(run.connection, f"dlq.{run.topic}"))
        if len(letters) >= expected:
            return letters
        if time.monotonic() > deadline:
            raise OrderkitError(f"The broker wrote {len(letters)} of {expected} dead letters. Run the cell again.")
        time.sleep(0.2)


def deliveries(run: Run) -> dict[int, int]:
    """Count how many orders had their last delivery as the first, the second, and so on."""
    (numbers, fates), _, _ = run.ledger.rows("attempt", "fate")
    ended = Counter(number for number, fate in zip(numbers, fates, strict=True) if fate in (AVERAGED, DEAD))
    return dict(sorted(ended.items()))


def overtaken(run: Run) -> int:
    """Count the orders that ended after an order which came later."""
    (offsets, fates), _, _ = run.ledger.rows("offset", "fate")
    newest, count = -1, 0
    for offset, fate in zip(offsets, fates, strict=True):
        if fate in (AVERAGED, DEAD):
            count += offset < newest
            newest = max(newest, offset)
    return count


def gaps(run: Run) -> list[float]:
    """Give the seconds between a delivery that failed and the next one of the same order."""
    (offsets, times, fates), _, _ = run.ledger.rows("offset", "at", "fate")
    failed: dict[int, float] = {}
    found = []
    for offset, at, fate in zip(offsets, times, fates, strict=True):
        if offset in failed:
            found.append(at - failed.pop(offset))
        if fate == RETRY:
            failed[offset] = at
    return found


def gaps_picture(run: Run, asked: float) -> Picture:
    """Draw the time from each failed delivery to the next one, beside the back-off that was asked for."""
    figure, axes = panel("retry", "seconds until the next delivery", "A share group does not wait")
    axes.plot(gaps(run), "o", color=HUES["share group"], markersize=4, label="share group")
    axes.axhline(asked, linestyle="--", color="#7F7F7F", label="back-off asked for")
    axes.set_ylim(-0.05 * asked, 1.3 * asked)
    legend(axes, "center right")
    return Picture(figure)
