"""Calls that librdkafka may never answer, made where nobody has to wait for them, and a way to leave a group."""

from __future__ import annotations

import faulthandler
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import TextIO, TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException

from orderkit.kafka.settings import speaks_consumer_protocol

log = logging.getLogger("orderkit")

Answer = TypeVar("Answer")

LEAVING = 10.0  # seconds that a client may take to leave its group, before it is left alone
HASTE = 2.0  # the same, when the broker is silent, or the user impatient
HANDING_BACK = 5.0  # seconds of them for giving its partitions back, before it is closed all the same
SETTLING = 0.2  # seconds in which an assignment that was under way comes, and is given back (KIP-848)
TICK = 0.005  # seconds from one look to the next: a client does not say when it has heard what it was asked to hear
FROZEN = 15.0  # seconds after which a process in which no Python code runs any more is ended

_guards = 0
_guarding = threading.Lock()


def call_here(call: Callable[[], Answer]) -> Future[Answer]:
    """Make a call now, and wait for it."""
    return _keep(call, Future())


def call_aside(call: Callable[[], Answer]) -> Future[Answer]:
    """Make a call in a thread of its own, which does not keep the process from ending."""
    future: Future[Answer] = Future()
    threading.Thread(target=_keep, args=(call, future), name="orderkit-aside", daemon=True).start()
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


def manners(config: Mapping[str, object]) -> dict[str, bool]:
    """Say how a client with these settings leaves its group, as `leave_group` takes it."""
    is_static = bool(config.get("group.instance.id") or config.get("group_instance_id"))
    return {"stays": is_static, "keeps_id": speaks_consumer_protocol(config)}


def leave_group(
    client: Consumer, gave_back: Callable[[], bool], *,
    stays: bool = False, keeps_id: bool = False, patience: float = LEAVING,
) -> None:  # fmt: skip
    """Give the partitions back, then close the client; over within `patience` seconds, whatever the broker does.

    A client that serves a rebalance while it closes may ask its group handler, which has just ended, and wait for ever
    (librdkafka #4884); the binding holds the GIL there, and Python stands still. So no rebalance may be outstanding:
    first the client unsubscribes, which waits for the end of a rebalance under way, and is polled until it has given
    its partitions back and its member id up. All of that happens aside: a client lets in one thread at a time, and
    another one may be waiting in it for an answer that never comes.

    Args:
        client: a subscribed consumer; closed afterwards, or closing in a thread of its own.
        gave_back: whether the callback has run that gives the partitions back.
        stays: a static member (KIP-345), whose place is kept until its session ends: it closes without leaving.
        keeps_id: the client has chosen its member id by itself (KIP-848), and does not give it up.
        patience: seconds.
    """

    def leave() -> None:
        try:
            if not stays:
                _hand_back(client, gave_back, keeps_id)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._FATAL:  # else it is out already, and somebody has said why
                log.warning("the client cannot give its partitions back: %s", error.args[0].str())
        finally:
            client.close()

    with ended_if_frozen():
        try:
            if not is_answered(call_aside(leave), time.monotonic() + patience):
                log.warning("the broker does not let the client go; the group will miss it after its session time-out")
        except KeyboardInterrupt:
            log.warning("interrupted while leaving the group, which will miss the client after its session time-out")
            raise


def _hand_back(client: Consumer, gave_back: Callable[[], bool], keeps_id: bool) -> None:
    began = time.monotonic()
    client.unsubscribe()

    def is_out() -> bool:
        # The id goes with the request to leave; a client that is thrown out loses it before its callback has run.
        gone = time.monotonic() > began + SETTLING if keeps_id else client.memberid() is None
        return gone and gave_back()

    while not is_out() and time.monotonic() < began + HANDING_BACK:
        client.poll(TICK)  # a record that comes now is not committed, and so not lost
    client.poll(0)  # a member without partitions has callbacks, too


@contextmanager
def ended_if_frozen() -> Iterator[None]:
    """End the process, with all its stacks on standard error, if it freezes in this block: better than a dead kernel.

    Only a frozen process is ended: one in which a call takes long, but Python runs, leaves the block by itself.
    """
    global _guards  # noqa: PLW0603  faulthandler has one timer for the whole process
    with _guarding:
        _guards += 1
        # A process without standard error goes unguarded.
        with suppress(AttributeError, OSError, RuntimeError, ValueError):
            faulthandler.dump_traceback_later(FROZEN, exit=True, file=cast(TextIO, sys.__stderr__))
    try:
        yield
    finally:
        with _guarding:
            _guards -= 1
            if not _guards:
                faulthandler.cancel_dump_traceback_later()
