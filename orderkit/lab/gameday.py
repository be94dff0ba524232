"""Game day: a seed hides one of six faults; find it from what the system tells, and meet the targets."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from orderkit.account.tally import DEAD
from orderkit.brokers import EmbeddedBroker
from orderkit.dead_letters import read_dead_letters
from orderkit.errors import UsageError
from orderkit.lab.attempts import attempts_made
from orderkit.lab.experiment import experiment
from orderkit.lab.picture import Picture
from orderkit.lab.plots import legend, panel, theory
from orderkit.lab.table import Table
from orderkit.orders.faults import Faults
from orderkit.orders.order import PRODUCTS, Order, random_orders
from orderkit.retry import Permanent, Transient
from orderkit.run import Run
from orderkit.show.chart import COLOURS

FAULTS = ("flaky service", "outage", "poison", "refusals", "bad product", "slow service")
MOST = 10  # attempts that a player may ask for
SLOW = 0.05  # seconds in the handler after which an attempt counts as slow
SPARE = 0.01  # of all orders, so many more may die than nobody could save


@dataclass(frozen=True)
class Plan:
    """What `max_attempts` brings in a game: how many orders die, and how many attempts are made in all."""

    dead: int
    attempts: int


class GameDay:
    """A scenario under seal.

    Args:
        broker: where it happens.
        orders: how many.
        seed: decides the fault, the orders and their fates.
    """

    def __init__(self, broker: EmbeddedBroker, *, orders: int = 300, seed: int = 7) -> None:
        self.orders, self.seed, self.runs = orders, seed, list[tuple[int, Run]]()
        self._broker = broker
        draw = Random(f"game day {seed}")
        self._fault = draw.choice(FAULTS)
        self._product = draw.choice(tuple(PRODUCTS))
        first = draw.randint(orders // 5, orders // 2)
        self._faults = Faults(
            seed,
            transient_rate=draw.choice((0.35, 0.45)) if self._fault == "flaky service" else 0.0,
            permanent_rate=0.08 if self._fault == "refusals" else 0.0,
            poison_rate=0.08 if self._fault == "poison" else 0.0,
            slow_rate=0.1 if self._fault == "slow service" else 0.0,
            slow_for=2 * SLOW,
            outage=(first, first + orders // 6) if self._fault == "outage" else None,
            outage_attempts=draw.choice((3, 4)),
        )
        self._slow = 0

    def play(self, **knobs: Any) -> Run:
        """Run the scenario to its end.

        Args:
            knobs: of `experiment`: `max_attempts`, `backoff`, `backoff_base`, `engine`, `partitions`.

        Raises:
            UsageError: a knob that cannot be, or one that would break the seal.
        """
        attempts = knobs.setdefault("max_attempts", 3)
        if not 1 <= attempts <= MOST:
            raise UsageError(f"max_attempts is {attempts}; in a game it must be from 1 to {MOST}.")
        for name in ("failure_rate", "poison_rate", "permanent_rate", "seed", "orders", "handler"):
            if name in knobs:
                raise UsageError(f"{name} is under seal. Your knobs: max_attempts, backoff, backoff_base, engine.")
        self._slow = 0
        settings = {"failure_rate": 0.0, "poison_rate": self._faults.poison_rate, "handler": self._handle, **knobs}
        run = experiment(self._broker, orders=self.orders, seed=self.seed, **settings)
        run.start().wait(120)
        self.runs.append((attempts, run))
        return run

    def _handle(self, order: Order, attempt: int) -> None:
        start = time.perf_counter()
        try:
            self._strike(order, attempt)
        finally:
            self._slow += time.perf_counter() - start > SLOW

    def _strike(self, order: Order, attempt: int) -> None:
        if self._fault == "bad product" and order["product"] == self._product:
            raise Transient("the service timed out")
        self._faults.strike(order, attempt)

    def evidence(self, run: Run) -> Table:
        """Tell of a run what a dashboard would: nothing here names the fault."""
        names, products, reasons = [*zip(*_dead(run, self._all()), strict=True)] or [(), (), ()]
        places = sorted(int(name) for name in names)
        span = f"{places[0]} to {places[-1]}" if places else "-"
        slow = self._slow if self._slow > self.orders / 50 else 0  # a hiccup of the machine is no evidence
        rows = [
            ("dead", len(names)),
            (
                "their reasons",
                ", ".join(f"{reason} {many}" for reason, many in sorted(Counter(reasons).items())) or "-",
            ),
            ("their products", f"{len(set(products))} of {len(PRODUCTS)}"),
            ("their numbers", f"{span}, of {self.orders}"),
            ("attempts in all", sum(attempts_made(run))),
            ("slow attempts", "many" if slow else "none"),
        ]
        return Table(("what is seen", ""), rows)

    def _all(self) -> list[Order]:
        return list(islice(random_orders(self.seed), self.orders))

    def plan(self, attempts: int) -> Plan:
        """Compute what `max_attempts` brings, from the plan of failures alone."""
        tried = [self._life(order, attempts) for order in self._all()]
        return Plan(sum(dead for dead, _ in tried), sum(many for _, many in tried))

    def _life(self, order: Order, attempts: int) -> tuple[bool, int]:
        if self._faults.spoil(order["orderId"], b"bytes") != b"bytes":
            return True, 1
        calm = Faults(**{**vars(self._faults), "slow_rate": 0.0})
        for attempt in range(1, attempts + 1):
            try:
                if self._fault == "bad product" and order["product"] == self._product:
                    raise Transient("timed out")
                calm.strike(order, attempt)
            except Permanent:
                return True, attempt
            except Transient:
                continue
            return False, attempt
        return True, attempts

    def targets(self) -> Plan:
        """Give the most dead letters and the most attempts that a good answer needs: one try may be to spare."""
        plans = [self.plan(attempts) for attempts in range(1, MOST + 1)]
        allowed = plans[-1].dead + round(SPARE * self.orders)
        best = next(i for i, plan in enumerate(plans) if plan.dead <= allowed)
        return Plan(allowed, plans[min(best + 1, MOST - 1)].attempts)

    def check(self, fault: object, run: Run) -> None:
        """Print whether the fault is named and the targets are met: `todo`, `not yet` or `right`. Never raises."""
        wanted, made, dead = self.targets(), sum(attempts_made(run)), run.ledger.counts[DEAD]
        if fault is None or fault is ...:
            print("todo     the fault")
        elif fault == self._fault:
            print("right    the fault")
        else:
            told = "is not it" if fault in FAULTS else f"is none of: {', '.join(FAULTS)}"
            print(f"not yet  the fault: {fault!r} {told}")
        _verdict("dead letters", dead, wanted.dead)
        _verdict("attempts", made, wanted.attempts)

    def debrief(self) -> Picture:
        """Draw what each number of attempts would have brought, the target, and the runs that were played."""
        x, wanted = range(1, MOST + 1), self.targets()
        figure, axes = panel("max attempts", "dead letters", f"Runs played: {len(self.runs)}")
        expected = [self.plan(attempts).dead for attempts in x]
        theory(axes, x, expected, label="theory: the plan of failures")
        axes.axhspan(0, wanted.dead, color=COLOURS["replayed"], alpha=0.25, linewidth=0, label="target")
        played = [(attempts, run.ledger.counts[DEAD]) for attempts, run in self.runs]
        axes.plot(*zip(*played, strict=True), "o", color=COLOURS["dead"], markersize=9, label="your runs")
        axes.set_xticks(x)
        axes.set_ylim(bottom=-0.5, top=1.4 * max(*expected, wanted.dead, 1))
        legend(axes, "upper right")
        return Picture(figure)

    def reveal(self) -> str:
        """Break the seal: name the fault."""
        return self._fault


def _verdict(name: str, value: int, most: int) -> None:
    print(f"right    {name}" if value <= most else f"not yet  {name}: {value}, and at most {most} are wanted")


def _dead(run: Run, orders: Sequence[Order]) -> list[tuple[str, str, str]]:
    """List the order id, the product and the reason of all that died."""
    products = {order["orderId"]: order["product"] for order in orders}
    letters = read_dead_letters(run.connection, run.dead_letters)
    names = (((letter.key or b"").decode(), letter.story.get("reason", "?")) for letter in letters)
    return [(name, products[name], reason) for name, reason in names]
