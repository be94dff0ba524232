"""Whether what was written with one schema can be read with another (Avro specification, "Schema Resolution").

fastavro does it, order by order. This says beforehand, and by the name of the field, what would never work.
"""

from __future__ import annotations

from typing import Any

RULE = 'Avro specification, "Schema Resolution"'
PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}
NAMED = {"record", "error", "enum", "fixed"}
Names = dict[str, Any]


def unqualified(name: str) -> str:
    """Give a name without its namespace."""
    return name.rpartition(".")[2]


def mismatch(writer: Any, reader: Any, writers: Names | None = None, readers: Names | None = None) -> str:
    """Say why values of one type can never be read as another; nothing where they can, or some of them.

    Args:
        writer: the type they were written with, parsed.
        reader: the type to read them as, parsed.
        writers: the writer's named types, by full name.
        readers: the reader's.
    """
    try:
        return _Match(writers or {}, readers or {}).why(writer, reader)
    except RecursionError:
        return "the types are nested too deeply to be compared"


class _Match:
    """Compares types; a pair that is being compared further up is taken to fit, so types may contain themselves."""

    def __init__(self, writers: Names, readers: Names) -> None:
        self._writers, self._readers = writers, readers
        self._open: set[tuple[str, str]] = set()

    def why(self, writer: Any, reader: Any) -> str:
        if isinstance(writer, list):  # which branch it is, only an order tells
            reasons = [self.why(each, reader) for each in writer]
            return "" if "" in reasons else next(iter(reasons), "an empty union has no values")
        if isinstance(reader, list):
            fits = any(not self.why(writer, each) for each in reader)
            return "" if fits else f"{_kind(writer)} is no type of the reader's union ({RULE})"
        writer = self._writers.get(writer, writer) if isinstance(writer, str) else writer
        reader = self._readers.get(reader, reader) if isinstance(reader, str) else reader
        kinds = _kind(writer), _kind(reader)
        if kinds[0] == kinds[1]:
            return self._same_kind(kinds[0], writer, reader)
        if kinds[1] in PROMOTIONS.get(kinds[0], ()):
            return ""
        return f"{kinds[0]} does not promote to {kinds[1]} ({RULE})"

    def _same_kind(self, kind: str, writer: Any, reader: Any) -> str:
        if kind in ("array", "map"):
            part = "items" if kind == "array" else "values"
            return self.why(writer[part], reader[part])
        if kind not in NAMED:
            return ""
        known = {unqualified(name) for name in (reader["name"], *reader.get("aliases", ()))}
        if unqualified(writer["name"]) not in known:
            return f"{kind} {writer['name']!r} is not {reader['name']!r}, nor an alias of it ({RULE})"
        if kind == "fixed" and writer["size"] != reader["size"]:
            return f"fixed {writer['name']!r} has {writer['size']} bytes, and not {reader['size']} ({RULE})"
        pair = writer["name"], reader["name"]
        if kind in ("enum", "fixed") or pair in self._open:
            return ""
        self._open.add(pair)
        try:
            return self.fields(writer["fields"], reader["fields"])
        finally:
            self._open.discard(pair)

    def fields(self, writer: list[Any], reader: list[Any]) -> str:
        found = {each["name"]: each["type"] for each in writer}
        for each in reader:
            name = next((name for name in (each["name"], *each.get("aliases", ())) if name in found), None)
            if name is None and "default" not in each:
                return f"field {each['name']!r} is not there, and has no default for the reader ({RULE})"
            if name is not None and (why := self.why(found[name], each["type"])):
                return f"field {name!r}: {why}"
        return ""


def _kind(schema: Any) -> str:
    return str(schema["type"] if isinstance(schema, dict) else schema)
