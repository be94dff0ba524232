"""Sliders and buttons of a live run. Each slider only sets an attribute; whatever is attempted next goes by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ipywidgets import HTML, Button, Dropdown, FloatSlider, HBox, IntSlider, Label, SelectionSlider, Text, VBox

from orderkit.lab.page import listen, unbind
from orderkit.retry.backoff import FORMULAS
from orderkit.run import Run

GOING = ("running", "paused")  # how a run stands that can be tuned
RATES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
# The browser scrolls to what has the focus, and keeps so much room around it: the sliders and the chart below them.
ROOM = "<style>.orderkit-start { scroll-margin: 8px 0 522px; }</style>"


class Controls:
    """The widgets of a live run, and the box that shows them.

    Args:
        run: what they tune first.
        press: called with what was pressed, `start`, `pause` or `stop`; with `shown` when a page shows it all first.
        note: called with each change in words: what, from, to.
        predict: ask for a prediction.
    """

    def __init__(
        self, run: Run, press: Callable[[str], None], note: Callable[[str, str, str], None], *, predict: bool = True
    ) -> None:
        self.heard = False  # whether a page's messages come through
        self._run: Run | None = None
        self._touched = False
        self._note = note
        self.failure_rate = FloatSlider(min=0, max=1, step=0.05, description="failure rate")
        self.poison_rate = FloatSlider(min=0, max=1, step=0.01, description="poison rate")
        self.rate = SelectionSlider(options=_rates(0.0), description="orders/s")
        self.max_attempts = IntSlider(min=1, max=10, description="attempts")
        self.backoff = Dropdown(options=list(FORMULAS), description="back-off")
        self.backoff_base = FloatSlider(min=0, max=1, step=0.01, description="base, s")
        self.guess = Text(placeholder="your number", description="dead?", disabled=not predict)
        self.start, self.pause, self.stop = Button(description="Run"), Button(description="Pause"), Button()
        self.stop.description = "Stop"
        self.state = Label()
        self._sliders = [self.failure_rate, self.poison_rate, self.rate]
        self._sliders += [self.max_attempts, self.backoff, self.backoff_base]
        self._heard = [*self._sliders, self.guess, self.start, self.pause, self.stop]
        for widget in self._heard:
            listen(widget)
        for name in ("start", "pause", "stop"):
            getattr(self, name).on_click(lambda _, name=name: self._pressed(press, name))
        self._connect()
        self._lay_out(press, predict=predict)
        self.show(run)

    def _lay_out(self, press: Callable[[str], None], *, predict: bool) -> None:
        for slider in self._sliders:
            slider.continuous_update = False  # the value arrives when the slider is let go
            slider.style.description_width = "6em"
            slider.layout.width = "20.5em"
        self.guess.style.description_width = "6em"
        self.guess.layout.width = "15em"
        for button, width in ((self.start, "7em"), (self.pause, "5em"), (self.stop, "5em")):
            button.layout.width = width
        self.state.add_class("orderkit-state")
        top = [*([self.guess] if predict else []), self.start, self.pause, self.stop]
        rows = [HBox(top), HBox(self._sliders[:3]), HBox(self._sliders[3:]), self.state]
        self.box = VBox([HTML(ROOM), *rows])
        self.box.children[0].layout.display = "none"
        self.start.add_class("orderkit-start")
        self.pause.add_class("orderkit-start")
        self.start._view_count = 0  # tells when a page shows it
        self.start.observe(lambda change: self._seen(press, first=change["old"] == 0), "_view_count")

    def _seen(self, press: Callable[[str], None], *, first: bool) -> None:
        self.heard = True
        if first:
            press("shown")

    def _pressed(self, press: Callable[[str], None], name: str) -> None:
        self._touched = True
        press(name)

    def come_into_view(self) -> None:
        """Take the focus, and with it the page, as long as no hand was there: "Run All" leaves it at the last cell."""
        if not self._touched:
            button = self.pause if self.start.disabled else self.start
            button.blur()  # what has the focus already is not scrolled to
            button.focus()
            self._unbind()

    def show(self, run: Run) -> None:
        """Put every slider where this run is."""
        self._run = None  # nothing is set back meanwhile
        policy, every = run.consumer.policy, run.producer.every
        self.failure_rate.value, self.poison_rate.value = run.faults.transient_rate, run.faults.poison_rate
        self.rate.options = _rates(every)
        self.rate.value = every
        self.max_attempts.max = max(10, policy.max_attempts)
        self.max_attempts.value = policy.max_attempts
        self.backoff.value = policy.backoff.kind
        self.backoff_base.max = max(1.0, policy.backoff.base)
        self.backoff_base.value = policy.backoff.base
        self._run = run
        self._unbind()

    def allow(self, state: str, told: str) -> None:
        """Say how things stand, and enable what makes sense: sliders, Pause and Stop go with a run, Run without one."""
        going = state in GOING
        for widget in (*self._sliders, self.pause, self.stop):
            widget.disabled = not going
        self.start.disabled = self.guess.disabled = going
        if not going:
            self.start.description = "Run" if state == "ready" else "Run again"
        self.pause.description = "Go on" if state == "paused" else "Pause"
        self.state.value = told
        self._unbind()

    def _unbind(self) -> None:
        """To be called when the kernel has spoken of the widgets."""
        for widget in self._heard:
            unbind(widget)

    def _connect(self) -> None:
        self._on_change(self.failure_rate, lambda run, value: setattr(run.faults, "transient_rate", value))
        self._on_change(self.poison_rate, lambda run, value: setattr(run.faults, "poison_rate", value))
        self._on_change(self.rate, lambda run, value: setattr(run.producer, "every", value))
        self._on_change(self.max_attempts, lambda run, value: _set_policy(run, max_attempts=value))
        self._on_change(self.backoff, lambda run, value: _set_backoff(run, kind=value))
        self._on_change(self.backoff_base, lambda run, value: _set_backoff(run, base=value))

    def _on_change(self, widget: Any, do: Callable[[Run, Any], None]) -> None:
        def changed(change: Any) -> None:
            if self._run is not None:
                self._touched = True
                do(self._run, change["new"])
                self._note(widget.description, _told(widget, change["old"]), _told(widget, change["new"]))

        widget.observe(changed, "value")

    def __repr__(self) -> str:
        return (
            "In a live notebook: sliders for failure rate, poison rate, orders a second, attempts, back-off and its "
            "base; the buttons Run, Pause and Stop"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(**kwargs), "text/plain": repr(self)}


def _set_policy(run: Run, **changes: Any) -> None:
    run.consumer.policy = replace(run.consumer.policy, **changes)


def _set_backoff(run: Run, **changes: Any) -> None:
    _set_policy(run, backoff=replace(run.consumer.policy.backoff, **changes))


def _told(widget: Any, value: Any) -> str:
    """Give a value as its slider shows it."""
    if isinstance(widget, SelectionSlider):
        return next((label for label, one in widget.options if one == value), f"{value}")
    return f"{value:.2f}" if isinstance(value, float) else f"{value}"


def _rates(every: float) -> list[tuple[str, float]]:
    """List the rates to choose from, as label and seconds between two orders; the run's own is among them."""
    choices = {1 / rate for rate in RATES} | ({every} if every else set())
    return [(f"{1 / one:g}", one) for one in sorted(choices, reverse=True)] + [("no limit", 0.0)]
