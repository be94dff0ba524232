"""Exercises that check themselves, and never stop a notebook."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from random import Random
from typing import Any

SEEDS = 200
Case = tuple[tuple[Any, ...], Any]  # arguments, and what is right for them


def check(claim: str, answer: Any, truth: Any) -> None:
    """Print whether an answer is right: `todo`, `not yet` with a counter-example, or `right`. Never raises.

    Args:
        claim: what the answer is about.
        answer: a value, or a function; `...` and `None` mean that it is still to come.
        truth: the right value; for a function, one that makes a case from a random generator: the arguments, and what
            is right for them. It is asked on many seeds.
    """
    try:
        flaw = _flaw(answer, truth)
    except NotImplementedError:
        flaw = ...
    except Exception as error:  # an exercise half done must not stop the cells after it
        flaw = f"it raised {type(error).__name__}: {error}"
    if flaw is ...:
        print(f"todo     {claim}")
    elif flaw is None:
        print(f"right    {claim}")
    else:
        print(f"not yet  {claim}: {flaw}")


def _flaw(answer: Any, truth: Any) -> Any:
    """Find what is wrong: nothing (`None`), a text, or `...` for no answer yet."""
    if is_missing(answer):
        return ...
    if not callable(truth):
        return None if _same(answer, truth) else f"{answer!r} is not it"
    if not callable(answer):
        return f"{answer!r} is no function"
    return _counter_example(answer, truth)


def _counter_example(answer: Callable[..., Any], truth: Callable[[Random], Case]) -> Any:
    for seed in range(SEEDS):
        arguments, right = truth(Random(seed))
        call = f"{getattr(answer, '__name__', 'your function')}({', '.join(map(repr, arguments))})"
        try:
            got = answer(*arguments)
        except NotImplementedError:
            return ...
        except Exception as error:
            return f"{call} raised {type(error).__name__}: {error}"
        if is_missing(got):
            return ...
        if not _same(got, right):
            return f"{call} gave {got!r}; {right!r} is right"
    return None


def is_missing(answer: Any) -> bool:
    """Say whether an answer is still to come."""
    return answer is None or answer is ...


def _same(got: Any, right: Any) -> bool:
    if isinstance(right, Real) and isinstance(got, Real):
        return math.isclose(got, right, rel_tol=1e-6, abs_tol=1e-9)
    return bool(got == right)
