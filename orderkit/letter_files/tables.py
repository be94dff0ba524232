"""Dead letters as Parquet files; the columns are those of `orderkit.letter_files.columns`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from orderkit.errors import OrderkitError, UsageError
from orderkit.letter_files.columns import PORTION, check_columns, to_columns, to_portion
from orderkit.letter_files.copies import COLUMNS, Portion, check_names
from orderkit.letter_files.texts import short
from orderkit.letter_files.values import Values


def arrow() -> tuple[Any, Any]:
    """Import pyarrow, and its Parquet module.

    Raises:
        OrderkitError: it is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415  only for those who want Parquet
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise OrderkitError(
            'Parquet needs the extra `lab`: pip install "orderkit[lab]". Or name a file that does not end in .parquet.'
        ) from None
    return pa, pq


def parquet_schema(pa: Any) -> Any:
    """Give the schema of a Parquet file of dead letters."""
    header = pa.struct([pa.field("name", pa.string(), nullable=False), pa.field("value", pa.binary())])
    kinds = {"topic": pa.string(), "partition": pa.int32(), "offset": pa.int64(), "timestamp": pa.int64()}
    kinds["headers"] = pa.list_(pa.field("item", header, nullable=False))
    return pa.schema([(name, kinds.get(name, pa.binary())) for name in COLUMNS])


def to_table(messages: Sequence[Message], pa: Any) -> Any:
    """Give dead letters as an Arrow table."""
    columns, schema = to_columns(messages), parquet_schema(pa)
    lists = columns.pop("headers")
    names, contents = zip(*chain.from_iterable(lists), strict=True) if any(lists) else ((), ())
    kind = schema.field("headers").type.value_type
    pairs = pa.StructArray.from_arrays([pa.array(names, pa.string()), pa.array(contents, pa.binary())], fields=kind)
    ends = [0]
    for each in lists:
        ends.append(ends[-1] + len(each))
    arrays = [pa.array(column, schema.field(name).type) for name, column in columns.items()]
    headers = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pairs, type=schema.field("headers").type)
    return pa.table([*arrays, headers], schema=schema)


class LetterTable:
    """A Parquet file.

    Args:
        path: the file.
        values: reads values.

    Raises:
        OrderkitError: pyarrow is not installed, the file is no Parquet, or lacks columns.
    """

    unit = "row"

    def __init__(self, path: Path, values: Values) -> None:
        self.name, self._path, self._values = str(path), path, values
        self._pa, self._pq = arrow()
        with self._open() as file:
            self._names = check_columns(self.name, file.schema_arrow.names)

    def _open(self) -> Any:
        try:
            return self._pq.ParquetFile(self._path, memory_map=False)
        except (self._pa.ArrowInvalid, self._pa.ArrowNotImplementedError) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> OrderkitError:
        return OrderkitError(
            f"{self.name} cannot be read as Parquet ({short(error)}): it was cut off, or is something else. "
            "`orderkit dlq export` writes it anew."
        )

    def digest(self) -> str:
        """Give a text that is another one for other contents."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def portions(self, start: int = 0) -> Iterator[Portion]:
        """Yield the letters of the file, without its first `start` rows.

        Raises:
            OrderkitError: it is broken, or a column is not what it is to be.
        """
        at = 0
        with self._open() as file:
            batches = file.iter_batches(PORTION, columns=self._names, use_threads=False)
            while (batch := self._next(batches)) is not None:
                skipped = min(max(0, start - at), batch.num_rows)
                at += batch.num_rows
                if skipped < batch.num_rows:
                    columns = self._columns(batch.slice(skipped))
                    yield to_portion(columns, at - batch.num_rows + skipped, self._values, checked=True)

    def _next(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches, None)
        except (self._pa.ArrowException, OSError) as error:
            raise self._broken(error) from None

    def _columns(self, batch: Any) -> dict[str, Sequence[Any]]:
        """Take a batch apart; a binary column becomes a list several times as fast by way of numpy."""
        columns: dict[str, Sequence[Any]] = {}
        for field in parquet_schema(self._pa):
            if field.name in self._names:
                try:
                    column = batch.column(field.name).cast(field.type)
                    columns[field.name] = self._pairs(column) if field.name == "headers" else _to_list(column)
                except (self._pa.ArrowException, ValueError, TypeError) as error:
                    raise UsageError(f"{self.name}: column {field.name} is no {field.type}: {short(error)}.") from None
        return columns

    def _pairs(self, column: Any) -> list[Any]:
        """Give each row's headers as pairs; a row without a list is `None`."""
        flat = column.flatten()  # of the rows of this batch alone
        names, contents = flat.field("name").dictionary_encode(), _to_list(flat.field("value"))
        known = names.dictionary.to_pylist()
        check_names(tuple(known))
        pairs = zip(map(known.__getitem__, names.indices.to_pylist()), contents, strict=True)
        sizes = column.value_lengths().to_pylist()
        return [None if size is None else list(islice(pairs, size)) for size in sizes]


def _to_list(column: Any) -> list[Any]:
    if column.type in ("int32", "int64"):
        found: list[Any] = column.to_pylist()
        return found
    return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
