"""A consumer's two pages for those who watch it: `/metrics` and `/healthz`."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

from orderkit.consuming.loop import Loop
from orderkit.errors import OrderkitError
from orderkit.show.metrics import ConsumerMetrics

log = logging.getLogger("orderkit")

HOST = "127.0.0.1"
STALL_AFTER = 30.0  # seconds; a turn takes a second at most, unless a handler hangs
SLOW_READER = 10.0  # seconds that a reader of a page may take


def health(consumer: Loop, stall_after: float) -> tuple[bool, dict[str, object]]:
    """Say whether the loop still turns, and since when not.

    A refused dead-letter topic is no reason to restart: the consumer waits, and says so in `trouble`.

    Args:
        consumer: whose loop.
        stall_after: seconds without a turn after which it has stalled.
    """
    age = time.monotonic() - consumer.turned
    told: dict[str, object] = {"status": "ok", "turn_age_seconds": round(age, 3)}
    if stalled := age > stall_after:
        told["status"] = "stalled"
        told["why"] = f"the loop has not turned for {age:.1f} s; {stall_after:g} s are allowed"
    if consumer.trouble:
        told["trouble"] = consumer.trouble
    return not stalled, told


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a reader that dawdles does not keep the consumer from ending

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a reader that went away."""


class _Quiet(WSGIRequestHandler):
    timeout = SLOW_READER

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a line for every scrape helps nobody."""


def _pages(consumer: Loop, stall_after: float) -> Callable[..., Iterable[bytes]]:
    registry = CollectorRegistry()
    registry.register(ConsumerMetrics(consumer))
    ProcessCollector(registry=registry)  # memory, open files and CPU time, under their usual names
    metrics = make_wsgi_app(registry)

    def page(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            try:
                answer: Iterable[bytes] = metrics(environ, start)
            except Exception as error:  # wsgiref would write a traceback between the log lines
                log.warning("/metrics cannot be made: %s: %s", type(error).__name__, error)
                return _json(start, "500 Internal Server Error", {"status": type(error).__name__})
            return answer
        if environ["PATH_INFO"] != "/healthz":
            return _json(start, "404 Not Found", {"status": "unknown page", "pages": ["/metrics", "/healthz"]})
        well, told = health(consumer, stall_after)
        return _json(start, "200 OK" if well else "503 Service Unavailable", told)

    return page


class MetricsServer:
    """Serves `/metrics` and `/healthz` of a consumer, from a thread of its own.

    Args:
        consumer: whose numbers.
        port: where to listen; 0 for a free one.
        host: on which address; `0.0.0.0` for all of this machine's.
        stall_after: seconds without a turn of the loop after which `/healthz` answers 503.

    Raises:
        OrderkitError: the port or the address cannot be used.
    """

    def __init__(self, consumer: Loop, port: int = 0, host: str = HOST, stall_after: float = STALL_AFTER) -> None:
        try:
            self._server = make_server(host, port, _pages(consumer, stall_after), _Server, _Quiet)
        except (OSError, OverflowError) as error:
            told = getattr(error, "strerror", None) or "a port is a number from 0 to 65535"
            raise OrderkitError(f"Metrics cannot be served at {host}:{port}: {told}. Name another port.") from None
        self.url = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving, and give the port back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _json(start: Callable[..., Any], status: str, told: dict[str, object]) -> list[bytes]:
    start(status, [("Content-Type", "application/json"), ("Cache-Control", "no-store")])
    return [json.dumps(told).encode() + b"\n"]
