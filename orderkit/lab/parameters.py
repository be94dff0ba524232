"""The guard on a notebook's parameters: a wrong name or value stops the run with a line that names it."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from IPython import get_ipython

from orderkit.consuming.consumers import ENGINE_NAMES
from orderkit.delivery import MODES
from orderkit.errors import UsageError
from orderkit.orders.avro import WIRES
from orderkit.retry.backoff import FORMULAS

INJECTED = "# Parameters\n"  # how papermill's cell with the values that it was given begins


@dataclass(frozen=True)
class Rule:
    """What a value has to be.

    Args:
        told: the rule in words, after "it must be".
        allows: says whether a value keeps it.
    """

    told: str
    allows: Callable[[object], bool]


def number(told: str, low: float = 0.0, high: float = math.inf) -> Rule:
    """Make a rule for a finite number from `low` to `high`."""

    def allows(value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return low <= value <= high and math.isfinite(value)

    return Rule(told, allows)


def whole(low: int) -> Rule:
    """Make a rule for a whole number, `low` or more."""
    told = f"a whole number, {low} or more"
    return Rule(told, lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low)


def between(low: int, high: int) -> Rule:
    """Make a rule for a whole number from `low` to `high`."""
    rule = number(f"a whole number from {low} to {high}", low, high)
    return Rule(rule.told, lambda value: isinstance(value, int) and rule.allows(value))


def one_of(names: tuple[str, ...]) -> Rule:
    """Make a rule for one word of a list."""
    return Rule(f"one of: {', '.join(names)}", lambda value: value in names)


SHARE = number("a share from 0 to 1", high=1.0)
SECONDS = number("seconds, 0 or more")
TEXT = Rule("a text that is not empty", lambda value: isinstance(value, str) and bool(value))
RULES = {
    "orders": whole(1),
    "letters": between(400, 40_000),
    "replay_rate": number("letters a second, from 500 to 50,000", 500, 50_000),
    "endless": Rule("True or False", lambda value: isinstance(value, bool)),
    "rate": number("orders a second, 0 (as fast as it goes) or more"),
    "pace": number("orders a second, from 1 to 1000", 1, 1000),
    "failure_rate": SHARE,
    "poison_rate": SHARE,
    "permanent_rate": SHARE,
    "max_attempts": whole(1),
    "backoff": one_of(tuple(FORMULAS)),
    "backoff_base": SECONDS,
    "backoff_cap": SECONDS,
    "seconds_down": number("seconds, from 0.1 to 20", 0.1, 20),
    "batch": whole(1),
    "crash_at": whole(1),
    "clients": whole(1),
    "partitions": whole(1),
    "engine": one_of(ENGINE_NAMES),
    "delivery": one_of(tuple(MODES)),
    "order_id": TEXT,
    "product": TEXT,
    "price": number("a price from 0 to 1,000,000", high=1e6),
    "wire": one_of(WIRES),
    "seed": whole(0),
}


def check_values(given: Mapping[str, object]) -> None:
    """Hold each value against the rule of its name; a name without a rule takes anything.

    Raises:
        UsageError: one breaks its rule; the line names it.
    """
    for name, value in given.items():
        rule = RULES.get(name)
        if rule is not None and not rule.allows(value):
            raise UsageError(f"{name} is {value!r}; it must be {rule.told}.")


def parameters(**given: Any) -> dict[str, Any]:
    """Check the parameters of a notebook, and give them back as a dict. Call it in the cell after them.

    papermill only warns of a name that no notebook reads, and the run would be one with other numbers than its caller
    believes. So the cell that papermill puts behind the parameters is read as well.

    Args:
        given: every parameter by its name.

    Raises:
        UsageError: a value that cannot be, or a name that this notebook does not have.
    """
    for name in _injected():
        if name not in given:
            raise UsageError(f"This notebook has no parameter {name!r}. It has: {', '.join(given)}.")
    check_values(given)
    return given


def _injected() -> Iterator[str]:
    """List the names that papermill assigned, as far as this kernel remembers its cells."""
    shell: Any = get_ipython()
    for cell in shell.user_ns.get("In", []) if shell else []:
        if cell.startswith(INJECTED):
            for line in ast.parse(cell).body:
                targets = line.targets if isinstance(line, ast.Assign) else []
                yield from (target.id for target in targets if isinstance(target, ast.Name))
