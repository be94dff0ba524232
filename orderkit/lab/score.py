"""A prediction, held against theory and against what was measured."""

from __future__ import annotations

from collections.abc import Container
from math import nan

from orderkit.account.expected import Expected, dead_share
from orderkit.account.tally import DEAD
from orderkit.run import Run


def score(run: Run, expected: Expected, guess: int | None) -> str:
    """Say how good a prediction of the dead was: chance alone moves a run within the band of theory.

    Args:
        run: what was measured.
        expected: theory.
        guess: the prediction, if there was one.
    """
    dead, you = run.ledger.counts[DEAD], "" if guess is None else f"you {guess}, "
    if not expected.known:
        return f"{you}measured {dead}"
    mean, band = map(float, expected.dead(run.ledger.finished))
    theory = f"{you}theory {mean:.1f} ± {band:.1f}, measured {dead}"
    if guess is not None and len(expected.changes) > 1:
        return f"{theory}; but sliders were moved"
    if guess is not None and run.ledger.finished < run.orders:
        return f"{theory}; but not all orders came"
    return f"{theory}: {_verdict(dead if guess is None else guess, mean, band)}"


def share(run: Run, settings: Container[str]) -> float:
    """Say which share of the orders theory lets die as things are; it knows the kit's own failures only.

    Args:
        run: whose faults and attempts count.
        settings: names of what it was given: with a handler of the reader's own, theory knows nothing.
    """
    if "handler" in settings or "classify" in settings or run.faults.outage:
        return nan
    return dead_share(run.faults, run.consumer.policy)


def number(text: str) -> int | None:
    """Read a prediction; what is no whole number is none."""
    return int(text) if text.strip().isdecimal() else None


def _verdict(number: int, mean: float, band: float) -> str:
    if abs(number - mean) <= band:
        return "within chance"
    return "too few for chance" if number < mean else "too many for chance"
