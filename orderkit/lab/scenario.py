"""The same orders, run several times with one thing changed: side by side on one figure, and a row each in a frame."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import pandas as pd

from orderkit.account.expected import dead_share
from orderkit.brokers import Broker
from orderkit.errors import UsageError
from orderkit.kafka import Connection
from orderkit.lab.experiment import experiment
from orderkit.lab.picture import Picture
from orderkit.lab.plots import columns, legend
from orderkit.run import Run
from orderkit.show.chart import add_dead

PATIENCE = 60.0  # seconds for one run
SAME = ("seed", "orders")  # what makes the orders the same
OWN = {"handler", "classify"}  # the reader's own code: theory knows the kit's failures only
COLUMNS = ("averaged", "dead", "skipped", "retries", "lost", "duplicated")


class Scenario:
    """Runs of the same orders, one after the other; whoever looks at it sees a panel for each.

    Args:
        broker: where they happen.
        changes: for each run a name, and what is different in it, as `experiment` takes it.
        common: what is the same in all of them.

    Raises:
        UsageError: no run, a change of the orders themselves, or a value that cannot be; the line names it.
    """

    def __init__(self, broker: Broker | Connection, changes: Mapping[str, Mapping[str, Any]], **common: Any) -> None:
        if not changes:
            raise UsageError("A scenario has one run or more: give each a name, and what is different in it.")
        for name, change in changes.items():
            if wrong := [it for it in SAME if it in change]:
                raise UsageError(
                    f"{name}: {wrong[0]} is the same in all runs of a scenario; give it once, beside them."
                )
        self.runs: dict[str, Run] = {
            name: experiment(broker, **{**common, **change}) for name, change in changes.items()
        }
        self._known = {name: not OWN & {*common, *change} for name, change in changes.items()}

    def run(self, patience: float = PATIENCE) -> Scenario:
        """Let all runs happen, one after the other, so that none takes another's time.

        Args:
            patience: seconds for each.

        Raises:
            OrderkitError: a run was not over in time, or ended with an error.
        """
        for one in self.runs.values():
            one.start().wait(patience)
        return self

    def frame(self) -> pd.DataFrame:
        """Give a row for each run, under its name.

        `averaged`, `dead`, `skipped`, `retries`, `lost` and `duplicated` are numbers (int64), as in its account;
        `expected` is the number of dead that theory says (float64; NaN where a handler or a classifier is the reader's
        own), and `average` the price of those averaged (float64).
        """
        rows = {name: self._row(name, one) for name, one in self.runs.items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def _row(self, name: str, one: Run) -> dict[str, float]:
        told: dict[str, Any] = one.report().as_dict()
        expected = one.ledger.finished * self._share(name, one)
        return {it: told[it] for it in COLUMNS} | {"expected": expected, "average": float(told["average"])}

    def _share(self, name: str, one: Run) -> float:
        return dead_share(one.faults, one.consumer.policy) if self._known[name] else nan

    def picture(self) -> Picture:
        """Draw the dead letters of each run against theory: a panel each, side by side on the same scales."""
        figure, panels = columns(list(self.runs), "orders", "dead letters")
        for axes, (name, one) in zip(panels, self.runs.items(), strict=True):
            add_dead(axes, one.ledger, self._share(name, one))
        legend(panels[0], "upper left")
        return Picture(figure, "; ".join(f"{name}: {self._told(name, one)}" for name, one in self.runs.items()))

    def _told(self, name: str, one: Run) -> str:
        dead, expected = one.report().dead, one.ledger.finished * self._share(name, one)
        return f"{dead} dead, {expected:.1f} expected" if self._known[name] else f"{dead} dead"

    def _repr_mimebundle_(self, **more: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return self.picture()._repr_mimebundle_(**more)
