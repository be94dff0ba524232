"""Three promises, killed at one order after the other: what that loses and doubles, and what theory says of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pandas as pd

from orderkit.account.state import group_state
from orderkit.brokers import Broker
from orderkit.consumer import RetryingConsumer
from orderkit.crash.mortal import kill_one, refuse_each
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.lab.deaths import SESSION, letters_by_order
from orderkit.lab.picture import Picture
from orderkit.lab.plots import columns, legend, theory
from orderkit.orders.order import random_orders
from orderkit.producer import OrderProducer
from orderkit.show.chart import COLOURS

MOST = 10  # orders that are tried, at most, spread over a batch
AT_ONCE = 20  # consumers that die at the same time: most of a death is waiting for the group to notice it
PATIENCE = 20.0  # seconds without an order after which the second consumer is given up
LOST, TWICE, UNDONE = "lost", "twice", "undone"  # columns of the frame
DOTS = {  # of a picture: mark, fate whose colour it has, and words
    TWICE: ("s", "retry", "dead letters twice"),
    UNDONE: ("d", "skipped", "dead letters undone"),
    LOST: ("o", "dead", "orders lost"),
}


def kills(broker: Broker, modes: Sequence[str], *, orders: int, batch: int, seed: int, every: int) -> pd.DataFrame:
    """Kill a consumer in the middle of its first batch, let another one finish, and count what lies at the broker.

    It is killed by `kill -9` in its handler, at one order of the batch after the other, each time on a topic of its
    own. All before that order are done, and their dead letters written.

    Args:
        broker: a real one, if `exactly-once` is among the modes.
        modes: delivery modes.
        orders: how many there are.
        batch: so many are fetched together.
        seed: decides the orders.
        every: each so many-th order is refused for good.

    Returns:
        A row for each death: `mode`, `order` (the one it was at, from 1), `lost` (orders neither averaged nor dead),
        `twice` (dead letters beyond an order's first, for readers of committed records), `undone` (letters that only
        other readers see) and `told` (orders that the group itself says it has lost, at most).

    Raises:
        OrderkitError: the broker does not answer, or does not do what the mode needs.
    """
    size = min(batch, orders)
    places = range(1, size + 1, -(-size // MOST))
    jobs = [(mode, place) for mode in modes for place in places]

    def one(job: tuple[str, int]) -> dict[str, object]:
        return {"mode": job[0], "order": job[1], **_kill(broker, *job, orders, size, seed, every)}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return pd.DataFrame(list(pool.map(one, jobs)))


def _kill(broker: Broker, mode: str, place: int, orders: int, batch: int, seed: int, every: int) -> dict[str, int]:
    name = uuid.uuid4().hex[:8]
    topic, letters, group = f"orders.{name}", f"orders.{name}.dlq", f"orderkit.{name}"
    told: dict[str, Any] = {"topic": topic, "dead_letters": letters, "group": group, "delivery": mode}
    told |= {"instance": "one", "batch": batch, "slice": PATIENCE}  # a batch is one slice, however long a death takes
    connection = Connection(broker.bootstrap, {**broker.connection.config, **SESSION})
    broker.create_topics({topic: 1, letters: 1})
    OrderProducer(broker.connection, topic).run(islice(random_orders(seed), orders))
    kill_one(connection, told, every, place)
    second = RetryingConsumer(connection, refuse_each(every), **told)
    left = orders - batch if mode == "at-most-once" else orders
    second.run(orders=left, idle=PATIENCE if left else 1.0)
    if second.ledger.finished < left:
        raise OrderkitError(f"{mode}: only {second.ledger.finished} of {left} orders came again. Is the broker up?")
    state = group_state(connection, group, topic)
    average = state.average.count
    committed = letters_by_order(connection, letters, "read_committed")
    written = letters_by_order(connection, letters, "read_uncommitted")
    many = committed.total()
    return {
        LOST: orders - average - len(committed),
        TWICE: many - len(committed),
        UNDONE: written.total() - many,
        "told": state.lost,
    }


def kill_costs(mode: str, place: int, batch: int, every: int) -> dict[str, int]:
    """Say what theory does: a consumer dies in its handler of order `place`, in its first batch.

    The batch was committed before it (at most once), is committed behind it (at least once), or is one transaction
    with its dead letters (exactly once).

    Args:
        mode: the delivery mode.
        place: from 1.
        batch: orders in it.
        every: each so many-th order is refused: so many dead letters are written by then, floor((place - 1) / every).
    """
    written = (place - 1) // every
    costs = {"at-most-once": (batch - written, 0, 0), "at-least-once": (0, written, 0), "exactly-once": (0, 0, written)}
    return dict(zip((LOST, TWICE, UNDONE), costs[mode], strict=True))


def kills_picture(kills: pd.DataFrame, batch: int, every: int) -> Picture:
    """Draw what each kill cost against theory: a panel for each mode, side by side.

    Args:
        kills: what `kills` gave.
        batch: orders in one.
        every: each so many-th order was refused.
    """
    modes = list(kills["mode"].unique())
    figure, panels = columns(modes, "killed at order", "orders, or dead letters")
    right = 0
    for axes, mode in zip(panels, modes, strict=True):
        seen = kills[kills["mode"] == mode].set_index("order")
        said = pd.DataFrame([kill_costs(mode, place, batch, every) for place in seen.index], index=seen.index)
        right += int((seen[list(said)] == said).all(axis=1).sum())
        for name, (mark, fate, label) in DOTS.items():
            theory(axes, seen.index, said[name], label="theory" if name == LOST else "_")
            axes.plot(seen.index, seen[name], mark, color=COLOURS[fate], label=label)
        axes.set_ylim(-0.5, batch * 1.6)
    legend(panels[-1], "upper right")
    return Picture(figure, f"{right} of {len(kills)} kills as theory says")
