"""Sliders and buttons for a run. Each only sets an attribute; whatever is attempted next goes by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ipywidgets import Button, Dropdown, FloatSlider, HBox, IntSlider, SelectionSlider, ToggleButton, VBox

from orderkit.retry.backoff import FORMULAS
from orderkit.run import Run

RATES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)


class Controls:
    """The widgets of one run, and the box that shows them.

    Args:
        run: what they tune.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        policy, every = run.consumer.policy, run.producer.every
        base = policy.backoff.base
        self.failure_rate = FloatSlider(run.faults.transient_rate, min=0, max=1, step=0.05, description="failure rate")
        self.poison_rate = FloatSlider(run.faults.poison_rate, min=0, max=1, step=0.01, description="poison rate")
        self.max_attempts = IntSlider(
            policy.max_attempts, min=1, max=max(10, policy.max_attempts), description="max attempts"
        )
        self.backoff = Dropdown(options=list(FORMULAS), value=policy.backoff.kind, description="back-off")
        self.backoff_base = FloatSlider(base, min=0, max=max(1.0, base), step=0.01, description="base, seconds")
        self.rate = SelectionSlider(options=_rates(every), value=every, description="orders a second")
        self.pause = ToggleButton(run.producer.paused, description="Pause")
        self.stop = Button(description="Stop")
        knobs = (self.failure_rate, self.poison_rate, self.max_attempts, self.backoff_base, self.rate)
        for knob in knobs:
            knob.continuous_update = False  # the value arrives when the slider is let go
        for knob in (*knobs, self.backoff):
            knob.style.description_width = "8.5em"
            knob.layout.width = "24em"
        for widget in (*knobs, self.backoff, self.pause, self.stop):
            _unbind(widget)
        self._connect()
        self.box = VBox(
            [
                HBox([VBox([self.failure_rate, self.poison_rate, self.rate]),
                      VBox([self.max_attempts, self.backoff, self.backoff_base])]),
                HBox([self.pause, self.stop]),
            ]
        )  # fmt: skip

    def _connect(self) -> None:
        run = self._run
        _on_change(self.failure_rate, lambda value: setattr(run.faults, "transient_rate", value))
        _on_change(self.poison_rate, lambda value: setattr(run.faults, "poison_rate", value))
        _on_change(self.rate, lambda value: setattr(run.producer, "every", value))
        _on_change(self.max_attempts, lambda value: self._set_policy(max_attempts=value))
        _on_change(self.backoff, lambda value: self._set_backoff(kind=value))
        _on_change(self.backoff_base, lambda value: self._set_backoff(base=value))
        _on_change(self.pause, lambda value: setattr(run.producer, "paused", value))
        self.stop.on_click(lambda _: run.stop())

    def _set_policy(self, **changes: Any) -> None:
        consumer = self._run.consumer
        consumer.policy = replace(consumer.policy, **changes)

    def _set_backoff(self, **changes: Any) -> None:
        self._set_policy(backoff=replace(self._run.consumer.policy.backoff, **changes))

    def __repr__(self) -> str:
        return (
            "Sliders, in a live notebook: failure rate, poison rate, orders a second, "
            "max attempts, back-off and its base; the buttons Pause and Stop"
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(**kwargs), "text/plain": repr(self)}


def _unbind(widget: Any) -> None:
    """Let a widget's changes arrive where the browser sends them, beside the cell that runs.

    ipykernel 7.4 takes them to where the widget was made, which is that cell, and while it awaits they are not
    acknowledged. The browser holds back all further changes of a widget until one is: it would work only once.
    """
    getattr(widget.comm, "__dict__", {}).pop("_reply_subshell_id", None)


def _on_change(widget: Any, do: Callable[[Any], None]) -> None:
    widget.observe(lambda change: do(change["new"]), "value")


def _rates(every: float) -> list[tuple[str, float]]:
    """List the rates to choose from, as label and seconds between two orders; the run's own is among them."""
    choices = {1 / rate for rate in RATES} | ({every} if every else set())
    return [(f"{1 / one:g}", one) for one in sorted(choices, reverse=True)] + [("no limit", 0.0)]


def controls(run: Run) -> Controls:
    """Make the sliders of a run; in a notebook the last line of a cell shows them, or `display` does."""
    return Controls(run)
