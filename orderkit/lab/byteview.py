"""An order's bytes as the eye reads them, and what becomes of them when one bit flips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from orderkit.errors import UsageError
from orderkit.lab.picture import Picture
from orderkit.lab.plots import GREY, panel
from orderkit.lab.table import Table
from orderkit.orders.avro import CONFLUENT, CONFLUENT_SIZE, SINGLE, Codec
from orderkit.orders.faults import Faults, draw
from orderkit.orders.order import Order
from orderkit.retry import Failure
from orderkit.show.chart import COLOURS

HUES = {
    "marker": GREY, "fingerprint": "#BBBBBB", "schema id": "#BBBBBB", "length": COLOURS["retry"],
    "orderId": "#56B4E9", "product": COLOURS["replayed"], "price": "#CC79A7",
}  # fmt: skip
DEAD, WRONG, HARMLESS = "dead letter", "silently wrong", "harmless"
FLIP_HUES = {DEAD: COLOURS["dead"], WRONG: "#CC79A7", HARMLESS: "#DDDDDD"}


class Part(NamedTuple):
    """A few bytes that belong together."""

    name: str
    data: bytes
    told: str


def anatomy(value: bytes) -> list[Part]:
    """Take the bytes of an order apart, in any of the three wire formats.

    Raises:
        Poison: they are no order.
    """
    order = Codec().decode(value)
    if value.startswith(SINGLE):
        parts = [Part("marker", value[:2], "single-object encoding"), Part("fingerprint", value[2:10], "of the schema")]
    elif value.startswith(CONFLUENT):
        told = str(int.from_bytes(value[1:CONFLUENT_SIZE], "big"))
        parts = [Part("marker", value[:1], "Confluent's framing"), Part("schema id", value[1:CONFLUENT_SIZE], told)]
    else:
        parts = []
    at = sum(len(part.data) for part in parts)
    for name in ("orderId", "product"):
        text = str(order[name]).encode()
        size = next(n for n in range(1, 11) if not value[at + n - 1] & 0x80)
        parts += [Part("length", value[at : at + size], str(len(text))), Part(name, text, str(order[name]))]
        at += size + len(text)
    return [*parts, Part("price", value[at:], str(order["price"]))]


def dissect(value: bytes) -> Table:
    """Show the bytes of an order as a table: hexadecimal, field, meaning."""
    return Table(("bytes", "what", "meaning"), [(part.data.hex(" "), part.name, part.told) for part in anatomy(value)])


def byte_picture(values: Mapping[str, bytes]) -> Picture:
    """Draw orders byte by byte, one strip for each, a colour for each field.

    Args:
        values: a label for each strip, and its bytes.
    """
    figure, axes = panel(
        "byte", "", ", ".join(f"{name} {len(value)} bytes" for name, value in values.items()), left=0.12
    )
    for row, value in enumerate(values.values()):
        at = 0
        for part in anatomy(value):
            axes.barh(-row, len(part.data), left=at, height=0.6, color=HUES[part.name], edgecolor="white")
            for i, byte in enumerate(part.data):
                axes.text(at + i + 0.5, -row, f"{byte:02x}", ha="center", va="center", size=7, family="monospace")
            at += len(part.data)
    axes.set_yticks([-row for row in range(len(values))], list(values))
    seen = {part.name for value in values.values() for part in anatomy(value)}
    handles = [axes.barh([0], [0], color=hue, label=name) for name, hue in HUES.items() if name in seen]
    axes.set_ylim(-len(values) + 0.4, 1.0)
    axes.legend(handles=handles, ncols=len(handles), loc="upper left", frameon=False, fontsize=8)
    return Picture(figure)


def flip(value: bytes, bit: int) -> bytes:
    """Give the bytes with one bit the other way round; bit 0 is the highest of the first byte."""
    return (int.from_bytes(value, "big") ^ (1 << (8 * len(value) - 1 - bit))).to_bytes(len(value), "big")


def flip_fates(value: bytes) -> list[str]:
    """Say for each bit of an order what becomes of it when that bit flips."""
    codec = Codec()
    order = codec.decode(value)

    def fates() -> Iterator[str]:
        for bit in range(8 * len(value)):
            try:
                yield HARMLESS if codec.decode(flip(value, bit)) == order else WRONG
            except Failure:
                yield DEAD

    return list(fates())


def flip_picture(value: bytes) -> Picture:
    """Draw what each flipped bit does to an order: bytes across, the bits of each upwards."""
    fates = flip_fates(value)
    told = ", ".join(f"{fates.count(name)} {name}" for name in FLIP_HUES)
    figure, axes = panel("byte", "bit (7 is the highest)", f"{len(fates)} bits: {told}")
    for name, hue in FLIP_HUES.items():
        bits = np.flatnonzero([fate == name for fate in fates])
        axes.plot(bits // 8, 7 - bits % 8, "s", color=hue, markersize=min(13, 260 / len(value)), label=name)
    labels = [f"{byte:02x}\n{chr(byte) if 32 < byte < 127 else ''}" for byte in value]
    axes.set_xticks(range(len(value)), labels, size=7, family="monospace")
    axes.set_ylim(-0.6, 9)
    axes.legend(ncols=3, loc="upper left", frameon=False)
    return Picture(figure)


def silent_flips(order: Order) -> int:
    """Count the bits whose flip gives a wrong order, not a dead letter: 7 of each ASCII letter, and 31 of the price.

    The eighth bit of a letter makes it broken UTF-8, the price's sign makes it negative, and a wrong length does not
    add up.
    """
    return 7 * (len(order["orderId"]) + len(order["product"])) + 31


class BitFlips(Faults):
    """Faults that flip one bit of every order on its way in; (seed, order id) decides which."""

    def spoil(self, order_id: str, value: bytes) -> bytes:
        """Flip one bit."""
        if not value:
            raise UsageError("There are no bits to flip in an empty value.")
        return flip(value, int(draw(self.seed, order_id, 0, "flip") * 8 * len(value)))
