"""Defaults of fields: JSON in a schema, and what Python has for it in an order."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import fastavro

from orderkit.orders.order import as_float32


def as_python(default: Any, kind: Any, names: dict[str, Any]) -> Any:
    """Give a default as fastavro reads a value of its type.

    JSON has bytes as text, a code point for each (Avro specification, "Complex Types", the table of defaults).

    Args:
        default: as it stands in the schema.
        kind: the field's type, parsed.
        names: named types, by full name.

    Raises:
        ValueError: it is of none of a union's types.
    """
    if isinstance(kind, list):
        return _as_branch(default, kind, names)
    kind = names.get(kind, kind) if isinstance(kind, str) else kind
    name = kind["type"] if isinstance(kind, dict) else kind
    if name == "array":
        return [as_python(each, kind["items"], names) for each in default]
    if name == "map":
        return {key: as_python(each, kind["values"], names) for key, each in default.items()}
    if name == "record":
        parts = {each["name"]: default.get(each["name"], each.get("default")) for each in kind["fields"]}
        return {each["name"]: as_python(parts[each["name"]], each["type"], names) for each in kind["fields"]}
    return _as_scalar(default, kind, name)


def _as_scalar(default: Any, kind: Any, name: str) -> Any:
    if name in ("bytes", "fixed"):
        default = default.encode("latin-1") if isinstance(default, str) else default
        if name == "fixed" and len(default) != kind["size"]:
            raise ValueError(f"{default!r} has not {kind['size']} bytes")
    elif name == "enum" and default not in kind["symbols"]:
        raise ValueError(f"{default!r} is no symbol of {kind['name']}")
    elif name == "float":
        return as_float32(default)
    elif name == "double":
        return float(default)
    return default


def _as_branch(default: Any, union: list[Any], names: dict[str, Any]) -> Any:
    """Give the default of a union as the first of its types that it fits."""
    for each in union:
        with suppress(Exception):  # whatever a default is that does not fit
            value = as_python(default, each, names)
            if fastavro.validate(value, names.get(each, each) if isinstance(each, str) else each):
                return value
    raise ValueError(f"{default!r} is of none of the union's types")
