"""Who is at work on a dead-letter topic: a replay says so in the metadata of its group's offsets.

It needs no right but the one to commit, which a replay has. Two that begin at the same moment are told apart by a short
wait between the claim and a second look at it (M. Fischer's algorithm, in L. Lamport, A Fast Mutual Exclusion
Algorithm, ACM TOCS 5(1), 1987).
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orderkit.errors import OrderkitError
from orderkit.replay.journal import is_alive, user_name

SECOND_LOOK = 0.2  # seconds between a claim and the second look: longer than a commit takes
RENEWED = 10.0  # seconds after which a replay that commits nothing renews its claim
EXPIRED = 90.0  # seconds after which a claim counts no more: a replay waits 60 for an acknowledgement

_here = set[str]()  # claims of this process


@dataclass(frozen=True)
class Claim:
    """Says who is at work on some partitions.

    Args:
        id: of this claim.
        user, host, process: who that is.
        at: when it was made or renewed, in seconds since 1970.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    user: str = field(default_factory=lambda: user_name()[:64])
    host: str = field(default_factory=lambda: socket.gethostname()[:64])
    process: int = field(default_factory=os.getpid)
    at: float = 0.0

    def to_json(self) -> list[Any]:
        """Give it as JSON has it, as of now."""
        return [self.id, self.user, self.host, self.process, int(time.time())]

    @classmethod
    def from_json(cls, told: object) -> Claim | None:
        """Read what `to_json` gave; `None` for anything else."""
        kinds = (str, str, str, int, int)
        if not isinstance(told, list) or tuple(map(type, told)) != kinds:
            return None
        return cls(*told)

    def enter(self) -> None:
        """Count as one of this process, which is at work."""
        _here.add(self.id)

    def leave(self) -> None:
        """Count no more."""
        _here.discard(self.id)

    @property
    def is_live(self) -> bool:
        """Whether that replay may still be at work: it has said so not long ago, and its process, if here, is there."""
        if time.time() - self.at >= EXPIRED:
            return False
        if self.host != socket.gethostname():
            return True
        return self.id in _here if self.process == os.getpid() else is_alive(self.process)


def refuse_others(group: str, claims: Iterable[Claim | None], mine: Claim) -> None:
    """Refuse to go on where somebody else is at work.

    Raises:
        OrderkitError: who, and what to do.
    """
    for claim in claims:
        if claim is not None and claim.id != mine.id and claim.is_live:
            age = max(0.0, time.time() - claim.at)
            raise OrderkitError(
                f"Another replay of group {group} is at work: {claim.user} on {claim.host}, process {claim.process}, "
                f"{age:.0f} s ago. Wait until it has ended, or name a --group of your own. Were it killed and nobody "
                f"knew, its claim would end in {EXPIRED - age:.0f} s."
            )
