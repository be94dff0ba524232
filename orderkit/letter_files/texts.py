"""Bytes as JSON has them, and back: text where they are text, base64 where they are not."""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

try:
    import orjson
except ImportError:  # an extra: files are five times as slow without it, and the same
    orjson = None  # type: ignore[assignment]

BASE64 = "base64"


def _slow_loads(text: bytes) -> Any:
    found = json.loads(text)
    if b"\\u" in text:
        _slow_dumps(found)  # half of a surrogate pair is no text
    return found


def _slow_dumps(found: Any) -> bytes:
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


loads: Callable[[bytes], Any] = _slow_loads if orjson is None else orjson.loads
compact: Callable[[Any], bytes] = _slow_dumps if orjson is None else orjson.dumps  # without spaces, in UTF-8


def spaced(found: Any) -> bytes:
    """Write JSON as Python's own module does by default."""
    return json.dumps(found, allow_nan=False).encode()


STYLES: Sequence[Callable[[Any], bytes]] = (compact, spaced)


def show_bytes(content: bytes | str | None) -> Any:
    """Give bytes as JSON has them: text where they are UTF-8, else `{"base64": ...}`."""
    if content is None or isinstance(content, str):
        return content
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {BASE64: b2a_base64(content, newline=False).decode()}


def read_bytes(shown: Any) -> bytes | None:
    """Give the bytes that `show_bytes` has shown.

    Raises:
        ValueError: it shows none.
    """
    if shown.__class__ is str:
        return shown.encode()
    if shown is None:
        return None
    if shown.__class__ is dict and list(shown) == [BASE64] and isinstance(shown[BASE64], str):
        return a2b_base64(shown[BASE64], strict_mode=True)
    raise ValueError(f'{short(shown)} is no text, {{"base64": "..."}} or null')


def rewritten(found: Any, before: bytes | None) -> bytes:
    """Write JSON, spaced as it was; where it says what it said before, it is the same bytes.

    Raises:
        ValueError: that cannot be written as JSON.
    """
    style = compact
    with suppress(ValueError, RecursionError):
        was = loads(before or b"")
        if compact(was) == compact(found):
            return before or b""
        style = next((each for each in STYLES if each(was) == before), compact)
    try:
        return style(found)
    except (ValueError, TypeError) as error:
        raise ValueError(f"value is no JSON: {short(error)}") from None


def short(what: Any) -> str:
    """Give somebody's value, or a library's complaint, in a few words."""
    return " ".join((str(what) if isinstance(what, Exception) else repr(what)).split())[:120]
