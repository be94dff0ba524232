"""What a member tells of its partitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from orderkit.consuming.partition import Partition


class Notices(NamedTuple):
    """Whom a member calls when something happens to its partitions.

    Attributes:
        revoked: with partitions that are about to go, while they can still be committed.
        lost: with partitions that have just gone.
        undone: with one of those when it is known where its last commit stands: all after it comes again.
        expired: with a partition and offsets whose records are gone unread.
        begun: with a partition whose log is gone: another one has taken its place.
    """

    revoked: Callable[[list[Partition]], None]
    lost: Callable[[list[Partition]], None]
    undone: Callable[[Partition], None]
    expired: Callable[[Partition, range], None]
    begun: Callable[[Partition], None]
