"""Write dead letters out of a file to a topic: checked as a whole before the first, and each of them once.

After a kill the same import goes on: `orderkit.letter_files.bookmark` says up to which line all is acknowledged, and
reads what had been written beyond. Those letters are known again by their bytes, and are not written twice.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orderkit.consuming.calm import calm_collector
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.letter_files.bookmark import Bookmark
from orderkit.letter_files.columns import LetterFrame
from orderkit.letter_files.copies import LetterSource
from orderkit.letter_files.exporting import is_parquet
from orderkit.letter_files.lines import LetterLines
from orderkit.letter_files.shipping import Shipper
from orderkit.letter_files.survey import Survey, check_kept, check_still_there, check_targets, survey
from orderkit.letter_files.tables import LetterTable
from orderkit.letter_files.values import Values

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Imported:
    """What an import did, or would do.

    Args:
        found: what is in the file.
        targets: topic to its number of partitions.
        group: whose offsets say how far it is.
        before: lines that earlier runs had done.
        again: letters that an earlier run had written beyond those.
        written: letters written now, by topic.
        done: lines that are done.
        seconds: how long writing took.
        stopped: whether it was asked to end.
    """

    found: Survey
    targets: dict[str, int]
    group: str = ""
    before: int = 0
    again: int = 0
    written: Counter[str] = field(default_factory=Counter)
    done: int = 0
    seconds: float = 0.0
    stopped: bool = False


class Import:
    """Writes the letters of a file, or of a frame.

    Args:
        connection: the cluster.
        source: the file.
        to: the topic for all; by default each goes to where it lay.
        by_key: choose partitions by key; by default each goes to the partition where it lay.
        skip_bad: leave out lines that are no letters; by default one of them is an error, and nothing is written.
        again: write all, whatever earlier runs have done.
        group: whose offsets say how far it is; by default one for these contents and this target.
    """

    def __init__(
        self,
        connection: Connection,
        source: LetterSource,
        *,
        to: str | None = None,
        by_key: bool = False,
        skip_bad: bool = False,
        again: bool = False,
        group: str | None = None,
    ) -> None:
        self.source, self.to, self.by_key = source, to, by_key
        self._connection, self._skip_bad, self._again, self._group = connection, skip_bad, again, group
        self._ended = threading.Event()

    def stop(self) -> None:
        """Ask it to end; what is on its way is awaited, and noted."""
        self._ended.set()

    def look(self, watch: Callable[[Survey], object] = lambda _: None) -> Imported:
        """Go through the whole file, and say what `run` would do; writes nothing.

        Raises:
            UsageError: the file is no export, or its letters find no place.
            OrderkitError: a line is no letter, the file cannot be read, or a topic is missing.
        """
        found = survey(self.source, watch, self._ended.is_set)
        if found.bad and not self._skip_bad:
            raise OrderkitError(f"{found.complaint}. Nothing was written. Mend it, or leave it out with --skip-bad.")
        if self._ended.is_set() or not found.letters:
            return Imported(found, {}, stopped=self._ended.is_set())
        targets = check_targets(self._connection, found, self.to, self.by_key)
        check_kept(self._connection, found, self.to)
        digest = hashlib.sha256(f"{found.digest} {self.to} {self.by_key}".encode()).hexdigest()
        report = Imported(found, targets, self._group or f"orderkit-import-{digest[:16]}")
        with Bookmark(self._connection, report.group, targets) as bookmark:
            if bookmark.is_new and self.to is None:
                check_still_there(self._connection, found, targets)
            report.before = report.done = 0 if self._again else min(bookmark.done, found.end)
        return report

    def run(self, looked: Imported, watch: Callable[[Imported], object] = lambda _: None) -> Imported:
        """Write what `look` has found; each letter is acknowledged before it counts.

        Args:
            looked: what it gave; it is filled, and given back.
            watch: told now and then how far it is.

        Raises:
            OrderkitError: the broker refuses a letter, and its line is named, or it does not answer.
        """
        start = time.monotonic()
        with Bookmark(self._connection, looked.group, looked.targets) as bookmark:
            if bookmark.is_new or self._again:
                bookmark.begin()
            shipper = Shipper(self._connection, bookmark, self.to, self.by_key, self._refused(looked))
            try:
                with calm_collector():
                    for portion in self.source.portions(looked.before):
                        if self._ended.is_set():
                            break
                        shipper.send(portion)
                        looked.done, looked.seconds = bookmark.done, time.monotonic() - start
                        watch(looked)
                    shipper.finish()
            except OSError as error:
                raise OrderkitError(f"{self.source.name} cannot be read: {error.strerror or error}.") from None
            finally:
                shipper.close()
            looked.done, looked.seconds = bookmark.done, time.monotonic() - start
        looked.written, looked.again, looked.stopped = shipper.written, shipper.again, self._ended.is_set()
        return looked

    def _refused(self, looked: Imported) -> Callable[[int, str], OrderkitError]:
        unit, name = self.source.unit, self.source.name
        return lambda number, told: OrderkitError(
            f"{name}: {unit} {number} could not be written: {told}. What was written is noted: mend the cause and "
            f"run the same command again; or mend the {unit}, and add --group {looked.group}."
        )


def open_letters(path: str | Path, values: Values | None = None) -> LetterSource:
    """Open a file of dead letters, Parquet or JSON lines, by what its name ends in.

    Args:
        path: the file.
        values: reads edited values; by default the kit's own orders, JSON and text.

    Raises:
        UsageError: it is not there, or is no file; or it is no export.
        OrderkitError: it cannot be read, or pyarrow is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path} is not there. `orderkit dlq export {path}` writes such a file.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder. Name a file that `orderkit dlq export` wrote.")
    try:
        return (LetterTable if is_parquet(path) else LetterLines)(path, values or Values())
    except OSError as error:
        raise OrderkitError(f"{path} cannot be read: {error.strerror or error}.") from None


def write_letters(
    connection: Connection,
    frame: pd.DataFrame,
    to: str | None = None,
    *,
    by_key: bool = False,
    skip_bad: bool = False,
    again: bool = False,
    values: Values | None = None,
) -> Imported:
    """Write the dead letters of a frame, as `letters_frame` gives it, to a topic; edited values as those of a file.

    Args:
        connection: the cluster.
        frame: the letters.
        to: the topic for all; by default each goes to where it lay, unless it lies there still.
        by_key: choose partitions by key; by default each goes to the partition where it lay.
        skip_bad: leave out rows that are no letters.
        again: write all; by default a frame with the same contents goes on where it was, and is written once.
        values: reads values that are given in a form; by default the kit's own orders, JSON and text.

    Raises:
        UsageError: columns are missing, or the letters find no place.
        OrderkitError: a row is no letter, a topic is missing, or the broker refuses a letter.
    """
    job = Import(connection, LetterFrame(frame, values), to=to, by_key=by_key, skip_bad=skip_bad, again=again)
    looked = job.look()
    return job.run(looked) if looked.found.letters else looked
