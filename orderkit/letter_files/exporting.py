"""Dead letters into a file: written under another name, and there under its own only when it is whole."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from confluent_kafka import Message

from orderkit.consuming.calm import calm_collector
from orderkit.dead_letters.filters import LetterFilter
from orderkit.dead_letters.payload import PayloadReader
from orderkit.dead_letters.reader import read_batches
from orderkit.dead_letters.story import UNREADABLE, header_list
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.letter_files.choosing import meant
from orderkit.letter_files.lines import to_lines
from orderkit.letter_files.tables import arrow, parquet_schema, to_table
from orderkit.letter_files.values import Values

STDOUT = "-"
PARQUET = (".parquet", ".pq")
GROUP_ROWS, GROUP_BYTES = 50_000, 32_000_000  # of a Parquet row group: whichever comes first


@dataclass
class Exported:
    """What an export did.

    Args:
        topic: the dead-letter topic.
        looked: letters looked at.
        written: letters in the file.
        unreadable: letters left out, because the client gives no headers of which one's name is not UTF-8.
        seconds: how long it took.
    """

    topic: str
    looked: int = 0
    written: int = 0
    unreadable: int = 0
    seconds: float = 0.0

    def add(self, looked: int, written: int) -> Exported:
        """Take in what became of some letters."""
        self.looked += looked
        self.written += written
        return self


def is_parquet(path: str | Path) -> bool:
    """Whether a file is Parquet, by what its name ends in."""
    return Path(path).suffix.lower() in PARQUET


def export_letters(
    connection: Connection,
    topic: str,
    path: str | Path,
    *,
    only: LetterFilter | None = None,
    reader: PayloadReader | None = None,
    values: Values | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    watch: Callable[[Exported], object] = lambda _: None,
) -> Exported:
    """Write the dead letters that a topic holds now into a file, bit for bit, in a stream.

    Args:
        connection: the cluster.
        topic: the dead-letter topic.
        path: `.parquet` for Parquet, anything else for JSON lines; `-` for JSON lines to standard output.
        only: which are meant; by default all.
        reader: reads values for that; by default the kit's own orders, JSON and text.
        values: shows them in JSON lines; by default likewise.
        limit: so many at most.
        overwrite: take the place of a file that is there.
        watch: told now and then how far it is.

    Raises:
        UsageError: there is a file of that name.
        OrderkitError: no such topic, no answer, a full disk, or no pyarrow.
    """
    report, start, most = Exported(topic), time.monotonic(), sys.maxsize if limit is None else limit
    only, reader = only or LetterFilter(), reader or PayloadReader()
    with calm_collector(), _opened(path, overwrite, values or Values()) as write:
        for messages in read_batches(connection, topic):
            chosen = _readable(meant(messages, only, reader), report)[: most - report.written]
            write(chosen)
            watch(report.add(len(messages), len(chosen)))
            if report.written >= most:
                break
    report.seconds = time.monotonic() - start
    return report


def _readable(messages: Sequence[Message], report: Exported) -> Sequence[Message]:
    """Leave out letters whose headers the client cannot give: without them they would not be the same."""
    if not any(UNREADABLE in header_list(message) for message in messages):
        return messages
    good = [message for message in messages if UNREADABLE not in header_list(message)]
    report.unreadable += len(messages) - len(good)
    return good


Write = Callable[[Sequence[Message]], object]


@contextmanager
def _opened(path: str | Path, overwrite: bool, values: Values) -> Iterator[Write]:
    if str(path) == STDOUT:
        out = sys.stdout.buffer
        yield lambda messages: out.write(to_lines(messages, values))
        out.flush()
        return
    with _draft(Path(path), overwrite) as file:
        if is_parquet(path):
            with _parquet(file) as write:
                yield write
        else:
            yield lambda messages: file.write(to_lines(messages, values))


@contextmanager
def _draft(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """Open a file that has its name when it is whole, and is gone when it never is."""
    if path.exists() and (path.is_dir() or not overwrite):
        what = "is a folder. Name a file" if path.is_dir() else "is there already. Name another file, or --overwrite it"
        raise UsageError(f"{path} {what}.")
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise OrderkitError(
            f"{path} cannot be written: {error.strerror or error}. What had that name before is untouched."
        ) from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def _parquet(file: BinaryIO) -> Iterator[Write]:
    """Write row groups of bounded size."""
    pa, pq = arrow()
    with pq.ParquetWriter(file, parquet_schema(pa), compression="zstd") as writer:
        tables: list[Any] = []

        def flush() -> None:
            if tables:
                writer.write_table(pa.concat_tables(tables))
                tables.clear()

        def write(messages: Sequence[Message]) -> None:
            tables.append(to_table(messages, pa))
            if sum(map(len, tables)) >= GROUP_ROWS or sum(table.nbytes for table in tables) >= GROUP_BYTES:
                flush()

        yield write
        flush()
