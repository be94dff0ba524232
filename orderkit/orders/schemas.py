"""Avro schemas of orders: read from files, types resolved, each with the fingerprint that stands before its orders."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from orderkit.errors import UsageError
from orderkit.orders.defaults import as_python
from orderkit.orders.resolution import RULE, mismatch, unqualified

FIELDS = {"orderId": "string", "product": "string", "price": "float"}
PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
SINGLE = b"\xc3\x01"
OWN = "the kit's own schema"
LONGEST = 200  # letters of a library's complaint that are passed on


@dataclass(frozen=True)
class Schema:
    """A schema, of records mostly.

    Args:
        told: what to call it in a message.
        source: its JSON, types resolved.
        parsed: the same, as fastavro takes it.
        names: its named types, by full name.
        mark: what stands before its orders in Avro's single-object encoding: C3 01 and the fingerprint.
        outside: the named types that it takes from other schemas.
    """

    told: str
    source: Any
    parsed: Any
    names: dict[str, Any] = field(repr=False)
    mark: bytes
    outside: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Its full name; the type, if it is one that has none."""
        if isinstance(self.parsed, dict):
            return str(self.parsed.get("name") or self.parsed["type"])
        return "union" if isinstance(self.parsed, list) else str(self.parsed)

    @property
    def is_plain(self) -> bool:
        """Whether it is laid out as the kit's own: these fields, in this order."""
        return [(each["name"], each["type"]) for each in self.source["fields"]] == list(FIELDS.items())


def order_schema() -> str:
    """Read the order's schema, as it lies in `schemas/order.avsc` and in the wheel."""
    inside = files("orderkit") / "schemas" / "order.avsc"
    beside = Path(__file__).parents[2] / "schemas" / "order.avsc"
    return inside.read_text("utf-8") if inside.is_file() else beside.read_text("utf-8")


def load_schema(path: str | Path | None = None) -> dict[str, Any]:
    """Read an Avro schema file that describes orders, as JSON with its types resolved.

    Args:
        path: an `.avsc` file; `None` for the kit's own.

    Raises:
        UsageError: as `read_order_schema`.
    """
    source: dict[str, Any] = read_order_schema(path).source
    return source


def read_order_schema(path: str | Path | None = None) -> Schema:
    """Read an Avro schema file to write and read orders with.

    A field that is named otherwise and has an order's field as its alias (Avro specification, "Aliases") is that field.

    Args:
        path: an `.avsc` file; `None` for the kit's own.

    Raises:
        UsageError: the file is missing, broken, or describes something that an order does not fit.
    """
    schema = read_schema(path)
    fields = _renamed(schema.source["fields"])
    kinds = {each["name"]: each["type"] for each in fields}
    for name, kind in FIELDS.items():
        if kinds.get(name) != kind:
            what = (
                _instead(kinds[name], kind)
                if name in kinds
                else f"and is missing; a field that has {name!r} among its aliases will do"
            )
            raise UsageError(f"Schema file {path} is no order schema: field {name!r} must be of type {kind!r} {what}.")
    if extra := [each["name"] for each in fields if each["name"] not in FIELDS and "default" not in each]:
        raise UsageError(f"Schema file {path} is incompatible: new field {extra[0]!r} needs a default ({RULE}).")
    return _order_schema(schema, fields)


def _order_schema(schema: Schema, fields: list[dict[str, Any]]) -> Schema:
    """Parse a schema under the names of an order's fields, with its defaults as Python has them."""
    source, names = {**schema.source, "fields": fields}, dict[str, Any]()
    # Aliases are followed in `orders/writers.py`: fastavro stumbles where a writer has both, the name and the alias.
    bare = [{key: value for key, value in each.items() if key != "aliases"} for each in fields]
    parsed: Any = fastavro.parse_schema({**source, "fields": bare}, names)
    for each in parsed["fields"]:
        if "default" in each:
            try:
                each["default"] = as_python(each["default"], each["type"], names)
            except Exception as error:  # whatever a default may be
                told = f"{type(error).__name__}: {error}"[:LONGEST]
                raise UsageError(f"{schema.told} cannot be used: default of field {each['name']!r}: {told}.") from None
    return Schema(schema.told, source, parsed, names, schema.mark)


def _instead(found: Any, kind: str) -> str:
    """Say what a type is instead, and what to do about it."""
    short = json.dumps(found) if len(json.dumps(found)) < LONGEST else "something else"
    if why := mismatch(found, kind):
        return f"and is {short}: {why}"
    return f"and is {short}; to read orders that were written so, give the file as --writer-schema"


