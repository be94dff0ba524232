"""Bytes to orders and back: three wire formats, told apart without a setting.

`single` is Avro's single-object encoding (Avro specification, "Single object encoding"): C3 01, the schema's 8-byte
fingerprint, the body. `raw` is the body alone. `confluent` is 00, a 4-byte schema id, the body. An order's body starts
with the length of its id as a zig-zag varint: C3 would make it negative and 00 would make the id empty, so neither can
be a raw order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import fastavro
from fastavro.read import SchemaResolutionError

from orderkit.errors import check_known
from orderkit.orders.order import Order, check_order
from orderkit.orders.registry import Registry
from orderkit.orders.resolution import RULE
from orderkit.orders.schemas import FIELDS, SINGLE, load_schema, order_schema, read_order_schema
from orderkit.orders.writers import CONFLUENT, CONFLUENT_SIZE, SINGLE_SIZE, Writer, Writers
from orderkit.retry import Failure, Permanent, Poison

__all__ = [
    "CONFLUENT", "CONFLUENT_SIZE", "SINGLE", "WIRES", "Codec",
    "encoded_length", "load_schema", "order_schema", "without_frames", "zigzag",
]  # fmt: skip
WIRES = ("single", "raw", "confluent")
SHORT = 64  # a text of fewer bytes has its length in one byte
SHORT_NAME = frozenset(range(2, 2 * SHORT, 2))  # and that byte is twice the length; an id is not empty


class Codec:
    """Encodes and decodes orders.

    Args:
        wire: the format to write: `single`, `raw` or `confluent`. Reading takes all three.
        schema: an Avro schema file, to write and read with; `None` for the kit's own.
        schema_id: the id to write in Confluent's framing.
        writers: schema files that orders may have been written with, beside `schema` and the kit's own. What they wrote
            is read as `schema` has it (Avro specification, "Schema Resolution").
        registry: knows the writers behind the ids in Confluent's framing. Without one, an id says nothing.

    Raises:
        UsageError: an unknown wire format, an unusable schema file, or a writer that `schema` can never read.
    """

    def __init__(
        self,
        wire: str = "single",
        schema: str | Path | None = None,
        schema_id: int = 1,
        writers: Iterable[str | Path] = (),
        registry: Registry | None = None,
    ) -> None:
        check_known("wire format", wire, WIRES)
        own = read_order_schema(schema)
        self.schema = own.parsed
        self._writers = Writers(own, writers, registry)
        self._prefix = {"single": own.mark, "raw": b"", "confluent": CONFLUENT + schema_id.to_bytes(4, "big")}[wire]
        self._plain = own.is_plain

    def encode(self, order: Order) -> bytes:
        """Give an order's bytes on the wire."""
        out = BytesIO()
        out.write(self._prefix)
        fastavro.schemaless_writer(out, self.schema, order)
        return out.getvalue()

    def encode_batch(self, orders: Sequence[Order]) -> list[bytes]:
        """Give many orders' bytes at once: byte for byte what `encode` gives, four times as fast."""
        if self._plain:
            with suppress(LookupError, TypeError, ValueError, AttributeError, OverflowError, struct.error):
                return self._encode_plainly(orders)
        return [self.encode(order) for order in orders]  # whatever is odd about them, fastavro has the say

    def _encode_plainly(self, orders: Sequence[Order]) -> list[bytes]:
        """Join each order's fields; a text is too long for this when its length takes more than a byte."""
        prefix = self._prefix
        ids = [order["orderId"].encode() for order in orders]
        products = {product: product.encode() for product in set(map(PRODUCT, orders))}
        lengthy = {product: LENGTHS[len(text)] + text for product, text in products.items()}
        prices = struct.pack(f"<{len(orders)}f", *map(PRICE, orders))
        return [
            prefix + LENGTHS[len(name)] + name + lengthy[order["product"]] + prices[at : at + 4]
            for name, order, at in zip(ids, orders, range(0, len(prices), 4), strict=True)
        ]

    def decode(self, value: bytes | None) -> Order:
        """Read one order in any of the three wire formats.

        Raises:
            Poison: the bytes are no order; the message says why, and at which byte.
            Permanent: they are an order that makes no sense.
        """
        whole, readings = self._body(value)
        failures: list[Failure] = []
        for start, writer in readings:
            try:
                return self._read(whole, start, writer)
            except (Poison, Permanent) as failure:
                failures.append(failure)
        raise next((each for each in failures if isinstance(each, Permanent)), failures[0])

    def _read(self, value: bytes, start: int, writer: Writer) -> Order:
        """Read an order that begins at byte `start` of its value."""
        body, size = value[start:], len(value)
        source = BytesIO(body)
        try:
            order: Any = fastavro.schemaless_reader(source, writer.schema, None)
            left = len(body) - source.tell()
            if writer.reader is not None and not left:  # again: fields that it skips, fastavro does not look at
                source.seek(0)
                order = fastavro.schemaless_reader(source, writer.schema, writer.reader)
        except Exception as error:  # whatever fastavro runs into, the bytes are to blame
            at = min(start + source.tell(), size)
            why = str(error).partition(" from <")[0] or "the bytes end too early"
            rule = f", {RULE}" if isinstance(error, SchemaResolutionError) else ""
            raise Poison(f"no order: {why} (at byte {at} of {size}{rule})") from error
        if left:
            raise Poison(f"no order: {left} bytes left over (at byte {start + source.tell()})")
        if writer.reader is not None:
            writer.settle(order)
        check_order(order)
        return order  # type: ignore[no-any-return]

    def _body(self, value: bytes | None) -> tuple[bytes, Sequence[tuple[int, Writer]]]:
        """Give the bytes, and who may have written the order in them, with where it then starts."""
        if not value:
            raise Poison("the record has no value (a tombstone)" if value is None else "the value is empty")
        return value, self._writers.readings(value)

    def decode_batch(self, values: Sequence[bytes | None]) -> list[Order | Failure]:
        """Read many orders at once; what is no order comes back as its `Poison` or `Permanent`, in its place."""
        orders = self._decode_plainly(values)
        return orders if orders is not None else [self._decode_or_failure(value) for value in values]

    def _decode_or_failure(self, value: bytes | None) -> Order | Failure:
        try:
            return self.decode(value)
        except (Poison, Permanent) as failure:
            return without_frames(failure)

    def _decode_plainly(self, values: Sequence[bytes | None]) -> list[Order | Failure] | None:
        """Read orders whose two texts take less than 64 bytes each; `None` when anything at all is odd.

        A body is then: twice the length of the id, the id, twice the length of the product, the product, four bytes of
        price. The product and its length are what the id and the price leave over, and are read once for each product
        of the batch: so each order is exactly its bytes.
        """
        bodies = self._bare_bodies(values)
        if bodies is None:
            return None
        try:
            sizes = set(map(FIRST, bodies))
            if not sizes <= SHORT_NAME:
                return None
            prices = struct.unpack(f"<{len(bodies)}f", b"".join(map(LAST_FOUR, bodies)))
            if len(sizes) == 1:  # ids of one length, as most are: cut all of them in the same place
                end = 1 + (sizes.pop() >> 1)
                names = list(map(itemgetter(slice(1, end)), bodies))
                rests = list(map(itemgetter(slice(end, -4)), bodies))
            else:
                names = [body[1 : 1 + (body[0] >> 1)] for body in bodies]
                rests = [body[1 + (body[0] >> 1) : -4] for body in bodies]
            products = {rest: rest[1:].decode() for rest in set(rests)}
            if any(rest[0] != 2 * (len(rest) - 1) or rest[0] >= 2 * SHORT for rest in products):
                return None
            ids = LINE.join(names).decode().split("\n")
        except (IndexError, UnicodeDecodeError, struct.error):  # the slow way will say which record it was
            return None
        if len(ids) != len(bodies) or min(prices) < 0 or not sum(prices) < float("inf"):
            return None
        columns = zip(ids, map(products.__getitem__, rests), prices, strict=True)
        return [{"orderId": name, "product": product, "price": price} for name, product, price in columns]

    def _bare_bodies(self, values: Sequence[bytes | None]) -> Sequence[bytes] | None:
        """Take the framing off a batch that is all of one wire format; `None` for a mixed or odd one."""
        if not (self._plain and values and all(values)):
            return None
        full = cast(Sequence[bytes], values)
        try:
            if not self._writers.readings(full[0])[0][1].is_plain:
                return None
        except Poison:
            return None
        if full[0].startswith(SINGLE):
            mark, size = full[0][:SINGLE_SIZE], SINGLE_SIZE
        elif full[0].startswith(CONFLUENT):  # with a registry all ids have to be the same
            mark, size = full[0][: CONFLUENT_SIZE if self._writers.registry else len(CONFLUENT)], CONFLUENT_SIZE
        else:
            return full  # a raw one cannot start with either mark: its first byte is the length of an id
        same = set(map(itemgetter(slice(len(mark))), full)) == {mark}
        return list(map(itemgetter(slice(size, None)), full)) if same else None


def without_frames(failure: Failure) -> Failure:
    """Take the tracebacks off a failure and what caused it: they would keep the whole batch alive, in a cycle."""
    for error in (failure, failure.__cause__, failure.__context__):
        if error is not None:
            error.__traceback__ = None
    return failure


FIRST, LAST_FOUR = itemgetter(0), itemgetter(slice(-4, None))
LINE = b"\n"  # stands between ids while they are decoded together; one that has it in itself is read alone
NAME, PRODUCT, PRICE = map(itemgetter, FIELDS)


def zigzag(number: int) -> bytes:
    """Encode a count of 0 or more as Avro's `long` (Avro specification, "Binary encoding")."""
    number <<= 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


LENGTHS = [zigzag(number) for number in range(SHORT)]


def encoded_length(name: str, product: str) -> int:
    """Count the bytes of the shortest body of an order with this id and product."""
    lengths = [len(text.encode()) for text in (name, product)]
    return sum(length + len(zigzag(length)) for length in lengths) + 4
