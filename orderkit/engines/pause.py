"""Pause the partition: its order is kept, the other partitions flow, and polling goes on.

The price is head-of-line blocking: whatever lies behind a failing order in its partition waits with it.
"""

from __future__ import annotations

from orderkit.engines.base import Engine


class PausePartition(Engine):
    """The default engine: a partition waits for its head record, and for no other."""
