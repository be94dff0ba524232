"""A consumer dies in the middle of its work, and another one goes on: what was handled, and how often."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence

from confluent_kafka import Consumer, Message, TopicPartition

from orderkit.errors import UsageError
from orderkit.lab.bench import Bench
from orderkit.lab.picture import Picture
from orderkit.lab.plots import legend, panel, theory
from orderkit.show.chart import COLOURS

PATIENCE = 10.0  # seconds for a batch that is there; only a dead broker needs them all
TIMES = {"never": COLOURS["dead"], "once": COLOURS["averaged"], "twice": COLOURS["retry"]}

Handle = Callable[[Message], None]
Loop = Callable[[Consumer, Handle], None]


class Crash(BaseException):
    """The process is dead. No `except Exception` keeps it alive, but `finally` still runs: as with Ctrl-C."""


def batches(client: Consumer, size: int) -> Iterator[list[Message]]:
    """Fetch the records of a partition, `size` at a time, to its end."""
    (place,) = client.assignment()
    _, end = client.get_watermark_offsets(place, timeout=PATIENCE)
    at = place.offset
    while at < end:
        batch = client.consume(min(size, end - at), PATIENCE)
        if not batch:
            raise UsageError("The broker gives no records. Is it still up?")
        at = (batch[-1].offset() or 0) + 1
        yield batch


def crash(shop: Bench, loop: Loop, at: int, **settings: object) -> list[int]:
    """Let a consumer die right after it has handled its `at`-th order, let a second one go on to the end, and count.

    Args:
        shop: the orders, in one partition.
        loop: fetches, handles and commits, with a client and a function that handles a record.
        at: the order whose handling is the last thing that the first consumer does.
        settings: librdkafka properties of both clients.

    Returns:
        For each order how often it was handled.

    Raises:
        UsageError: there is no such order.
    """
    many = len(shop.orders)
    if not 1 <= at <= many:
        raise UsageError(f"crash_at is {at}; it must be an order that comes: from 1 to {many}.")
    handled = [0] * many
    group = f"{shop.group}.{uuid.uuid4().hex[:8]}"  # each try has a group of its own, and begins at the beginning

    def handle(message: Message) -> None:
        handled[message.offset() or 0] += 1
        if sum(handled) == at:
            raise Crash

    for _ in range(2):
        _live(shop, group, loop, handle, settings)
    return handled


def _live(shop: Bench, group: str, loop: Loop, handle: Handle, settings: Mapping[str, object]) -> None:
    """Open a client where the group stands, and let the loop have it until it ends or dies."""
    client = shop.connection.consumer(group, **settings)
    try:
        (place,) = client.committed([TopicPartition(shop.topic, 0)], timeout=PATIENCE)
        # A subscription would wait for the dead member's session to end, as a real group does.
        client.assign([TopicPartition(shop.topic, 0, max(0, place.offset))])
        loop(client, handle)
    except Crash:
        pass
    finally:
        client.close()


def doubled(at: int, size: int) -> int:
    """Give the orders that are handled twice when a consumer dies after its `at`-th order, and commits after batches.

    Args:
        at: from 1.
        size: of a batch.
    """
    return (at - 1) % size + 1


def skipped(at: int, size: int) -> int:
    """Give the orders that nobody handles when a consumer dies after its `at`-th order, and commits before batches.

    Args:
        at: from 1.
        size: of a batch.
    """
    return -at % size


def barcode(lives: Mapping[str, Sequence[int]]) -> Picture:
    """Draw how often each order was handled: a strip for each loop, a bar for each order.

    Args:
        lives: a label for each strip, and what `crash` gave.
    """
    told = ", ".join(f"{name}: {times.count(0)} lost, {_again(times)} twice" for name, times in lives.items())
    figure, axes = panel("order", "", told, left=0.16)
    for row, times in enumerate(lives.values()):
        for i, many in enumerate(times):
            hue = list(TIMES.values())[min(many, 2)]
            axes.bar(i + 1, 0.7, bottom=-row - 0.35, width=0.8 if many else 0.3, color=hue)
    axes.set_yticks([-row for row in range(len(lives))], list(lives))
    handles = [axes.bar([1], [0], color=hue, label=name) for name, hue in TIMES.items()]
    axes.set_ylim(-len(lives) + 0.4, 1.1)
    axes.legend(handles=handles, ncols=len(handles), loc="upper left", frameon=False, title="handled")
    return Picture(figure)


def _again(times: Sequence[int]) -> int:
    return sum(many > 1 for many in times)


def sawtooth(shop: Bench, before: Loop, after: Loop, size: int, most: int = 12) -> Picture:
    """Crash both loops at one order after the other, and draw what that cost against theory.

    Args:
        shop: the orders.
        before: commits before a batch.
        after: commits after it.
        size: of a batch.
        most: so many places are tried, at most, spread over the first two batches.
    """
    size = min(size, len(shop.orders))
    ends = min(2, len(shop.orders) // size) * size  # the last batch may be a short one
    places = range(1, ends + 1, -(-ends // most))
    lost = [crash(shop, before, at).count(0) for at in places]
    twice = [_again(crash(shop, after, at)) for at in places]
    right = sum(
        one == skipped(at, size) and two == doubled(at, size) for at, one, two in zip(places, lost, twice, strict=True)
    )
    figure, axes = panel("the consumer dies after order", "orders", f"{right} of {len(places)} crashes as theory says")
    x = range(1, ends + 1)
    theory(axes, x, [doubled(at, size) for at in x])
    theory(axes, x, [skipped(at, size) for at in x], label="_")
    axes.plot(places, twice, "s", markersize=9, color=TIMES["twice"], label="commit after: handled twice")
    axes.plot(places, lost, "o", color=TIMES["never"], label="commit before: lost")
    axes.set_ylim(-0.5, size * 1.5)
    legend(axes, "upper right")
    return Picture(figure)
