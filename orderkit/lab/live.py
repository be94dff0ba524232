"""A chart that follows a run while its cell runs, and stays in the saved notebook."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from IPython import get_ipython
from IPython.display import display

from orderkit.chart import RunChart
from orderkit.lab.picture import Picture
from orderkit.run import Run

PATIENCE = 20.0  # seconds that an interrupted run has to commit what is done
SPARING = 12  # a run at full speed loses less than a tenth of its time to frames


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
        self._chart.update(run.ledger)
        return self.picture

    async def follow(self, run: Run) -> None:
        """Show a run until it is over; start it first, if need be. An interrupt stops the run too.

        Raises:
            OrderkitError: the run failed; whatever else the run raised is raised as well.
        """
        slot = self._open(run)
        try:
            if not run.started:
                run.start()
            due = 0.0
            while run.alive:
                await asyncio.sleep(self.every)
                if slot is not None and time.monotonic() >= due:
                    start = time.monotonic()
                    slot.update(self.draw(run))
                    due = self._due(run, time.monotonic() - start)
        finally:
            run.stop()
            run.join(PATIENCE)
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
