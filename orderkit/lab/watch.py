"""What is looked after while a run goes on: one that waits may have lost its broker."""

from __future__ import annotations

import asyncio
import time

from orderkit.account.tally import AVERAGED, DEAD, SKIPPED
from orderkit.errors import OrderkitError
from orderkit.run import Run

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
