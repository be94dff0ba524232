"""What a dead letter's value says, whatever system wrote it: an order, any Avro record, JSON, text, or bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro

from orderkit.errors import UsageError
from orderkit.orders.avro import Codec, without_frames
from orderkit.orders.registry import Registry
from orderkit.orders.schemas import SINGLE, Schema, read_order_schema, read_schema
from orderkit.orders.writers import CONFLUENT, CONFLUENT_SIZE, SINGLE_SIZE
from orderkit.retry import Failure, Permanent, Poison

JSON_BEGINS = (b"{", b"[")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # no text has these
AT_BYTE = re.compile(r"\(at byte (\d+)")


@dataclass(frozen=True, slots=True)
class Payload:
    """What a value says.

    Args:
        kind: `order`, `avro` (what another schema describes), `json`, `text`, `bytes`, `empty` or `tombstone`.
        data: a record's fields, another Avro value, a JSON value, or a text; `None` for the other kinds.
        why: it is no record, or makes no sense as an order; "" where nothing is wrong.
        schema: of an Avro value: its full name, or its type.
    """

    kind: str
    data: Any = None
    why: str = ""
    schema: str = ""

    @property
    def fields(self) -> dict[str, Any] | None:
        """The fields of a record or a JSON object, by name."""
        return self.data if isinstance(self.data, dict) else None

    @property
    def order(self) -> dict[str, Any] | None:
        """The order, if it is one."""
        return self.data if self.kind == "order" else None

    @property
    def at(self) -> int | None:
        """The byte at which reading ended, if it did."""
        found = AT_BYTE.search(self.why)
        return int(found[1]) if found else None


class PayloadReader:
    """Reads values of any kind.

    Args:
        schema: an Avro schema file; of orders, or of any other values, which are then looked for first.
        writers: schema files that values may have been written with, too.
        registry: knows the schemas behind the ids in Confluent's framing.
        codec: reads orders; instead of the other three.

    Raises:
        UsageError: an unusable schema file, or a writer of orders that `schema` can never read.
    """

    def __init__(
        self,
        schema: str | Path | None = None,
        writers: Iterable[str | Path] = (),
        registry: Registry | None = None,
        codec: Codec | None = None,
    ) -> None:
        self._given: list[Schema] = []
        self._registry, self._numbered = registry, dict[int, Schema | str]()
        if codec is None and not _is_of_orders(schema):
            self._given = [read_schema(path, any_type=True) for path in (schema, *writers)]
            schema, writers = None, ()
        self.codec = codec or Codec(schema=schema, writers=writers, registry=registry)
        self.order_schema = schema  # the file; `None` for the kit's own
        self._orders = None if codec else read_order_schema(schema)

    def read(self, value: bytes | None) -> Payload:
        """Say what a value says."""
        return self.read_batch([value])[0]

    def read_batch(self, values: Sequence[bytes | None]) -> list[Payload]:
        """Say what each of some values says.

        Raises:
            OrderkitError: the registry does not answer.
        """
        if self._given:
            return [self._as_given(value) for value in values]
        return [
            self._otherwise(value, order) if isinstance(order, Failure) else Payload("order", order)
            for value, order in zip(values, self.codec.decode_batch(values), strict=True)
        ]

    def _as_given(self, value: bytes | None) -> Payload:
        """Read a value with the schemas that were given, if it names none that a registry knows."""
        failures: list[Failure] = []
        for schema in self._given if value else ():
            for start in _starts(value or b"", schema):
                try:
                    return Payload("avro", _record(value or b"", start, schema), schema=schema.name)
                except Poison as poison:
                    failures.append(without_frames(poison))
        (order,) = self.codec.decode_batch([value])
        if not isinstance(order, Failure):
            return Payload("order", order)
        return self._otherwise(value, failures[0] if failures else order)

    def _otherwise(self, value: bytes | None, failure: Failure) -> Payload:
        """Read a value that is no order, for this reason."""
        if not value:
            return Payload("tombstone" if value is None else "empty", why=str(failure))
        try:
            if isinstance(failure, Permanent) and self._orders:  # read well, and of no sense: its fields say more
                data = _record(value, _starts(value, self._orders)[0], self._orders)
                return Payload("avro", data, str(failure), self._orders.name)
            if (schema := self._registered(value)) is not None:
                return Payload("avro", _record(value, CONFLUENT_SIZE, schema), schema=schema.name)
        except Poison as poison:
            failure = without_frames(poison)
        return _as_text(value, failure)

    def _registered(self, value: bytes) -> Schema | None:
        """Give the schema that a value names by its id, if there is somebody to ask.

        Raises:
            Poison: it leads to none.
        """
        if self._registry is None or len(value) < CONFLUENT_SIZE or not value.startswith(CONFLUENT):
            return None
        number = int.from_bytes(value[1:CONFLUENT_SIZE], "big")
        if number not in self._numbered:
            try:
                self._numbered[number] = self._registry.schema(number, any_type=True)
            except Poison as poison:
                self._numbered[number] = str(poison)
        found = self._numbered[number]
        if isinstance(found, str):
            raise Poison(found)
        return found


def reader_of(reader: PayloadReader | Codec | None) -> PayloadReader:
    """Give a reader of any payload, whose orders a codec reads if one is given."""
    return reader if isinstance(reader, PayloadReader) else PayloadReader(codec=reader)


def _is_of_orders(path: str | Path | None) -> bool:
    if path is None:
        return True
    read_schema(path, any_type=True)  # a broken one is refused
    try:
        read_order_schema(path)
    except UsageError:
        return False
    return True


def _starts(value: bytes, schema: Schema) -> Sequence[int]:
    """Say where a record may begin that was written with a schema; nowhere if the value names another one."""
    if value.startswith(SINGLE):
        return [SINGLE_SIZE] if value.startswith(schema.mark) else []
    return [CONFLUENT_SIZE, 0] if value.startswith(CONFLUENT) else [0]


def _record(value: bytes, start: int, schema: Schema) -> Any:
    """Read a record that takes all bytes from `start`.

    Raises:
        Poison: there is none; says why, and at which byte.
    """
    source = BytesIO(value)
    source.seek(start)
    what = f"no {schema.name}"
    try:
        record = fastavro.schemaless_reader(source, schema.parsed, None)
    except Exception as error:  # whatever fastavro runs into, the bytes are to blame
        why = str(error).partition(" from <")[0] or "the bytes end too early"
        at = min(source.tell(), len(value))
        raise Poison(f"{what}: {why} (at byte {at} of {len(value)})") from None
    if left := len(value) - source.tell():
        raise Poison(f"{what}: {left} bytes left over (at byte {source.tell()} of {len(value)})")
    return record


def _as_text(value: bytes, failure: Failure) -> Payload:
    """Read a value as JSON, else as text, else leave it as bytes."""
    start = CONFLUENT_SIZE if value.startswith(CONFLUENT) else 0  # a registry has JSON schemas, too
    why, begins = str(failure), value[start : start + 100].lstrip().startswith(JSON_BEGINS)
    is_json = begins and not start  # or should be, if anything
    try:
        text = value[start:].decode()
    except UnicodeDecodeError as error:
        return Payload("bytes", why=f"no JSON: no UTF-8 {_at(error.start, value)}" if is_json else why)
    if begins or text.startswith('"'):
        try:
            return Payload("json", json.loads(text, parse_constant=str))
        except json.JSONDecodeError as error:
            why = f"no JSON: {error.msg} {_at(len(text[: error.pos].encode()), value)}" if is_json else why
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits, or 5,000 brackets
            why = f"no JSON that can be read: {str(error).partition(';')[0]}" if is_json else why
    if start or CONTROL.search(text):
        return Payload("bytes", why=why)
    return Payload("text", text, why)


def _at(byte: int, value: bytes) -> str:
    return f"(at byte {byte} of {len(value)})"


def plain(data: Any) -> Any:
    """Give data as JSON has them: bytes are text, a code point for each, as in Avro's own JSON; no NaN."""
    if isinstance(data, bytes):
        return data.decode("latin-1")
    if isinstance(data, float):
        return data if math.isfinite(data) else str(data)
    if isinstance(data, dict):
        return {str(name): plain(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    return data if data is None or isinstance(data, (str, int)) else str(data)
