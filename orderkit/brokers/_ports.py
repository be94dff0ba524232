"""Ports of this machine: found free, and kept for a broker also while it is down."""

from __future__ import annotations

import socket
import sys
import weakref
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import Self

from orderkit.brokers._settings import HOST
from orderkit.errors import OrderkitError
from orderkit.kafka.names import PORTS

NONE: Mapping[str, int] = MappingProxyType({})


class Ports:
    """A free port for each name, out of other programs' reach until `close`.

    The system gives every program ports of the same range: one that was free is another's a moment later, or while its
    broker is down. Here a socket that is bound, and does not listen, keeps it: who connects is refused as if nobody
    were there, and only who asks for this very port gets it, as Linux lets sockets share an address that say
    SO_REUSEADDR while at most one listens. Java, asyncio and Python's servers say it. Other systems do not let them:
    there the ports are only found, and may be lost.

    Args:
        names: of the ports.
        given: ports that need not be found, name to number.

    Attributes:
        numbers: name to port.

    Raises:
        OrderkitError: one that is given is taken, or is no port.
    """

    def __init__(self, names: Collection[str], given: Mapping[str, int] = NONE) -> None:
        with ExitStack() as held:
            sockets = {name: held.enter_context(_bound(given.get(name, 0))) for name in names}
            self.numbers: dict[str, int] = {name: one.getsockname()[1] for name, one in sockets.items()}
            kept = held.pop_all() if sys.platform == "linux" else ExitStack()
        self.close = weakref.finalize(self, kept.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _bound(port: int) -> socket.socket:
    """Give a socket that has a port, 0 for any, and does not listen. Nobody else does: Java would say so late."""
    if not 0 <= port <= PORTS:
        raise OrderkitError(f"Port {port} cannot be used: a port is a number from 1 to {PORTS}. Take another.")
    one = socket.socket()
    try:
        if port:
            socket.create_server((HOST, port)).close()
        if sys.platform != "win32":  # where it would take a port from whoever has it
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((HOST, port))
    except OSError as error:
        one.close()
        told = (error.strerror or str(error)).partition(" (")[0]
        raise OrderkitError(f"Port {port} cannot be used: {told}. Take another, or stop what has it.") from None
    return one
