"""When offsets are committed: one class for each delivery mode, all for the same handler.

At least once: an offset is committed after everything before it was averaged, skipped, or acknowledged in the
dead-letter topic. Whatever a crash leaves uncommitted is delivered again; the average is not added twice, because it is
restored from the same commit.

At most once: an offset is committed before the handler sees the record. What a crash interrupts is gone.

Exactly once: dead letters, offsets and averages are one transaction (KIP-98, KIP-447). What a crash interrupts never
happened, for everyone who reads only what is committed.
"""

from __future__ import annotations

from orderkit.delivery.at_least_once import AtLeastOnce
from orderkit.delivery.at_most_once import AtMostOnce
from orderkit.delivery.exactly_once import TRANSACTION_TIMEOUT, ExactlyOnce
from orderkit.delivery.mode import Mode
from orderkit.errors import check_known

__all__ = ["MODES", "TRANSACTION_TIMEOUT", "AtLeastOnce", "AtMostOnce", "ExactlyOnce", "Mode", "find_mode"]

MODES: dict[str, type[Mode]] = {"at-least-once": AtLeastOnce, "at-most-once": AtMostOnce, "exactly-once": ExactlyOnce}


def find_mode(name: str | type[Mode]) -> type[Mode]:
    """Find the delivery mode called `name`; one that is given is taken as it is.

    Raises:
        UsageError: there is none of that name.
    """
    if not isinstance(name, str):
        return name
    check_known("delivery", name, MODES)
    return MODES[name]
