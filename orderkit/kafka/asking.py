"""Questions that are asked again: while brokers decide who has what, and until they know of a change."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

Answer = TypeVar("Answer")

PAUSE = 0.1  # seconds until it is asked again
DECIDING = {  # what a broker answers that has just started, or is just taking the group over
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}


def is_deciding(error: KafkaError) -> bool:
    """Whether brokers are still deciding who has the group."""
    return error.code() in DECIDING


def may_pass(error: KafkaError) -> bool:
    """Whether an error may be gone in a moment: brokers decide, a transaction ends, or the client says so."""
    return error.retriable() or is_deciding(error) or error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT


def ask(call: Callable[[], Answer], patience: float, passes: Callable[[KafkaError], bool] = may_pass) -> Answer:
    """Make a call, and make it again while its error may pass.

    Args:
        call: what is asked.
        patience: seconds after which an error stays.
        passes: says which errors may be gone in a moment.

    Raises:
        KafkaException: an error that stays.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return call()
        except KafkaException as error:
            if not passes(error.args[0]) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE)


def comes_true(seen: Callable[[], bool], patience: float = 10.0) -> bool:
    """Ask until a broker knows of a change: it hears of it a moment after the controller has said yes.

    Args:
        seen: asks, and says whether it knows.
        patience: seconds after which it is given up.

    Returns:
        Whether it knew in time.
    """
    deadline = time.monotonic() + patience
    while not seen():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
