"""Who looks on, and what is looked after: a run that waits may have lost its broker."""

from __future__ import annotations

import asyncio
import time

from IPython import get_ipython

from orderkit.account.tally import AVERAGED, DEAD, SKIPPED
from orderkit.errors import OrderkitError
from orderkit.lab.controls import Controls
from orderkit.run import Run

SILENT = 10.0  # seconds in which a page that shows the controls says so
DEAF = "running as given: on this page sliders and buttons wait until the cell has ended. Press Run again then."
QUIET = 5.0  # seconds without any news, after which the broker is asked whether it is still there


class Watch:
    """Notices a broker that is gone: a run of which nothing is heard may just wait, so the broker is asked.

    Args:
        run: what to look at.
    """

    def __init__(self, run: Run) -> None:
        self.gone = False
        self._run = run
        self._last = (0, 0)
        self._since = time.monotonic()

    async def look(self) -> None:
        """Ask the broker, if nothing has happened for a while.

        Raises:
            OrderkitError: it does not answer; says what became of the orders.
        """
        run, now = self._run, (len(self._run.ledger), self._run.produced.acknowledged)
        if now != self._last:
            self._last, self._since = now, time.monotonic()
        if time.monotonic() - self._since < QUIET:
            return
        try:
            await asyncio.to_thread(run.connection.partitions, run.topic)
        except OrderkitError:
            self.gone = True
            raise OrderkitError(_farewell(run)) from None
        self._since = time.monotonic()


def _farewell(run: Run) -> str:
    """Say what became of the orders of a run whose broker is gone."""
    sent, counts = run.produced.sent, run.ledger.counts
    told = f"{sent} produced, {counts[AVERAGED]} averaged, {counts[DEAD]} dead, {counts[SKIPPED]} skipped"
    in_flight = sent - run.ledger.finished
    return f"The broker is gone: {told}, {in_flight} in flight. Open a new broker, and run the cell again."


def has_a_page() -> bool:
    """Say whether a cell runs for somebody who sees it: a page names the cell, papermill and nbval do not."""
    kernel = getattr(get_ipython(), "kernel", None)
    return bool(kernel and kernel.get_parent().get("metadata", {}).get("cellId"))


async def pressed(go: asyncio.Event, controls: Controls) -> bool:
    """Wait until Run is pressed; give up on a page of which nothing is heard.

    With ipykernel before 7.2, and on pages that know nothing of its subshells, messages wait while a cell runs: who
    waits for a button there waits for ever.
    """
    deadline = time.monotonic() + SILENT
    while not (go.is_set() or controls.heard):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    await go.wait()
    return True