def _renamed(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give fields that have an order's field among their aliases that name; the old one becomes an alias."""
    wanted = set(FIELDS) - {each["name"] for each in fields}
    renamed = []
    for each in fields:
        old = each["name"]
        new = next((name for name in each.get("aliases", ()) if name in wanted and old not in FIELDS), old)
        wanted -= {new}
        renamed.append(each if new == old else {**each, "name": new, "aliases": [*each["aliases"], old]})
    return renamed


def read_schema(path: str | Path | None = None, *, any_type: bool = False) -> Schema:
    """Read an Avro schema file that describes records of any kind.

    Args:
        path: an `.avsc` file, in UTF-8 with or without a byte-order mark; `None` for the kit's own.
        any_type: or other values: a union, an array, a text.

    Raises:
        UsageError: the file is missing or broken, or describes something else.
    """
    told = OWN if path is None else f"Schema file {path}"
    try:
        text = order_schema() if path is None else Path(path).read_text("utf-8-sig")
        return parse(text, told, any_type=any_type)
    except UnicodeDecodeError:
        raise UsageError(f"{told} cannot be used: it is no utf-8 text. Save it in that encoding.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{told} cannot be used: {getattr(error, 'strerror', None) or error}.") from None


def parse(text: str, told: str, named: dict[str, Any] | None = None, *, any_type: bool = False) -> Schema:
    """Parse the JSON of a schema.

    Args:
        text: the JSON.
        told: what to call it in a message.
        named: named types from elsewhere that it refers to.
        any_type: it need not describe a record.

    Raises:
        ValueError: it is broken, or describes no record; the text says why.
    """
    if not text.strip():
        raise ValueError("it is empty")
    try:
        source, names = resolved(json.loads(text)), dict(named or {})
        if _is_record(source) or not any_type:
            _check_record(source)
        parsed: Any = fastavro.parse_schema(source, names)
        _check_fields(source)
        mark = SINGLE + bytes.fromhex(fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # whatever fastavro runs into, the schema is to blame
        what = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ValueError(" ".join(what.split())[:LONGEST]) from None
    return Schema(told, source, parsed, names, mark, named or {})


def _is_record(source: Any) -> bool:
    return isinstance(source, dict) and source.get("type") == "record"


def _check_fields(source: Any) -> None:
    fields = [each["name"] for each in source["fields"]] if _is_record(source) else []
    if twice := {name for name in fields if fields.count(name) > 1}:
        raise ValueError(f"field {min(twice)!r} is there twice")


def _check_record(source: Any) -> None:
    if not _is_record(source):
        what = "a list of schemas" if isinstance(source, list) else "something else"
        raise ValueError(f"it must describe one record, and describes {what}")
    if not all(isinstance(source.get(key, ""), str) for key in ("name", "namespace")) or not source.get("name"):
        raise ValueError("the record needs a name, and its name and namespace must be text")


def resolved(schema: Any) -> Any:
    """Give a schema's JSON with each type in its shortest form, and without what only says how to look at it.

    `{"type": "string", "avro.java.string": "String"}` is `"string"`. A logical type is what it is made of: an
    implementation may leave it at that (Avro specification, "Logical Types"), and JSON has no dates.
    """
    if isinstance(schema, list):
        return [resolved(each) for each in schema]
    if not isinstance(schema, dict) or "type" not in schema:
        return schema
    kind = schema["type"]
    if isinstance(kind, (dict, list)):
        return resolved(kind)
    if kind in PRIMITIVES:
        return kind
    whole = {key: value for key, value in schema.items() if key != "logicalType"}
    if isinstance(whole.get("aliases"), list):  # names are compared without their namespaces
        whole["aliases"] = [unqualified(str(each)) for each in whole["aliases"]]
    for part in ("items", "values"):
        if part in whole:
            whole[part] = resolved(whole[part])
    if isinstance(whole.get("fields"), list):
        whole["fields"] = [_resolved_field(each) for each in whole["fields"]]
    return whole if {"fields", "symbols", "size", "items", "values"} & set(whole) else kind


def _resolved_field(each: Any) -> Any:
    if not isinstance(each, dict) or "type" not in each:
        return each
    named, aliases = each.get("name"), each.get("aliases", [])
    if not (isinstance(aliases, list) and all(isinstance(name, str) for name in (named, *aliases))):
        raise ValueError(f"the name of a field and its aliases must be text: {named!r}, {aliases!r}")
    return {**each, "type": resolved(each["type"])}
