"""Values as people read and edit them in a file, and back as bytes: whatever they are, not a bit is lost.

A value is shown in the first form of these that gives its very bytes again:

    null                    the record has no value
    {"avro": {...}}         a record of a known schema, or another value, framed in one of the three wire formats
    {"json": {...}}         an object or a list in JSON, as its writer spaces it
    "..."                   any other text, UTF-8
    {"base64": "..."}       everything else
"""

from __future__ import annotations

from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
from fastavro.validation import validate

from orderkit.letter_files.texts import BASE64, STYLES, compact, loads, read_bytes, rewritten, short, show_bytes
from orderkit.orders.avro import CONFLUENT, CONFLUENT_SIZE, SINGLE, Codec
from orderkit.orders.registry import Registry
from orderkit.orders.schemas import Schema, read_schema
from orderkit.orders.writers import SINGLE_SIZE
from orderkit.retry import Poison


class Values:
    """Shows values, and reads what became of them.

    Args:
        schema: an Avro schema file, of any type; `None` for the kit's own order.
        writers: further ones that values may have been written with.
        registry: knows the schemas behind the ids in Confluent's framing.

    Raises:
        UsageError: a schema file that cannot be used.
    """

    def __init__(
        self, schema: str | Path | None = None, writers: Sequence[str | Path] = (), registry: Registry | None = None
    ) -> None:
        self._schemas = [read_schema(path, any_type=True) for path in (schema, *writers)]
        self._registry = registry
        self._numbered: dict[int, Schema | None] = {}
        own = self._schemas[0]
        self._orders = Codec("raw") if schema is None else None  # reads the kit's own orders, all of a batch at once
        self._mark = own.mark

    def show(self, values: Sequence[bytes | None]) -> list[Any]:
        """Show values.

        Raises:
            OrderkitError: the registry does not answer.
        """
        if self._orders is not None and values and None not in values and (shown := self._show_orders(values)):
            return shown
        return [self._show(value) for value in values]

    def _show_orders(self, values: Sequence[Any]) -> list[Any] | None:
        """Show a batch that is nothing but the kit's own orders, as most are; else `None`."""
        bodies = self._bodies(self._orders.decode_batch(values)) if self._orders else None
        if bodies is None or not all(map(self._is_framed, values, bodies[1])):
            return None
        return [{"avro": order} for order in bodies[0]]

    def _bodies(self, orders: Sequence[Any]) -> tuple[Sequence[Any], list[bytes]] | None:
        if self._orders is None or not all(order.__class__ is dict and len(order) == 3 for order in orders):
            return None
        try:
            return orders, self._orders.encode_batch(orders)
        except Exception:  # whatever somebody wrote into one of them: each is looked at by itself
            return None

    def _is_framed(self, value: bytes, body: bytes) -> bool:
        """Whether a value is this body in one of the three wire formats."""
        size = len(value) - len(body)
        if not value.endswith(body):
            return False
        return not size or (size == SINGLE_SIZE and value.startswith(self._mark)) or _has_id(value, size)

    def _show(self, value: bytes | None) -> Any:
        if value is None:
            return None
        for start, schema in self._readings(value):
            if (record := _decoded(value, start, schema)) is not None:
                return {"avro": record}
        if value[:1] in (b"{", b"["):
            with suppress(ValueError, RecursionError):
                found = loads(value)
                if any(style(found) == value for style in STYLES):
                    return {"json": found}
        return show_bytes(value)

    def _readings(self, value: bytes) -> Iterator[tuple[int, Schema]]:
        """Yield where a record may start in a value, and who may have written it, as its framing says."""
        if value.startswith(SINGLE):
            yield from ((SINGLE_SIZE, each) for each in self._schemas if value.startswith(each.mark))
        elif value.startswith(CONFLUENT) and len(value) >= CONFLUENT_SIZE:
            known = self._known(int.from_bytes(value[1:CONFLUENT_SIZE], "big"))
            yield from ((CONFLUENT_SIZE, each) for each in known)
            if self._orders is not None:
                return  # an order's id is not empty, so no raw one begins with 0
        yield from ((0, each) for each in self._schemas)

    def _known(self, number: int) -> Sequence[Schema]:
        if self._registry is None:
            return self._schemas
        if number not in self._numbered:
            self._numbered[number] = None
            with suppress(Poison):
                self._numbered[number] = self._registry.schema(number, any_type=True)
        found = self._numbered[number]
        return [] if found is None else [found]

    def read_orders(self, shown: Sequence[Any], before: Sequence[bytes | None]) -> bool:
        """Whether a batch is nothing but the kit's own orders, none of them edited: a short way for most batches."""
        if not all(each.__class__ is dict and len(each) == 1 and "avro" in each for each in shown) or None in before:
            return False
        bodies = self._bodies([each["avro"] for each in shown])
        return bodies is not None and all(map(self._is_framed, before, bodies[1]))  # type: ignore[arg-type]

    def read(self, shown: Any, before: bytes | None) -> bytes | None:
        """Give the bytes of a value that was shown, and perhaps edited since: in the wire format that it had.

        Args:
            shown: any of the five forms.
            before: the bytes that it was; they are given back where nothing was edited.

        Raises:
            ValueError: it is none of the forms, or cannot be written so.
            OrderkitError: the registry does not answer.
        """
        if isinstance(shown, Mapping) and list(shown) == ["avro"]:
            return self._encode(shown["avro"], before)
        if isinstance(shown, Mapping) and list(shown) == ["json"]:
            return rewritten(shown["json"], before)
        try:
            return read_bytes(shown)
        except ValueError as error:
            raise ValueError(f"value: {error}; nor {{'avro': ...}} or {{'json': ...}}") from None

    def _encode(self, record: Any, before: bytes | None) -> bytes:
        framing, schema = self._frame(before)
        try:
            body = _encoded(_untagged(record), schema)
            if self._orders is not None and schema is self._schemas[0]:
                self._orders.decode(body)  # an order that makes no sense is none
        except Exception as error:  # whatever somebody wrote into it
            raise ValueError(f"value cannot be written as {schema.name}: {short(error)}") from None
        return framing + body

    def _frame(self, before: bytes | None) -> tuple[bytes, Schema]:
        """Give framing and schema that a value had; one that nobody could read has the first schema from now on."""
        if before:
            for start, schema in self._readings(before):
                if _decoded(before, start, schema) is not None:
                    return before[:start], schema
            if _has_id(before, CONFLUENT_SIZE):
                return before[:CONFLUENT_SIZE], next(iter(self._known(_id(before))), self._schemas[0])
        return self._mark, self._schemas[0]


