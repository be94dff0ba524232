"""The picture of an exercise: what is right across, what yours gave upwards. A right answer lies on the diagonal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from numbers import Real
from random import Random
from typing import Any

from orderkit.lab.check import Case, is_missing
from orderkit.lab.picture import Picture
from orderkit.lab.plots import GREY, legend, panel
from orderkit.show.chart import COLOURS

CASES = 100
BROKEN = "an error"


def compare(answer: Callable[..., Any], truth: Callable[[Random], Case]) -> Picture:
    """Draw the answer of an exercise against the target, over many cases. Never raises.

    Args:
        answer: a function; while it gives `...` or `None`, only the target is drawn.
        truth: makes a case from a random generator, as `check` takes it.
    """
    pairs = [_pair(answer, *truth(Random(seed))) for seed in range(CASES)]
    given = [(right, got) for right, got in pairs if not is_missing(got)]
    numeric = all(isinstance(value, Real) for pair in given or [(right, right) for right, _ in pairs] for value in pair)
    names = [] if numeric else sorted({str(value) for pair in pairs for value in pair if not is_missing(value)})
    place = float if numeric else lambda value: names.index(str(value))
    figure, axes = panel("what is right", "what yours gives", "", left=0.14)
    targets = sorted({place(right) for right, got in pairs if isinstance(right, Real) or not numeric})
    axes.plot([targets[0], targets[-1]], [targets[0], targets[-1]], "--", color=GREY, label="target")
    for (x, y), many in Counter((place(right), place(got)) for right, got in given).items():
        colour = COLOURS["averaged"] if x == y or (numeric and abs(x - y) <= 1e-6 * abs(x)) else COLOURS["dead"]
        axes.plot([x], [y], "o", color=colour, alpha=0.7, markersize=5 + (0 if numeric else many**0.5))
    if not given:
        axes.plot(targets, targets, "o", color=COLOURS["retry"], markersize=5, label="where your dots belong")
    for axis in () if numeric else (axes.xaxis, axes.yaxis):
        axis.set_ticks(range(len(names)), names)
    told = "Target only; no answer yet" if not given else "Target, and your answers"
    axes.set_title(told)
    legend(axes, "upper left")
    return Picture(figure, told)


def _pair(answer: Callable[..., Any], arguments: tuple[Any, ...], right: Any) -> tuple[Any, Any]:
    try:
        return right, answer(*arguments)
    except NotImplementedError:
        return right, ...
    except Exception:  # an answer half done gets its dots all the same
        return right, float("nan") if isinstance(right, Real) else BROKEN
