"""What became of a batch, in columns: they join those of the ledger at once."""

from __future__ import annotations

from array import array
from collections.abc import Container, Sequence
from typing import NamedTuple, cast

from orderkit.account.tally import RETRY
from orderkit.orders.order import Order
from orderkit.retry import Failure


class Attempt(NamedTuple):
    """A delivery attempt that is worth a word: all but a success at the first."""

    record: int  # its place in the batch
    at: float  # seconds since 1970
    number: int  # from 1
    fate: int  # RETRY, DEAD, SKIPPED, or AVERAGED after an earlier failure
    wait: float = 0.0  # seconds until the next one
    reason: str | None = None
    error: str | None = None


Noted = tuple[int, float, int, int, float, str | None, str | None]  # the same without names, four times as fast


def attempt_rows(done: int, retried: Sequence[int], aside: Container[int]) -> Sequence[int]:
    """Give each attempt a row, and so the place of its record: all retries, and the last one of what is finished."""
    last = [i for i in range(done) if i not in aside] if aside else range(done)
    return sorted([*last, *retried])  # two runs that ascend: Python's sort only merges them


class Block:
    """The columns of a few events, before they join the rest.

    Args:
        at: when, in seconds since 1970, unless `set` says otherwise.
        rows: for each event, the place of its record in the batch.
        offsets: of the batch.
        orders: of the batch.
    """

    def __init__(
        self, at: float, rows: Sequence[int], offsets: Sequence[int], orders: Sequence[Order | Failure]
    ) -> None:
        many = len(rows)
        prices, self.order_id = _prices_and_ids([orders[i] for i in rows])
        self.price = array("d", prices)
        self.offset = array("q", [offsets[i] for i in rows])  # an array joins another in half the time of a list
        self.at = array("d", [at]) * many
        self.attempt = array("l", [1]) * many
        self.wait = array("d", [0.0]) * many
        self.reason: list[str | None] = [None] * many
        self.error: list[str | None] = [None] * many
        self.fate = bytearray(many)

    def set(self, attempts: Sequence[Noted], aside: Container[int]) -> None:
        """Put attempts, in order, where they belong: a record has a row for each retry, and one for its end."""
        times, numbers, fates, waits, reasons, errors = (
            self.at, self.attempt, self.fate, self.wait, self.reason, self.error,
        )  # fmt: skip
        shift = passed = 0  # rows that the records before this one take more than one each; records looked at
        for record, at, number, fate, wait, reason, error in attempts:
            if aside:
                shift -= sum(before in aside for before in range(passed, record))
                passed = record
            row = record + shift
            shift += fate == RETRY
            times[row], numbers[row], fates[row], reasons[row], errors[row] = at, number, fate, reason, error
            if wait:
                waits[row] = wait

    def finals(self) -> bytes:
        """Give the fates that are final, in order."""
        return bytes(self.fate.translate(None, bytes([RETRY])))


def _prices_and_ids(orders: Sequence[Order | Failure]) -> tuple[list[float], list[str | None]]:
    """Take two columns out of a batch; what is no order has neither."""
    try:
        whole = cast(Sequence[Order], orders)
        return [order["price"] for order in whole], [order["orderId"] for order in whole]
    except TypeError:  # a failure among them
        some = [order if isinstance(order, dict) else None for order in orders]
        return [order["price"] if order else float("nan") for order in some], [
            order["orderId"] if order else None for order in some
        ]
