"""Replays that are refused, each with a line: what is wrong, and what to do next."""

from __future__ import annotations

from orderkit.dead_letters.strangers import not_dead_letters
from orderkit.errors import OrderkitError, UsageError
from orderkit.replay.batch import MISSING, NOWHERE, UNKNOWN
from orderkit.replay.report import ReplayReport


def refuse_circles(source: str, to: str | None, parking: str | None) -> None:
    """Refuse topics between which letters would go round for ever.

    Raises:
        UsageError: which.
    """
    if source in (to, parking):
        raise UsageError(f"Source and target are both {source}: the replay would never end. Name another topic.")
    if to is not None and to == parking:
        raise UsageError(f"Target and parking topic are both {to}. Name another topic.")


def refuse_strangers(report: ReplayReport, enough: int) -> None:
    """Refuse a topic of which so many records were looked at, and none is a dead letter.

    Raises:
        OrderkitError: it is no dead-letter topic.
    """
    if report.counts[UNKNOWN] == report.looked >= enough:
        raise not_dead_letters(report.source, report.looked, other="")


def refuse_hopeless(report: ReplayReport) -> None:
    """Refuse a replay of which no letter can go anywhere.

    Raises:
        OrderkitError: what is missing.
    """
    refuse_strangers(report, 1)
    if report.counts[NOWHERE] == report.looked > 0:
        raise OrderkitError(
            f"The dead letters in {report.source} do not say which topic they come from. Name one with --to TOPIC."
        )
    if report.counts[MISSING] == report.looked > 0:
        (name, _), *_ = report.missing.most_common(1)
        raise OrderkitError(
            f"The dead letters in {report.source} come from topic {name!r}, which does not exist, or may not be seen. "
            "Create it, or name another with --to TOPIC."
        )
