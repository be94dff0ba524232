"""How a retry waits: one file for each way, all for the same handler."""

from __future__ import annotations

from orderkit.engines.base import Answer, Engine
from orderkit.engines.pause import PausePartition
from orderkit.errors import UsageError
from orderkit.group import GroupMember

ENGINES = {"pause": PausePartition}

__all__ = ["ENGINES", "Answer", "Engine", "PausePartition", "make_engine"]


def make_engine(name: str, member: GroupMember) -> Engine:
    """Make the engine called `name`.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in ENGINES:
        raise UsageError(f"Unknown engine {name!r}. Choose from: {', '.join(ENGINES)}.")
    return ENGINES[name](member)
