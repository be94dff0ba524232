"""The edit hook of a replay: somebody's function that mends values on their way back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from orderkit.dead_letters.payload import Payload
from orderkit.dead_letters.reader import DeadLetterRecord
from orderkit.errors import UsageError
from orderkit.letter_files.values import Values
from orderkit.orders.avro import CONFLUENT, CONFLUENT_SIZE, SINGLE, Codec
from orderkit.orders.order import Order
from orderkit.retry import Failure

# Takes what the value says (an order, another record's fields, JSON; None where it says nothing of the kind) and the
# dead letter; gives it mended, or its bytes, or None to leave the dead letter where it is.
Transform = Callable[[Any, DeadLetterRecord], Any]

FORMS = ("avro", "json")  # what is no order and can be written all the same


class Unmended(Exception):
    """A transform raised, or gave what is no order: the dead letter stays in place."""


def load_transform(name: str) -> Transform:
    """Import a transform by `module:function`; modules of the current folder are found, too.

    Raises:
        UsageError: there is no such function.
    """
    module, colon, function = name.partition(":")
    if not (colon and module and function):
        raise UsageError(f"--transform {name!r}: write MODULE:FUNCTION, as in mending:add_price.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever somebody's module raises while it is imported
        raise UsageError(f"--transform {name}: {type(error).__name__}: {error}.") from None
    if not callable(found):
        raise UsageError(f"--transform {name}: that is no function.")
    return cast(Transform, found)


class Mender:
    """Applies a transform to values.

    Args:
        transform: the function.
        schema: an Avro schema file of orders; `None` for the kit's own.
        reader: what the orders were read with, where others than `schema` may have written them.
        values: writes what is no order, in the wire format that it had.
    """

    def __init__(
        self,
        transform: Transform,
        schema: str | Path | None = None,
        reader: Codec | None = None,
        values: Values | None = None,
    ) -> None:
        self._transform = transform
        self._schema = schema
        self._reader = reader or Codec(schema=schema)
        self._values = values or Values()
        self._codecs: dict[tuple[str, int], Codec] = {}

    def mend(self, letter: DeadLetterRecord, payload: Payload | None) -> bytes | None:
        """Give the new value of a dead letter, or `None` to leave it where it is.

        Args:
            letter: the dead letter.
            payload: what its value says.

        Raises:
            Unmended: the transform raised, or gave what cannot be written.
        """
        said = payload.data if payload and isinstance(payload.data, dict | list) else None
        try:
            mended: Any = self._transform(deepcopy(said), letter)
            if mended is None or isinstance(mended, bytes):
                return mended
            if payload and payload.kind in FORMS and not payload.why:
                return self._values.read({payload.kind: mended}, letter.value)
            return self._order(mended, letter.value or b"", readable=said is not None)
        except Exception as error:  # whatever somebody's function raises
            raise Unmended(f"{letter.place}: {type(error).__name__}: {error}") from error

    def _order(self, mended: Any, before: bytes, *, readable: bool) -> bytes:
        if not isinstance(mended, Mapping):
            raise TypeError(f"the transform gave a {type(mended).__name__}, not an order, bytes or None")
        codec = self._codec_for(before, readable)
        value = codec.encode(cast(Order, mended))
        self._check(value, codec)
        return value

    def _check(self, value: bytes, codec: Codec) -> None:
        """Refuse an order that makes no sense, or that would be read with another schema than it was written with."""
        meant = codec.decode(value)
        with suppress(Failure):
            if self._reader.decode(value) == meant:
                return
        raise ValueError("its wire format does not say which schema wrote it, and another would be taken; give bytes")

    def _codec_for(self, before: bytes, readable: bool) -> Codec:
        """Give the codec that writes the wire format which the value had, if it had one."""
        wire, number = "single", 1
        if before.startswith(CONFLUENT) and len(before) >= CONFLUENT_SIZE:
            wire, number = "confluent", int.from_bytes(before[1:CONFLUENT_SIZE], "big")
        elif readable and not before.startswith(SINGLE):
            wire = "raw"
        if (wire, number) not in self._codecs:
            self._codecs[wire, number] = Codec(wire, self._schema, number)
        return self._codecs[wire, number]
