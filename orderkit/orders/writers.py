"""Who wrote an order: the schemas that bytes may have been written with, and how a reader's schema reads each of them.

Avro's single-object encoding names its writer by a fingerprint, Confluent's framing by an id that a schema registry
knows. Raw bytes name nobody, nor does an id without a registry: they are tried with each writer in turn, and the first
that makes an order of all the bytes has written them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro

from orderkit.errors import UsageError
from orderkit.orders.order import Order, as_float32
from orderkit.orders.registry import Registry
from orderkit.orders.resolution import mismatch
from orderkit.orders.schemas import SINGLE, Schema, read_schema
from orderkit.retry import Poison

CONFLUENT = b"\x00"
CONFLUENT_SIZE = 5
SINGLE_SIZE = 10


@dataclass(frozen=True)
class Writer:
    """One schema that orders were written with.

    Args:
        schema: it, parsed, its fields under the names that the reader has for them.
        reader: the reader's schema, parsed; `None` where it is the same.
        is_plain: laid out as the kit's own, and read as such.
        fresh: fields whose default is a list or a map, of which each order is to have its own.
    """

    schema: Any
    reader: Any = None
    is_plain: bool = False
    fresh: Sequence[str] = ()

    @property
    def is_odd(self) -> bool:
        """Whether an order does not begin with its id."""
        first = self.schema["fields"][0]
        return first["name"] != "orderId" or first["type"] not in ("string", "bytes")

    def settle(self, order: Order) -> None:
        """Finish an order that was read with another schema."""
        order["price"] = as_float32(order["price"])  # an int or a long becomes a float of 32 bits, as in Java
        read: Any = order
        for name in self.fresh:
            read[name] = deepcopy(read[name])


class Writers:
    """All schemas that orders may have been written with.

    Args:
        own: the reader's schema.
        paths: schema files of other writers.
        registry: knows the schemas of Confluent's framing.

    Raises:
        UsageError: a file cannot be used, or `own` can never read what it describes.
    """

    def __init__(self, own: Schema, paths: Iterable[str | Path] = (), registry: Registry | None = None) -> None:
        self._own, self.registry = own, registry
        self._known: dict[bytes, Writer | str] = {}
        self._numbered: dict[int, Writer | str] = {}
        for schema in map(read_schema, paths):
            if isinstance(why := self._add(schema), str):
                raise UsageError(f"{schema.told} cannot be read with {own.told}: {why}.")
        for schema in (own, read_schema()):
            self._add(schema)
        nameless = [each for each in self._known.values() if isinstance(each, Writer)]
        self._raw = [(0, each) for each in nameless]
        # A raw order that does not begin with its id may begin with a 0, too.
        self._framed = [(CONFLUENT_SIZE, each) for each in nameless] + [(0, each) for each in nameless if each.is_odd]

    def _add(self, schema: Schema) -> Writer | str:
        if schema.mark not in self._known:
            self._known[schema.mark] = self._resolve(schema)
        return self._known[schema.mark]

    def _resolve(self, schema: Schema) -> Writer | str:
        """Give a schema as the reader reads it, or why it never can."""
        own = self._own
        if schema.mark == own.mark:
            return Writer(own.parsed, is_plain=own.is_plain)
        fields = _as_named(schema.source["fields"], own.source["fields"])
        names = dict(schema.outside)
        parsed: Any = fastavro.parse_schema({**schema.source, "fields": fields}, names)
        if why := mismatch(parsed, own.parsed, names, own.names):
            return why
        is_plain = own.is_plain and schema.is_plain
        fresh = [each["name"] for each in own.parsed["fields"] if isinstance(each.get("default"), (list, dict))]
        return Writer(parsed, own.parsed, is_plain, fresh)

    def readings(self, value: bytes) -> Sequence[tuple[int, Writer]]:
        """Give who may have written these bytes, each with where the order then starts, in the order in which to try.

        Raises:
            Poison: the bytes name a writer that is not known, or that can never be read.
            OrderkitError: the registry does not answer.
        """
        if value.startswith(SINGLE):
            found = self._known.get(value[:SINGLE_SIZE])
            if found is None:
                told = f"fingerprint {value[2:SINGLE_SIZE].hex()} is not known here; --writer-schema can name it"
                raise Poison(f"written with another schema: {told}")
            return [(SINGLE_SIZE, _readable(found, "written with another schema"))]
        if not value.startswith(CONFLUENT):
            return self._raw
        if self.registry is None or len(value) < CONFLUENT_SIZE:
            return self._framed
        number = int.from_bytes(value[1:CONFLUENT_SIZE], "big")
        if number not in self._numbered:
            self._numbered[number] = self._ask(self.registry, number)
        return [(CONFLUENT_SIZE, _readable(self._numbered[number], f"schema id {number}"))]

    def _ask(self, registry: Registry, number: int) -> Writer | str:
        try:
            return self._resolve(registry.schema(number))
        except Poison as poison:
            return str(poison)


def _readable(found: Writer | str, what: str) -> Writer:
    if isinstance(found, str):
        raise Poison(found if found.startswith(what) else f"{what}: {found}")
    return found


def _as_named(writer: list[dict[str, Any]], reader: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name a writer's fields as the reader does: its aliases are former names (Avro specification, "Aliases")."""
    there, new = {each["name"] for each in writer}, dict[str, str]()
    for each in reader:
        if each["name"] not in there:
            old = next((name for name in each.get("aliases", ()) if name in there and name not in new), None)
            if old is not None:
                new[old] = each["name"]
    return [{**each, "name": new.get(each["name"], each["name"])} for each in writer]
