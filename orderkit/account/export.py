"""A ledger in a file, written while it fills: memory stays bounded, and every attempt is kept."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from orderkit.account.sinks import COLUMNS, Columns, open_sink
from orderkit.account.tally import FATES, RETRY, UNDONE
from orderkit.errors import OrderkitError
from orderkit.ledger import Ledger

if TYPE_CHECKING:
    import pandas as pd

TEXTS = ("run", "topic", "order_id", "fate", "reason", "error")


class LedgerExport:
    """Writes a ledger's events to a file, oldest first, each once. Call it once per turn of the loop.

    What was not committed when its partition went to another consumer is void, and may be in the file already. A row
    with the fate `undone` and attempt 0 says so: void is every earlier row of its run with its topic and partition and
    at least its offset, but for retries. `read_ledger` heeds that.

    Args:
        ledger: filled by the thread that calls this.
        path: ends in `.csv` or `.parquet`.

    Raises:
        UsageError, OrderkitError: as `open_sink`.
    """

    def __init__(self, ledger: Ledger, path: str | Path) -> None:
        self.run = uuid.uuid4().hex[:8]  # tells the rows of one process from those of another
        self.written = ledger.dropped + len(ledger)  # events of the ledger, from its first
        self._ledger = ledger
        self._path = Path(path)
        self._sink = open_sink(self._path)
        self._enough = self._sink.chunk if ledger.keep is None else min(self._sink.chunk, ledger.keep // 2)
        self._undone = ledger.counts[UNDONE]
        self._voided: dict[tuple[str, int], int] = {}  # partition: events before its latest void
        self._due = time.monotonic() + self._sink.every

    def __call__(self) -> None:
        """Write what is new, when it is enough, or old enough.

        Raises:
            OrderkitError: the disk is full, or the ledger dropped events that were not written.
        """
        new = self._ledger.dropped + len(self._ledger) - self.written
        if new >= self._enough or time.monotonic() >= self._due:
            self.write()

    def write(self) -> None:
        """Write what is new."""
        columns, dropped, _ = self._ledger.rows(*COLUMNS[2:])
        if dropped > self.written:
            raise OrderkitError(
                f"--ledger {self._path}: {dropped - self.written} attempts came too fast to be written. "
                "Give the ledger more room (`keep`)."
            )
        old = self.written - dropped
        if self._ledger.counts[UNDONE] > self._undone:
            self._undone = self._ledger.counts[UNDONE]
            self._void(dict(zip(COLUMNS[2:], (column[:old] for column in columns), strict=True)), dropped)
        new = dict(zip(COLUMNS[2:], (column[old:] for column in columns), strict=True))
        if many := len(new["fate"]):
            new["fate"] = [FATES[code] for code in new["fate"]]
            self._put([[self.run] * many, range(self.written, self.written + many), *new.values()])
            self.written += many
        self._due = time.monotonic() + self._sink.every

    def _void(self, old: dict[str, Sequence[Any]], dropped: int) -> None:
        """Write a row for each partition of which something that is in the file is void now."""
        first: dict[tuple[str, int], int] = {}
        places = zip(old["topic"], old["partition"], old["offset"], old["fate"], strict=True)
        for seq, (topic, partition, offset, fate) in enumerate(places, start=dropped):
            key = (topic, partition)
            if fate == UNDONE and seq >= self._voided.get(key, 0):
                first[key] = min(offset, first.get(key, offset))
        self._voided |= dict.fromkeys(first, self.written)
        for (topic, partition), offset in first.items():
            place = (self.run, self.written, time.time(), topic, partition, offset)
            self._put([[field] for field in (*place, None, float("nan"), 0, FATES[UNDONE], 0.0, None, None)])

    def _put(self, columns: Columns) -> None:
        try:
            self._sink.write(columns)
        except OSError as error:
            raise OrderkitError(
                f"--ledger {self._path} cannot be written: {error.strerror}. What is done is committed."
            ) from None

    def close(self) -> None:
        """Write what is left, and close the file."""
        try:
            self.write()
        finally:
            self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def read_ledger(path: str | Path) -> pd.DataFrame:
    """Read an exported ledger, with the fate `undone` wherever another row voids it.

    What a killed consumer did and could not commit was delivered again: of the final fates of a record the latest
    stands.

    Args:
        path: what `--ledger` named.

    Raises:
        OrderkitError: pandas is not installed.
    """
    try:
        import pandas as pd  # noqa: PLC0415  only for those who want a frame
    except ImportError:
        raise OrderkitError('Frames need the extra `lab`: pip install "orderkit[lab]".') from None
    path = Path(path)
    if path.suffix.lower() == ".csv":
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=dict.fromkeys(TEXTS, "str"))
    else:
        frame = pd.read_parquet(path)
    for at in frame.index[(frame["fate"] == FATES[UNDONE]) & (frame["attempt"] == 0)]:
        here = frame.loc[at]
        gone = (frame["run"] == here["run"]) & (frame["seq"] < here["seq"]) & (frame["fate"] != FATES[RETRY])
        gone &= (frame["topic"] == here["topic"]) & (frame["partition"] == here["partition"])
        frame.loc[gone & (frame["offset"] >= here["offset"]), "fate"] = FATES[UNDONE]
    frame = frame[frame["attempt"] > 0].reset_index(drop=True)
    final = frame[~frame["fate"].isin([FATES[RETRY], FATES[UNDONE]])]
    again = final.sort_values("at", kind="stable").duplicated(["topic", "partition", "offset"], keep="last")
    frame.loc[again.index[again], "fate"] = FATES[UNDONE]
    return frame