def _id(value: bytes) -> int:
    return int.from_bytes(value[1:CONFLUENT_SIZE], "big")


def _has_id(value: bytes, size: int) -> bool:
    return size == CONFLUENT_SIZE and len(value) >= size and value.startswith(CONFLUENT)


def _encoded(record: Any, schema: Schema) -> bytes:
    validate(record, schema.parsed, strict=True)
    out = BytesIO()
    fastavro.schemaless_writer(out, schema.parsed, record, strict=True)
    return out.getvalue()


def _decoded(value: bytes, start: int, schema: Schema) -> Any:
    """Read a record as JSON can hold it; `None` unless just these bytes would be written for it again."""
    source = BytesIO(value)
    source.seek(start)
    try:
        shown = _tagged(fastavro.schemaless_reader(source, schema.parsed, None))
        if loads(compact(shown)) == shown and _encoded(_untagged(shown), schema) == value[start:]:
            return shown
    except Exception:  # whatever fastavro runs into, they are not this schema's
        return None
    return None


def _tagged(found: Any) -> Any:
    """Give what Avro has and JSON has not, bytes, as `{"base64": ...}`."""
    if isinstance(found, bytes):
        return {BASE64: b2a_base64(found, newline=False).decode()}
    if isinstance(found, dict):
        return {name: _tagged(each) for name, each in found.items()}
    return [_tagged(each) for each in found] if isinstance(found, list) else found


def _untagged(shown: Any) -> Any:
    if isinstance(shown, dict):
        if list(shown) == [BASE64]:
            return b64decode(shown[BASE64], validate=True)
        return {name: _untagged(each) for name, each in shown.items()}
    return [_untagged(each) for each in shown] if isinstance(shown, list) else shown
