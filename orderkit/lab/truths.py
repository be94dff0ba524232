"""What is right in the exercises: each makes one case from a random generator, for `check`."""

from __future__ import annotations

from random import Random

from orderkit.lab.check import Case
from orderkit.lab.crashes import doubled
from orderkit.orders.avro import WIRES, Codec, encoded_length
from orderkit.orders.order import Order
from orderkit.retry import Fatal, Permanent, Poison, Transient, classify
from orderkit.retry.backoff import exponential, full_jitter

LETTERS = "abcdefghijklmnopqrstuvwxyzäöüß€"
FAILURES: tuple[type[Exception], ...] = (
    Poison, Permanent, Transient, Fatal, TimeoutError, ConnectionError, ConnectionResetError, OSError,
    ValueError, KeyError, IndexError, ZeroDivisionError, TypeError, AttributeError, NameError, NotImplementedError,
)  # fmt: skip


def expected_dead(chance: Random) -> Case:
    """Draw n orders, a failure rate p and k attempts: an order dies when all of them fail."""
    n, p, k = chance.randint(1, 10_000), chance.randint(0, 20) / 20, chance.randint(1, 8)
    return (n, p, k), n * p**k


def _text(chance: Random) -> str:
    return "".join(chance.choices(LETTERS, k=chance.choice((1, 4, 9, 30, 63, 64, 90))))


def order_length(chance: Random) -> Case:
    """Draw an order id and a product: each takes its length, then its UTF-8 bytes; the price takes four."""
    name, product = _text(chance), _text(chance)
    return (name, product), encoded_length(name, product)


def wire_format(chance: Random) -> Case:
    """Draw an order's bytes: the first one or two give the wire format away."""
    wire = chance.choice(WIRES)
    order: Order = {"orderId": _text(chance), "product": _text(chance), "price": chance.random()}
    return (Codec(wire, schema_id=chance.randint(1, 999)).encode(order),), wire


def next_mean(chance: Random) -> Case:
    """Draw the mean of n prices and one more price."""
    mean, n, price = chance.randint(0, 10_000) / 100, chance.randint(0, 999), chance.randint(1, 40_000) / 100
    mean = mean if n else 0.0
    return (mean, n, price), (mean * n + price) / (n + 1)


def merged_mean(chance: Random) -> Case:
    """Draw counts and means of a few partitions; some are empty, but not all."""
    counts = [chance.randint(0, 50) for _ in range(chance.randint(1, 5))] + [1]
    means = [chance.randint(0, 10_000) / 100 if n else 0.0 for n in counts]
    return (counts, means), sum(n * mean for n, mean in zip(counts, means, strict=True)) / sum(counts)


def most_waiting(chance: Random) -> Case:
    """Draw a pace, an outage and the client's room: orders pile up until the broker is back or the room is full."""
    pace, seconds, room = chance.randint(1, 500), chance.randint(0, 60), chance.randint(1, 20_000)
    return (pace, seconds, room), min(room, pace * seconds)


def not_there(chance: Random) -> Case:
    """Draw delivery reports, `None` for an order that has arrived: the others are to be sent again."""
    reports = [chance.choice((None, None, "_MSG_TIMED_OUT", "no report")) for _ in range(chance.randint(0, 12))]
    return (reports,), [i for i, error in enumerate(reports) if error is not None]


def handled_twice(chance: Random) -> Case:
    """Draw where a consumer dies and the size of its batches: all orders of that batch so far are handled again."""
    at, size = chance.randint(1, 500), chance.randint(1, 50)
    return (at, size), doubled(at, size)


def cents_once(chance: Random) -> Case:
    """Draw deliveries, some of them twice: an order costs what it costs, however often it comes."""
    orders = [(str(i), chance.randint(1, 45_000)) for i in range(chance.randint(0, 20))]
    again = orders[: chance.randint(0, len(orders))]
    return ([*orders, *again],), sum(cents for _, cents in orders)


def expected_attempts(chance: Random) -> Case:
    """Draw n orders, a failure rate p and k attempts: a geometric series."""
    (n, p, k), _ = expected_dead(chance)
    return (n, p, k), sum(n * p**attempt for attempt in range(k))


def attempts_needed(chance: Random) -> Case:
    """Draw a failure rate and the share of orders that may die: find the smallest number of attempts."""
    p, loss = chance.randint(1, 9) / 10, chance.choice((0.3, 0.03, 0.003, 0.0003))
    return (p, loss), next(k for k in range(1, 200) if p**k <= loss)


def enough_attempts(chance: Random) -> Case:
    """Draw a failure rate: find the smallest number of attempts, so that less than 1 % die."""
    p = chance.randint(1, 19) / 20
    return (p,), next(k for k in range(1, 200) if p**k < 0.01)


def total_wait(chance: Random) -> Case:
    """Draw base, cap and k attempts: between them lie k - 1 exponential waits."""
    base, cap, k = chance.randint(1, 10) / 10, float(chance.randint(1, 30)), chance.randint(1, 10)
    return (base, cap, k), sum(exponential(base, cap, attempt, 0.0, 0.0) for attempt in range(1, k))


def jitter(chance: Random) -> Case:
    """Draw base, cap, the attempt that failed and a draw from 0 to 1: the wait under full jitter."""
    base, cap, attempt = chance.randint(1, 10) / 10, float(chance.randint(1, 30)), chance.randint(1, 10)
    u = chance.randint(0, 99) / 100
    return (base, cap, attempt, u), full_jitter(base, cap, attempt, 0.0, u)


def dead_share(chance: Random) -> Case:
    """Draw the shares of poison and of permanent failures, a failure rate and k attempts: the share of all that die."""
    r, q, p = (chance.randint(0, 10) / 20 for _ in range(3))
    k = chance.randint(1, 6)
    return (r, q, p, k), r + (1 - r) * (q + (1 - q) * p**k)


def reason(chance: Random) -> Case:
    """Draw an exception: the kit's four kinds say what they are, and of Python's own the type tells."""
    error = chance.choice(FAILURES)("something happened")
    return (error,), classify(error)
