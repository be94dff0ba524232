"""Calls that librdkafka may never answer, made where nobody has to wait for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

from confluent_kafka import Consumer

Answer = TypeVar("Answer")


def call_here(call: Callable[[], Answer]) -> Future[Answer]:
    """Make a call now, and wait for it."""
    return _keep(call, Future())


def call_aside(call: Callable[[], Answer]) -> Future[Answer]:
    """Make a call in a thread of its own, which does not keep the process from ending."""
    future: Future[Answer] = Future()
    Thread(target=_keep, args=(call, future), name="orderkit-aside", daemon=True).start()
    return future


def _keep(call: Callable[[], Answer], future: Future[Answer]) -> Future[Answer]:
    try:
        future.set_result(call())
    except Exception as error:  # whoever asks for the result hears of it
        future.set_exception(error)
    return future


def is_answered(future: Future[Answer], deadline: float) -> bool:
    """Wait for a call to end, at most until `deadline` on the monotonic clock; say whether it has."""
    return bool(wait([future], max(0.0, deadline - time.monotonic())).done)


def leave_group(client: Consumer) -> None:
    """Close a group's member, after it has answered every rebalance.

    A rebalance answered while a client closes may never be taken in, and Python stands still with it (librdkafka
    #4884). Once unsubscribed, no further one comes; but in the middle of a rebalance that is put off until its end.
    """
    for _ in ("the rebalance under way, if any", "the last one"):
        client.unsubscribe()
        while client.poll(0) is not None:
            pass  # a record that comes now is not committed, and so not lost
    client.close()
