"""What a transactional producer asks of its broker, and why it may get no transactions (KIP-98)."""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException

from orderkit.errors import OrderkitError

PATIENCE = 30.0  # seconds for which a call is repeated while the broker is away
BREATH = 1.0  # seconds after which a call without an answer is left, so that Ctrl-C is heard, and taken up again


def insist(call: Callable[..., object], *args: object, patience: Callable[[], float] = lambda: PATIENCE) -> None:
    """Call until it is answered; a broker that is away for a moment is no reason to give a transaction up.

    Args:
        call: a method of a producer whose last argument is a time in seconds; where that is up, it can be called again.
        args: its other arguments.
        patience: asked again and again; gives seconds from the first call on.

    Raises:
        KafkaException: the answer is an error that stays, or there was none.
    """
    since = time.monotonic()
    while True:
        try:
            call(*args, BREATH)
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > since + patience():
                raise
        else:
            return


def no_transactions(error: KafkaError, name: str) -> OrderkitError:
    """Say why a broker gives no transactions, and what would help.

    Args:
        error: what the first call was answered with.
        name: what the transactional id begins with.
    """
    if error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        why = f"the right is missing. Ask for WRITE and DESCRIBE on transactional ids that begin with {name!r}."
    elif error.code() == KafkaError._TIMED_OUT:
        why = (
            "none took charge of one in time. Where there are fewer than three brokers, they need"
            " transaction.state.log.replication.factor=1 and transaction.state.log.min.isr=1."
        )
    else:
        why = f"{error.str().rstrip('.')}. Start again."
    return OrderkitError(f"The broker gives no transactions: {why}")
