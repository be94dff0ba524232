"""What both FastStream programs share."""

from __future__ import annotations

from typing import Any

from .job import CONSUMER, Task


def settings(job: Task) -> dict[str, Any]:
    """Give the broker's arguments."""
    if not job.ours:
        return {}
    return {"config": CONSUMER, "linger_ms": 5, "enable_idempotence": True}
