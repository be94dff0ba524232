"""One way to open a consumer, whatever its engine."""

from __future__ import annotations

from typing import Any

from orderkit.consumer import RetryingConsumer
from orderkit.consuming.loop import Handler, accept
from orderkit.consuming.share import ShareGroupConsumer
from orderkit.engines import ENGINES
from orderkit.errors import UsageError
from orderkit.kafka import Connection

ENGINE_NAMES = (*ENGINES, "share")


def open_consumer(
    connection: Connection, handler: Handler = accept, *, engine: str = "pause", **settings: Any
) -> RetryingConsumer | ShareGroupConsumer:
    """Open the consumer that an engine needs: a member of a consumer group, or of a share group.

    Args:
        connection: the cluster.
        handler: called with the order and the attempt's number, from 1.
        engine: how a retry waits: one of `ENGINE_NAMES`.
        settings: as `RetryingConsumer` and `ShareGroupConsumer` take them.

    Raises:
        UsageError: the engine is unknown, or does not go with a setting.
    """
    if engine != "share":
        return RetryingConsumer(connection, handler, engine=engine, **settings)
    if settings.pop("delivery", "at-least-once") != "at-least-once":
        raise UsageError("A share group delivers at least once; no other delivery mode goes with it.")
    for name in ("instance", "batch", "slice", "budget"):
        settings.pop(name, None)  # nothing of a share group
    return ShareGroupConsumer(connection, handler, **settings)
