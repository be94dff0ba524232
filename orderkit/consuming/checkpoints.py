"""Places where a partition may be committed, once what was written before them is acknowledged."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cached_property

from orderkit.consuming.saved import Saved


@dataclass
class Checkpoint:
    """A place where a partition may be committed, once all that was written before it is acknowledged."""

    offset: int = -1
    saved: Saved = field(default_factory=Saved)
    unacknowledged: int = 0

    @cached_property
    def metadata(self) -> str:
        """What goes with the offset; to be asked for once the place is final."""
        return self.saved.to_text(self.offset)


class Checkpoints:
    """Those of one partition, oldest first: closed ones, which have their place, and the one that is still open.

    Attributes:
        written: records that were put on their way to another topic so far.
    """

    def __init__(self) -> None:
        self.written = 0
        self._open = Checkpoint()
        self._closed: deque[Checkpoint] = deque()

    def __len__(self) -> int:
        return len(self._closed)

    @property
    def outstanding(self) -> int:
        """Records on their way to another topic, and not acknowledged there."""
        return self._open.unacknowledged + sum(point.unacknowledged for point in self._closed)

    def expect_ack(self) -> Checkpoint:
        """Say that a record is on its way to another topic; give the checkpoint that has to wait for it."""
        self._open.unacknowledged += 1
        self.written += 1
        return self._open

    def close(self, offset: int, saved: Saved) -> None:
        """End a batch: what is done so far may be committed, as soon as what was written is acknowledged."""
        self._open.offset, self._open.saved = offset, saved
        self._closed.append(self._open)
        self._open = Checkpoint()

    def ready(self) -> Checkpoint | None:
        """Give the newest checkpoint with nothing outstanding before it, and forget the older ones."""
        newest = None
        while self._closed and not self._closed[0].unacknowledged:
            newest = self._closed.popleft()
        return newest

    def latest(self) -> Checkpoint | None:
        """Give the newest checkpoint, whatever is outstanding, and forget the older ones."""
        newest = self._closed[-1] if self._closed else None
        self._closed.clear()
        return newest
