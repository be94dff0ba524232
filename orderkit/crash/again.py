"""Which calls of the handler were made twice, and what the workers said of themselves meanwhile."""

from __future__ import annotations

from orderkit.crash.evidence import Evidence, Trail
from orderkit.crash.plan import CrashPlan


def again(plan: CrashPlan, evidence: Evidence, trail: Trail) -> list[str]:
    """Tell, in the order of time, where assignments began, what members warned of, and what was handled again."""
    orders = plan.values()
    written = {place: orders.get(value or b"") for place, (_, value) in evidence.records.items()}
    places = {order["orderId"]: place for place, order in written.items() if order}
    first: dict[tuple[str, int], int] = {}
    told = list(trail.notes)
    for at, name, attempt, _ in sorted(trail.handled):
        if (before := first.setdefault((name, attempt), at)) != at:
            number, offset = places.get(name, (-1, -1))
            told.append((at, "", f"{number}@{offset} again, {(at - before) / 1e9:.3f} s after the first time"))
    begun = min((at for at, *_ in told), default=0)
    return [f"{(at - begun) / 1e9:7.3f} s {worker or 'handler'}: {text}" for at, worker, text in sorted(told)]
