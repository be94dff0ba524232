"""The ledger as pandas frames; only those who want a frame load pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from orderkit.account.tally import AVERAGED, FATES
from orderkit.ledger import Ledger

KINDS: dict[str, Any] = {
    "at": float, "topic": np.int16, "partition": np.int64, "offset": np.int64, "order_id": object, "price": float,
    "attempt": np.int64, "fate": np.int8, "wait": float, "reason": object, "error": object, "running_average": float,
}  # fmt: skip


class LiveFrame:
    """The frame of a ledger that grows: what was converted once stays, and an update costs what is new.

    Args:
        ledger: whose events.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._start_over(0, 0, 0.0, 0)

    def _start_over(self, version: int, dropped: int, total: float, count: int) -> None:
        self._version, self._dropped, self._total, self._count = version, dropped, total, count
        self._topics: dict[str, int] = {}
        self._columns = {name: _Column(kind) for name, kind in KINDS.items()}

    def update(self) -> pd.DataFrame:
        """Give all events; columns as `Ledger.frame` says. It shares memory with the next ones: do not write in it."""
        version = self._ledger.version  # read first: a fate that is voided from here on comes with the next update
        seen = self._dropped + len(self._columns["fate"].values)
        rows, dropped, earlier = self._ledger.rows(since=seen if version == self._version else 0)
        if (version, dropped) != (self._version, self._dropped):
            rows, dropped, earlier = self._ledger.rows()
            self._start_over(version, dropped, earlier.mean * earlier.count, earlier.count)
        self._add(rows)
        return self._frame()

    def _add(self, rows: Sequence[Any]) -> None:
        """Convert events, and go on with their running average from the last one."""
        at, topics, *others = rows
        codes = [self._topics.setdefault(topic, len(self._topics)) for topic in topics]
        for column, values in zip(self._columns.values(), (at, codes, *others), strict=False):
            column.add(values)
        many = len(codes)
        averaged = self._columns["fate"].last(many) == AVERAGED
        prices = np.where(averaged, self._columns["price"].last(many), 0.0)
        total = np.cumsum(np.concatenate([[self._total], prices]))[1:]  # one by one, however the events come in
        count = self._count + np.cumsum(averaged)
        self._columns["running_average"].add(np.divide(total, count, out=np.full(many, np.nan), where=count > 0))
        if many:
            self._total, self._count = float(total[-1]), int(count[-1])

    def _frame(self) -> pd.DataFrame:
        data: dict[str, Any] = {name: column.values for name, column in self._columns.items()}
        for name in ("order_id", "reason", "error"):
            data[name] = pd.Series(data[name], dtype=object, copy=False)
        data["topic"] = pd.Categorical.from_codes(data["topic"], pd.Index(list(self._topics)))
        data["fate"] = pd.Categorical.from_codes(data["fate"], pd.Index(FATES))
        first = self._dropped
        return pd.DataFrame({"seq": np.arange(first, first + len(data["fate"])), **data}, copy=False)


class _Column:
    """An array with room behind: to add to it costs what is added, most of the time."""

    def __init__(self, kind: Any) -> None:
        self._room = np.empty(1024, kind)
        self._many = 0

    def add(self, values: Any) -> None:
        """Put values behind the others."""
        end = self._many + len(values)
        if end > len(self._room):
            room = np.empty(2 * end, self._room.dtype)
            room[: self._many] = self.values
            self._room = room
        self._room[self._many : end] = values
        self._many = end

    @property
    def values(self) -> np.ndarray[Any, Any]:
        """All values."""
        return self._room[: self._many]

    def last(self, many: int) -> np.ndarray[Any, Any]:
        """Give the newest values."""
        return self._room[self._many - many : self._many]


def ledger_frame(ledger: Ledger) -> pd.DataFrame:
    """Give all events of a ledger as a frame; columns as `Ledger.frame` says."""
    return LiveFrame(ledger).update()
