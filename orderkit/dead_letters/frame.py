"""Dead letters as a pandas frame, whoever wrote them; only those who want a frame load pandas."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from orderkit.dead_letters.filters import portions
from orderkit.dead_letters.payload import Payload, PayloadReader, reader_of
from orderkit.dead_letters.reader import DeadLetterRecord
from orderkit.dead_letters.times import moment, whole
from orderkit.errors import OrderkitError
from orderkit.orders.avro import Codec

if TYPE_CHECKING:
    import pandas as pd

PORTION = 5_000  # dead letters that are turned into columns at once
COLUMNS = {
    "topic": "category",
    "partition": "int32",
    "offset": "int64",
    "written": "datetime64[ms, UTC]",
    "dialect": "category",
    "origin_topic": "category",
    "origin_partition": "Int32",
    "origin_offset": "Int64",
    "group": "category",
    "reason": "category",
    "exception": "category",
    "message": "object",
    "attempts": "Int64",
    "first_failure": "datetime64[ms, UTC]",
    "last_failure": "datetime64[ms, UTC]",
    "replays": "int32",
    "key": "object",
    "value": "object",
    "headers": "object",
    "order_id": "object",
    "product": "object",
    "price": "float64",
    "undecodable": "object",
    "origin_written": "datetime64[ms, UTC]",
    "payload": "category",
    "data": "object",
    "notes": "object",
}


def dead_letter_frame(letters: Iterable[DeadLetterRecord], codec: PayloadReader | Codec | None = None) -> pd.DataFrame:
    """Give dead letters as a frame, a row each; what nobody told is missing.

    Columns, and their types, are those of `COLUMNS`. Where it lies: `topic`, `partition`, `offset`; `written` there, in
    ms. What its headers tell: `dialect`, `origin_topic`, `origin_partition`, `origin_offset` (where it was last),
    `origin_written` (in ms), `group`, `reason`, `exception`, `message`, `attempts` (deliveries), `first_failure`,
    `last_failure` (in ms), `replays`. What it holds: `key` and `value` (bytes), `headers` (the original ones, and those
    that nobody knows: a list of name and bytes). What the value says: `payload` (`order`, `avro`, `json`, `text`,
    `bytes`, `empty`, `tombstone`), `data` (a dict of fields, any other JSON value, or a text), `order_id`, `product`,
    `price` of an order, and `undecodable` (why there is no record, or none that makes sense). `notes`: headers that are
    not what they should be, a tuple of lines.

    Args:
        letters: as `read_dead_letters` yields them.
        codec: reads the values, or the orders among them; by default with the kit's own schema.

    Raises:
        OrderkitError: pandas is not installed.
    """
    try:
        import pandas as pd  # noqa: PLC0415  the base install has none
    except ImportError:
        raise OrderkitError('A frame needs pandas: pip install "orderkit[lab]".') from None
    reader, parts = reader_of(codec), []
    for batch in portions(letters, PORTION):
        payloads = reader.read_batch([letter.value for letter in batch])
        rows = [_row(letter, payload) for letter, payload in zip(batch, payloads, strict=True)]
        parts.append(_typed(pd.DataFrame.from_records(rows, columns=list(COLUMNS))))
    if not parts:
        return _typed(pd.DataFrame(columns=list(COLUMNS)))
    frame = pd.concat(parts, ignore_index=True)
    return frame.astype({name: "category" for name, kind in COLUMNS.items() if kind == "category"})


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd  # noqa: PLC0415  the caller has found it

    for name, kind in COLUMNS.items():
        if kind.startswith("datetime64"):
            moments = pd.Series(frame[name], dtype="Int64").astype("datetime64[ms]")
            frame[name] = moments.dt.tz_localize("UTC")
        else:
            frame[name] = frame[name].astype(kind)  # type: ignore[call-overload]
    return frame


def _row(letter: DeadLetterRecord, payload: Payload) -> tuple[Any, ...]:
    told = letter.story
    origin, partition, offset = letter.origin
    order = payload.order or {}
    return (
        letter.topic,
        letter.partition,
        letter.offset,
        moment(letter.timestamp),
        letter.dialect or None,
        None if origin == "?" else origin,
        None if partition < 0 else partition,
        None if offset < 0 else offset,
        told.get("group"),
        told.get("reason"),
        told.get("exception"),
        told.get("message"),
        whole(told.get("attempts")),
        moment(whole(told.get("first-failure"))),
        moment(whole(told.get("last-failure"))),
        letter.replays,
        letter.key,
        letter.value,
        letter.headers,
        order.get("orderId"),
        order.get("product"),
        order.get("price"),
        payload.why or None,
        moment(whole(told.get("timestamp"))),
        payload.kind,
        payload.data,
        letter.notes,
    )
