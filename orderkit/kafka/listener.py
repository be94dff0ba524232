"""What a listener speaks, found out with the few requests of Kafka's protocol that take no password."""

from __future__ import annotations

import socket
import ssl
import struct
from contextlib import suppress

BRIEFLY = 1.0  # seconds for a connection
ANSWERED = 3.0  # seconds for an answer: the first one of a broker that has just started takes more than one
METADATA, SASL_HANDSHAKE, API_VERSIONS = 3, 17, 18  # numbers of requests
UNSUPPORTED_SASL_MECHANISM = 33
ASIDE = 0x7F  # a correlation id of ours


def connect(place: str) -> socket.socket:
    """Connect to `host:port`; raises OSError."""
    host, _, port = place.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=BRIEFLY)
    connection.settimeout(ANSWERED)
    return connection


def trusting() -> ssl.SSLContext:
    """Give TLS that trusts anybody: to look at a listener, and never to talk to it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is told or believed here
    return context


def what_listens(place: str) -> tuple[str, str]:
    """Find out which security protocol a listener speaks, and which SASL mechanisms it takes.

    Args:
        place: `host:port`.

    Returns:
        One of Kafka's four protocols, "unknown" for something else, "" for nothing; and the mechanisms, if any.
    """
    try:
        connect(place).close()
    except OSError:
        return "", ""
    try:
        with connect(place) as plain:
            if (mechanisms := _mechanisms(plain)) is not None:
                return ("SASL_PLAINTEXT", mechanisms) if mechanisms else ("PLAINTEXT", "")
    except TimeoutError:
        return "unknown", ""  # a listener with TLS would have hung up
    except OSError:
        pass
    with suppress(OSError), connect(place) as plain, trusting().wrap_socket(plain) as secret:
        if mechanisms := _mechanisms(secret):  # a listener that wants our certificate hangs up here
            return "SASL_SSL", mechanisms
        return "SSL", ""
    return "unknown", ""


def _mechanisms(connection: socket.socket) -> str | None:
    """Ask for a SASL mechanism that nobody has: a listener with SASL names its own, one without has none."""
    if ask(connection, API_VERSIONS, 0, b"") is None:
        return None
    answer = ask(connection, SASL_HANDSHAKE, 1, b"\0\1?")
    if answer is None or struct.unpack_from(">h", answer)[0] != UNSUPPORTED_SASL_MECHANISM:
        return ""
    (many,), at, names = struct.unpack_from(">i", answer, 2), 6, []
    for _ in range(many):
        (length,) = struct.unpack_from(">h", answer, at)
        names.append(answer[at + 2 : at + 2 + length].decode(errors="replace"))
        at += 2 + length
    return ", ".join(names) or "none"


def brokers(connection: socket.socket) -> list[tuple[str | None, int]]:
    """Ask a broker for all brokers; nothing when it tells a stranger nothing."""
    answer = ask(connection, METADATA, 1, struct.pack(">i", 0))
    found: list[tuple[str | None, int]] = []
    with suppress(struct.error):
        (many,), at = struct.unpack_from(">i", answer or b"\0\0\0\0"), 4
        for _ in range(many):
            (length,) = struct.unpack_from(">h", answer or b"", at + 4)
            end = at + 6 + length
            port, rack = struct.unpack_from(">ih", answer or b"", end)
            found.append(((answer or b"")[at + 6 : end].decode(errors="replace"), port))
            at = end + 6 + max(0, rack)
    return found


def ask(connection: socket.socket, request: int, version: int, body: bytes) -> bytes | None:
    """Make one request of Kafka's protocol; give what follows the answer's header, `None` when it is no answer.

    Raises:
        TimeoutError: neither an answer nor an end of the connection.
    """
    frame = struct.pack(">hhih", request, version, ASIDE, -1) + body
    try:
        connection.sendall(struct.pack(">i", len(frame)) + frame)
        header = _read(connection, 8)
        size, correlation = struct.unpack(">ii", header)
        return _read(connection, min(size - 4, 65_536)) if correlation == ASIDE else None
    except TimeoutError:
        raise
    except (OSError, struct.error):
        return None


def _read(connection: socket.socket, many: int) -> bytes:
    found = b""
    while len(found) < many and (some := connection.recv(many - len(found))):
        found += some
    return found
