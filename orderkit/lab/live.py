"""A run that is watched and tuned while its cell runs: controls, a chart, and what theory expects, in one view."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, ClassVar

from IPython import get_ipython
from IPython.display import display

from orderkit.account.expected import Change, Expected
from orderkit.account.tally import DEAD
from orderkit.brokers import Broker, EmbeddedBroker
from orderkit.errors import Interrupted
from orderkit.kafka import Connection
from orderkit.lab.controls import GOING, Controls
from orderkit.lab.experiment import experiment
from orderkit.lab.page import DEAF, has_a_page, pace, pressed
from orderkit.lab.picture import Picture
from orderkit.lab.score import number, score, share
from orderkit.lab.watch import Watch
from orderkit.retry.backoff import Backoff
from orderkit.run import LETTER_BYTES, ORDER_BYTES, PATIENCE, Run
from orderkit.show.run_chart import RunChart

SPARING = 20  # a run at full speed loses a twentieth of its time to frames
ONE_MOVE = 1.5  # seconds between two steps of one slider that count as one move
LATER = (0.6, 1.6)  # seconds after which it comes into view again: JupyterLab scrolls to the last cell for a while
ENDLESS = 10**9  # orders: on a broker that keeps all of them
# The text is the same in the first frame and in the last: comparers of notebooks look at either.
TEXT = "The running average, the dead beside what theory expects, and the attempts that failed"


class Live:
    """A run with its chart and its controls: `live = lab.Live(broker, **settings)`, then `await live.play()`.

    The cell awaits, so the kernel is free for slider messages meanwhile. The chart only reads the ledger. Where nobody
    looks on, as under papermill, no pace is kept, and neither back-off nor prediction awaited; fates are the same.

    Args:
        broker: where it happens.
        predict: ask how many will die, and begin when that is answered; else begin at once.
        endless: let orders flow until Stop is pressed, or until the broker keeps no more.
        every: seconds between two frames; in VS Code half a second at least.
        settings: what `experiment` takes.

    Raises:
        UsageError: a value that cannot be; the line names it.
    """

    _playing: ClassVar[Live | None] = None  # one at a time: a run that nobody sees any more takes the pace from others

    def __init__(
        self,
        broker: Broker | Connection,
        *,
        predict: bool = True,
        endless: bool = False,
        every: float = 0.125,
        **settings: Any,
    ) -> None:
        self.state = "ready"
        self._broker, self._settings, self._every = broker, settings, every
        self._predict, self._endless = predict and not endless, endless
        self._slot: Any = None
        self._task: asyncio.Task[None] | None = None
        self._moved = ("", 0.0)  # the slider that was moved last, and when
        self._full = self._interrupted = self._deaf = False
        self._make()
        self.controls = Controls(self.run, self._pressed, self._note, predict=self._predict)

    def _make(self) -> None:
        """Make a run with topics of its own, and its chart."""
        settings = dict(self._settings)
        if self._endless:
            settings["orders"] = self._room(ORDER_BYTES) or ENDLESS
        self.run: Run = experiment(self._broker, **settings)
        self.guess: int | None = None
        self.expected = Expected(share(self.run, self._settings))
        skips = self.run.consumer.policy.when_spent == "skip"
        self._chart = RunChart(self.run.ledger, self.expected, skips=skips)
        self.picture = Picture(self._chart.figure, TEXT, live=True)

    def _room(self, size: int) -> int:
        """Say how many records of this size the broker keeps in each of the run's topics; 0 for no limit."""
        partitions = self._settings.get("partitions", 4)
        return self._broker.room(size, partitions) if isinstance(self._broker, EmbeddedBroker) else 0

    async def play(self) -> None:
        """Show controls and chart, run to the end, and leave the last frame in the cell.

        Raises:
            Interrupted: the kernel was; the run is stopped, and what was done is committed.
            OrderkitError: the run failed, or the broker is gone; whatever else the run raised is raised as well.
        """
        await self._take_over()
        self._loop, self._go = asyncio.get_running_loop(), asyncio.Event()
        if self.run.started:
            self._make()
        person, self._every = has_a_page(), pace(self._every)
        if not person:
            self._hurry()
        self._open()
        try:
            if person and self._predict:
                self._tell("ready")
                self._deaf = not await pressed(self._go, lambda: self.controls.heard)
            await self._follow()
        except asyncio.CancelledError:
            if get_ipython() is None:
                raise
            raise Interrupted(self.run.farewell) from None
        self.run.wait()

    async def _take_over(self) -> None:
        """Stop the run that plays now, and let it have its last frame."""
        before, Live._playing = Live._playing, self
        task = before._task if before else None
        if before:
            before.run.stop()
        if task and task is not asyncio.current_task() and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])

    def _hurry(self) -> None:
        """Take out what is there for eyes: the pace, and the waits between attempts. No fate depends on either."""
        self.run.producer.every = 0.0
        self.run.consumer.policy = replace(self.run.consumer.policy, backoff=Backoff("fixed", 0.0))

    def _open(self) -> None:
        """Show the controls, and below them the chart in a slot of its own; a plain script has neither."""
        show: Any = display  # IPython has no types for it
        self.controls.show(self.run)
        if get_ipython():
            show(self.controls)
            self._slot = show(self.draw(), display_id=True)

    def draw(self) -> Picture:
        """Draw one frame."""
        in_flight = self.run.produced.sent - self.run.ledger.finished
        self._chart.update(self.state, in_flight)
        return self.picture

    def _frame(self) -> None:
        frame = self.draw()
        if self._slot is not None:
            self._slot.update(frame)

    async def _follow(self) -> None:
        """Start the run and draw it until it is over. Whatever happens, it is stopped then."""
        run, watch, due = self.run, Watch(self.run), 0.0
        self._full = self._interrupted = False
        self.guess = number(self.controls.guess.value)
        self._tell("running")
        run.start()
        try:
            while run.alive:
                start = time.monotonic()
                if start >= due:
                    self._frame()
                    cost = time.monotonic() - start
                    due = 0.0 if run.producer.every else time.monotonic() + SPARING * cost
                await asyncio.sleep(max(0.02, self._every - (time.monotonic() - start)))
                await watch.look()
                self._look_for_room()
        except asyncio.CancelledError:
            self._interrupted = True
            raise
        finally:
            stopped = run.produced.sent < run.orders
            run.stop()
            run.join(0.0 if watch.gone else PATIENCE)  # without a broker there is nothing to commit to
            self._tell(self._end(stopped=stopped))
            self._frame()  # sent from the cell that awaits: this is the frame that is saved

    def _look_for_room(self) -> None:
        """Stop an endless run before its broker drops the oldest records."""
        room = self._room(LETTER_BYTES)
        if self._endless and room and self.run.ledger.counts[DEAD] >= room:
            self._full = True
            self.run.stop()

    def _end(self, *, stopped: bool) -> str:
        if self.run.error is not None:
            return "failed"
        if self._interrupted:
            return "interrupted"
        if self._full or (self._endless and not stopped):
            return "full"
        return "stopped" if stopped else "finished"

    def _tell(self, state: str) -> None:
        """Say how things stand, and let be pressed what makes sense now."""
        self.state = state
        told = {
            "ready": f"How many of {self.run.orders} orders will die? Then press Run.",
            "running": DEAF if self._deaf else "running: move a slider, and see what follows",
            "paused": "paused: no further orders until you press Go on",
            "full": f"full: the embedded broker keeps no more. {self}",
        }
        self.controls.allow(state, told.get(state, f"{state}. {self}"))

    def __str__(self) -> str:
        return score(self.run, self.expected, self.guess)

    def _note(self, knob: str, old: str, new: str) -> None:
        """Mark a change in the chart, and let theory go on with it."""
        ledger, last = self.run.ledger, self._moved
        self._moved = (knob, time.monotonic())
        further = last[0] == knob and self._moved[1] - last[1] < ONE_MOVE
        event = ledger.dropped + len(ledger)
        self.expected.change(Change(event, ledger.finished, share(self.run, self._settings), knob, old, new, further))

    def _pressed(self, what: str) -> None:
        """Do what a button says. The browser's word may come in a thread that is not the loop's."""
        if what == "stop":
            self.run.stop()
        elif what == "pause" and self.state in GOING:  # a page may be late
            paused = self.run.producer.paused = not self.run.producer.paused
            self._tell("paused" if paused else "running")
        elif what == "shown":
            self._deaf = False
            if self.state == "running":
                self._tell("running")  # begun before anybody saw it
            for delay in (0.0, *LATER):
                self._loop.call_soon_threadsafe(self._loop.call_later, delay, self.controls.come_into_view)
        elif what == "start":
            self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        if self.state == "ready":
            self._go.set()
        elif self.state not in GOING:
            self._task = self._loop.create_task(self._replay())

    async def _replay(self) -> None:
        """Run again, in the same view, beside whatever cell runs."""
        try:
            await self._take_over()
            self._deaf = False  # no cell runs that would hold messages back
            self._make()
            self.controls.show(self.run)
            await self._follow()
            self.run.wait()
        except Exception as error:  # no cell waits for it
            self.controls.state.value = f"{type(error).__name__}: {error}"
