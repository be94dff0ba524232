"""Files that grow by chunks of events: CSV, and a folder of Parquet. What a crash leaves can be read, and continued."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from orderkit.errors import OrderkitError, UsageError

COLUMNS = (
    "run", "seq", "at", "topic", "partition", "offset", "order_id", "price", "attempt", "fate", "wait", "reason",
    "error",
)  # fmt: skip
BLOCK = 65_536  # bytes read at once in search of a file's last whole line

Columns = Sequence[Sequence[object]]


class Sink(Protocol):
    """Where chunks of events go."""

    chunk: int  # events that are worth a write
    every: float  # seconds after which fewer are written, too

    def write(self, columns: Columns) -> None:
        """Write events so that they stay, whatever happens next; the columns are those of `COLUMNS`."""

    def close(self) -> None:
        """End the file."""


class CsvFile:
    """One line an event, and a line with the names on top. A file that is there already is continued.

    Args:
        path: the file, of one consumer at a time.

    Raises:
        UsageError: it holds something else.
    """

    chunk = 10_000
    every = 1.0

    def __init__(self, path: Path) -> None:
        header = ",".join(COLUMNS).encode() + b"\n"
        with path.open("ab+") as file:
            file.seek(0)
            if (first := file.readline()) and first != header:
                raise UsageError(f"--ledger {path}: this file is no ledger. Name another one.")
            if first:
                file.truncate(_end_of_last_line(file))
            else:
                file.write(header)
        self._file = path.open("a", newline="", encoding="utf-8", errors="backslashreplace")
        self._rows = csv.writer(self._file, lineterminator="\n")

    def write(self, columns: Columns) -> None:
        """Write events, and hand them to the operating system."""
        named = dict(zip(COLUMNS, columns, strict=True))
        named["price"] = ["" if price != price else price for price in named["price"]]  # noqa: PLR0124  NaN
        for name in ("order_id", "error"):
            named[name] = [_one_line(text) if isinstance(text, str) else None for text in named[name]]
        self._rows.writerows(zip(*named.values(), strict=True))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _one_line(text: str) -> str:
    """Keep a text in its line, so that a line a crash left half written can be told from a whole one."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _end_of_last_line(file: BinaryIO) -> int:
    """Give the length of a file without a last line that lacks its end."""
    end = file.seek(0, 2)
    while end:
        start = max(0, end - BLOCK)
        file.seek(start)
        if (at := file.read(end - start).rfind(b"\n")) >= 0:
            return start + at + 1
        end = start
    return 0


class ParquetFolder:
    """A folder of Parquet files, each of them whole: a crash costs the last chunk, and never what was written.

    `pandas.read_parquet` and others read the folder as one table. Several consumers may share it, and later ones
    continue it.

    Args:
        path: the folder.

    Raises:
        OrderkitError: pyarrow is not installed.
        UsageError: there is a file of that name.
    """

    chunk = 50_000
    every = 60.0

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415  only for those who want Parquet
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ImportError:
            raise OrderkitError(
                'Parquet needs the extra `lab`: pip install "orderkit[lab]". Or name a file that ends in .csv.'
            ) from None
        if path.is_file():
            raise UsageError(f"--ledger {path}: a folder is made there, and a file has that name. Name another one.")
        path.mkdir(parents=True, exist_ok=True)
        self._folder = path
        self._name = f"{datetime.now(UTC):%Y%m%dT%H%M%S_%f}-{uuid.uuid4().hex[:8]}"  # its own, and in order
        self._files = 0
        self._pa, self._write_table = pa, pq.write_table
        kinds = {"at": pa.float64(), "price": pa.float64(), "wait": pa.float64(), "seq": pa.int64()}
        kinds |= {"partition": pa.int32(), "offset": pa.int64(), "attempt": pa.int32()}
        self._schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])

    def write(self, columns: Columns) -> None:
        """Write one more file; it has its name when it is whole."""
        arrays = [
            self._pa.array(column, field.type, from_pandas=True)  # NaN becomes null
            for column, field in zip(columns, self._schema, strict=True)
        ]
        draft = self._folder / f".{self._name}"  # a name that readers pass over
        self._write_table(self._pa.table(arrays, schema=self._schema), draft)
        draft.rename(self._folder / f"{self._name}-{self._files:05d}.parquet")
        self._files += 1

    def close(self) -> None:
        """Nothing is open."""


SINKS: dict[str, Callable[[Path], Sink]] = {".csv": CsvFile, ".parquet": ParquetFolder}


def open_sink(path: Path) -> Sink:
    """Open a file by what its name ends in.

    Raises:
        UsageError: by its name it is neither CSV nor Parquet, or it holds something else.
        OrderkitError: it cannot be written.
    """
    if path.suffix.lower() not in SINKS:
        raise UsageError(f"--ledger {path}: the name must end in {' or '.join(SINKS)}.")
    try:
        return SINKS[path.suffix.lower()](path)
    except OSError as error:
        raise OrderkitError(f"--ledger {path} cannot be written: {error.strerror}.") from None
