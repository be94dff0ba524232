"""How a retry waits: one file for each way, all for the same handler."""

from __future__ import annotations

from orderkit.engines.base import Answer, Engine
from orderkit.engines.in_place import SleepInPlace
from orderkit.engines.parking import ParkKey
from orderkit.engines.pause import PausePartition
from orderkit.engines.topics import RetryTopics
from orderkit.errors import check_known

ENGINES: dict[str, type[Engine]] = {
    "pause": PausePartition,
    "in-place": SleepInPlace,
    "topics": RetryTopics,
    "key-parking": ParkKey,
}

__all__ = ["ENGINES", "Answer", "Engine", "ParkKey", "PausePartition", "RetryTopics", "SleepInPlace", "find_engine"]


def find_engine(name: str | type[Engine]) -> type[Engine]:
    """Find the engine called `name`; one that is given is taken as it is.

    Raises:
        UsageError: there is none of that name.
    """
    if not isinstance(name, str):
        return name
    check_known("engine", name, ENGINES)
    return ENGINES[name]
