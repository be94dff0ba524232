"""Dead letters, and their way back: what they tell, how many rounds it takes, whether each counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from math import sqrt

from orderkit.account.tally import AVERAGED
from orderkit.dead_letters import DeadLetterRecord, read_topic
from orderkit.lab.bench import Bench
from orderkit.lab.picture import Picture
from orderkit.lab.plots import legend, panel, theory
from orderkit.lab.table import Table
from orderkit.orders.faults import Faults
from orderkit.orders.order import random_orders
from orderkit.retry import Transient
from orderkit.show.chart import COLOURS

CLOCKS = ("timestamp", "first-failure", "last-failure")  # told in ms since 1970: another number in every run


def anatomy(*letters: DeadLetterRecord) -> Table:
    """Lay out what dead letters hold: the record as it was, and under it what the added headers tell.

    Args:
        letters: one column for each.
    """
    told = list(letters[0].story) if letters else []
    rows: list[tuple[object, ...]] = [
        ("key", *((letter.key or b"").decode(errors="replace") for letter in letters)),
        ("value", *((letter.value or b"").hex(" ") for letter in letters)),
    ]
    for name in told:
        values = (letter.story.get(name, "") for letter in letters)
        rows.append((name, *("ms since 1970" if name in CLOCKS else value for value in values)))
    return Table(("", *(letter.story.get("reason", "dead letter") for letter in letters)), rows)


def homecoming(shop: Bench) -> Table:
    """Count how often each order went into the average, from the ledger: never, once, or more often."""
    (names, fates), _, _ = shop.ledger.rows("order_id", "fate")
    times = Counter(name for name, fate in zip(names, fates, strict=True) if fate == AVERAGED)
    once = sum(many == 1 for many in times.values())
    rows = [(len(shop.orders), once, len(times) - once, len(shop.orders) - len(times))]
    return Table(("orders", "averaged once", "more than once", "not averaged"), rows)


def unspoilt(shop: Bench) -> Table:
    """Count the dead letters that are one of the orders still, and of those the ones that have their key still."""
    sent = {message.value(): message.key() for message in read_topic(shop.connection, shop.topic)}
    letters = list(read_topic(shop.connection, shop.dead_letters))
    whole = [letter for letter in letters if letter.value() in sent]
    keyed = sum(letter.key() == sent[letter.value()] for letter in whole)
    rows = [(len(sent), len(letters), len(whole), keyed)]
    return Table(("orders", "dead letters", "byte for byte", "with their key"), rows)


def copy_back(shop: Bench) -> int:
    """Do what many a script does: write each dead letter to the topic again, and nothing else. Give how many."""
    producer, many = shop.connection.producer(), 0
    for letter in read_topic(shop.connection, shop.dead_letters):
        producer.produce(shop.topic, letter.value(), letter.key())
        many += 1
    producer.flush(10)
    return many


def left_after(orders: int, seed: int, failure_rate: float, attempts: int, rounds: int) -> list[int]:
    """Count from the plan of failures alone how many orders are dead after the first try, and after each replay.

    Args:
        orders: how many.
        seed: decides orders and fates; each round has fates of its own, as a service has another day.
        failure_rate: share of the attempts that fail.
        attempts: of each order in each round.
        rounds: of replay.
    """
    dead, left = list(islice(random_orders(seed), orders)), []
    for number in range(rounds + 1):
        faults = Faults(seed + number, failure_rate)
        dead = [order for order in dead if all(_fails(faults, order, n) for n in range(1, attempts + 1))]
        left.append(len(dead))
    return left


def _fails(faults: Faults, order: object, attempt: int) -> bool:
    try:
        faults.strike(order, attempt)  # type: ignore[arg-type]
    except Transient:
        return True
    return False


def rounds_band(orders: int, share: float) -> tuple[float, float]:
    """Give the band in which the dead of 95 of 100 runs lie, when each order dies with this probability."""
    spread = 2 * sqrt(orders * share * (1 - share))
    return max(0.0, orders * share - spread), orders * share + spread


def rounds_picture(left: Sequence[int], orders: int, failure_rate: float, attempts: int) -> Picture:
    """Draw how many orders are dead after each replay against theory, with the band of 95 of 100 runs.

    Args:
        left: after the first try, and after each replay.
        orders: that could die so: those that are not poison.
        failure_rate: share of the attempts that fail.
        attempts: of each order in each round.
    """
    rounds = range(len(left))
    shares = [failure_rate ** (attempts * (number + 1)) for number in rounds]
    bands = [rounds_band(orders, share) for share in shares]
    figure, axes = panel("replays", "orders dead of time-outs", f"Dead after each round: {', '.join(map(str, left))}")
    axes.bar(rounds, left, width=0.5, color=[COLOURS["dead"], *[COLOURS["replayed"]] * (len(left) - 1)])
    low, high = [band[0] for band in bands], [band[1] for band in bands]
    theory(axes, rounds, [orders * share for share in shares], (low, high))
    axes.set_xticks(rounds, ["none yet", *map(str, rounds[1:])])
    legend(axes, "upper right")
    return Picture(figure)
