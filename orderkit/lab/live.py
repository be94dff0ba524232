"""A chart that follows a run while its cell runs, and stays in the saved notebook."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from IPython import get_ipython
from IPython.display import display

from orderkit.account.tally import AVERAGED, DEAD, SKIPPED
from orderkit.errors import OrderkitError
from orderkit.lab.picture import Picture
from orderkit.run import Run
from orderkit.show.chart import RunChart

PATIENCE = 20.0  # seconds that an interrupted run has to commit what is done
QUIET = 5.0  # seconds without any news, after which the broker is asked whether it is still there
SPARING = 20  # a run at full speed loses a twentieth of its time to frames


class LiveChart:
    """One picture in one display slot, drawn again and again: `await LiveChart().follow(run)`.

    The cell awaits, so the kernel is free for slider messages meanwhile. The chart only reads the ledger.

    Args:
        every: seconds between two frames.
    """

    def __init__(self, every: float = 0.25) -> None:
        self.every = every
        self._chart = RunChart()
        # The text is the same in the first frame and in the last: comparers of notebooks look at either.
        self.picture = Picture(self._chart.figure, "The running average, and below it the attempts that failed")

    def draw(self, run: Run) -> Picture:
        """Draw one frame."""
        in_flight = run.produced.sent - run.ledger.finished
        axes = self._chart.update(run.ledger).axes[0]
        if in_flight > 0:
            axes.title.set_text(f"{axes.get_title()}; {in_flight} in flight")
        return self.picture

    async def follow(self, run: Run) -> None:
        """Show a run until it is over; start it first, if need be. An interrupt stops the run too.

        Raises:
            OrderkitError: the run failed, or the broker is gone; whatever else the run raised is raised as well.
        """
        start = time.monotonic()
        slot, watch = self._open(run), _Watch(run)
        due = self._due(run, time.monotonic() - start)
        try:
            if not run.started:
                run.start()
            while run.alive:
                await asyncio.sleep(self.every)
                await watch.look()
                if slot is not None and time.monotonic() >= due:
                    start = time.monotonic()
                    slot.update(self.draw(run))
                    due = self._due(run, time.monotonic() - start)
        finally:
            run.stop()
            run.join(0.0 if watch.gone else PATIENCE)  # without a broker there is nothing to commit to
            frame = self.draw(run)
            if slot is not None:
                slot.update(frame)  # sent from the cell that awaits: this is the frame that is saved
        run.wait()

    def _due(self, run: Run, cost: float) -> float:
        """Say when the next frame may come: orders that flow as fast as they can need the processor for themselves."""
        return 0.0 if run.producer.every else time.monotonic() + SPARING * cost

    def _open(self, run: Run) -> Any:
        """Open the display slot; a plain script has none."""
        show: Any = display  # IPython has no types for it
        return show(self.draw(run), display_id=True) if get_ipython() else None


class _Watch:
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
