"""A schema registry: knows which schema an id in Confluent's framing stands for."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import fastavro

from orderkit.errors import OrderkitError, UsageError
from orderkit.orders.schemas import Schema, parse, resolved
from orderkit.retry import Poison

TIMEOUT = 5  # seconds for one answer; the client asks four times, and waits in between


class Registry:
    """A registry with Confluent's interface, asked once for each id.

    Args:
        url: where it is, `http://user:password@host:port` for one that asks for both.

    Raises:
        UsageError: that is no address.
        OrderkitError: the client's libraries are an extra, and are not installed.
    """

    def __init__(self, url: str) -> None:
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient, SchemaRegistryError  # noqa: PLC0415
        except ImportError:
            told = '--schema-registry needs the extra `registry`: pip install "orderkit[registry]".'
            raise OrderkitError(told) from None
        try:
            self._client: Any = SchemaRegistryClient({"url": url, "timeout": TIMEOUT})
            self.place = urlsplit(url).netloc.rpartition("@")[2]  # without a password
            if not urlsplit(url).hostname or urlsplit(url).port == 0:
                raise ValueError(f"{url!r} names no host")
        except ValueError as error:
            raise UsageError(f"--schema-registry: {error}. Write it as in http://localhost:8081.") from None
        self._url, self._refused = url, SchemaRegistryError

    def __reduce__(self) -> tuple[type[Registry], tuple[str]]:
        return Registry, (self._url,)  # another process has connections of its own

    def schema(self, number: int, *, any_type: bool = False) -> Schema:
        """Give the schema with this id.

        Args:
            number: the id.
            any_type: it need not describe a record.

        Raises:
            Poison: the registry does not know it, or it describes no record in Avro.
            OrderkitError: the registry does not answer, which no order is to blame for.
        """
        try:
            found = self._client.get_schema(number)
            if found.schema_type != "AVRO":
                raise Poison(f"schema id {number} is {found.schema_type}, not Avro")
            return parse(found.schema_str, f"schema id {number}", self._types(found), any_type=any_type)
        except ValueError as error:
            raise Poison(f"schema id {number} cannot be used: {error}") from None
        except Poison:
            raise
        except Exception as error:
            if isinstance(error, self._refused) and error.http_status_code == 404:
                raise Poison(f"schema id {number} is not known to the registry at {self.place}") from None
            raise OrderkitError(
                f"The schema registry at {self.place} does not answer for id {number}: "
                f"{' '.join(str(error).split()) or type(error).__name__}. Check --schema-registry, and start again."
            ) from None

    def _types(self, schema: Any) -> dict[str, Any]:
        """Read the named types that a schema takes from others, by full name."""
        names: dict[str, Any] = {}
        for each in schema.references or ():
            other = self._client.get_version(each.subject, each.version).schema
            names |= self._types(other)
            fastavro.parse_schema(resolved(json.loads(other.schema_str)), names)
        return names
