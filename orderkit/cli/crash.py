"""`orderkit crash-test`: hurt a producer and its consumers on purpose, and show what was lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from orderkit.cli.options import json_option, print_json
from orderkit.cli.types import SOME, OneOf, examples
from orderkit.delivery import MODES
from orderkit.engines import ENGINES
from orderkit.show.printable import say

if TYPE_CHECKING:
    from orderkit.crash import CrashPlan


@click.command(
    "crash-test",
    epilog=examples("orderkit crash-test --plans 2", "orderkit crash-test --delivery exactly-once --seed 7"),
)
@click.option("--plans", type=SOME, default=6, show_default=True, help="How many seeds in a row.")
@click.option("--seed", default=0, show_default=True, help="The first one; a seed repeats its plan.")
@click.option(
    "--delivery", "deliveries", type=OneOf(tuple(MODES)), multiple=True, help="Only these.  [default: all of them]"
)
@click.option("--engine", type=OneOf(tuple(ENGINES)), default="pause", show_default=True, help="How a retry waits.")
@click.option("--orders", type=SOME, default=300, show_default=True, help="Orders in each plan.")
@click.option("--members", type=SOME, default=2, show_default=True, help="Consumers in the group.")
@click.option("--act", "acts", multiple=True, help="Besides kill -9, only these injuries; see --list.")
@click.option("--list", "show", is_flag=True, help="List what can go wrong, and where; nothing is run.")
@click.option(
    "--lanes", type=SOME, default=2, show_default=True, help="Plans at the same time, each with a broker of its own."
)
@json_option
def crash_test(**options: Any) -> int:
    """Kill, stop and cut off real processes by a seeded plan, and audit from the topics what was lost or doubled.

    Needs pip install "orderkit[kafka]". Exit status 1 when a delivery mode did not keep what it promises.
    """
    from orderkit import crash  # noqa: PLC0415  a broker's worth of modules, for this command only

    if options["show"]:
        return _list()
    plans = crash.make_plans(
        options["plans"],
        options["seed"],
        options["deliveries"] or list(MODES),
        acts=options["acts"] or tuple(crash.ACTS),
        engine=options["engine"],
        orders=options["orders"],
        members=options["members"],
    )
    outcomes = crash.crash_test(plans, lanes=options["lanes"], told=_tell)
    if options["as_json"]:
        plans_told = [crash.as_dict(outcome) for outcome in outcomes]
        failed, spoilt = _reasons(outcomes.failed), _reasons(outcomes.spoilt)
        print_json({"plans": plans_told, "sums": outcomes.sums(), "failed": failed, "spoilt": spoilt})
    else:
        click.echo(outcomes)
    for outcome in outcomes.broken:
        _complain(outcome.plan, "; ".join(outcome.broken))
        for note in outcome.notes:
            say(f"  {note}", err=True)
    for plan, reason in outcomes.spoilt:
        say(f"seed {plan.seed}, {plan.delivery}: spoilt by its broker, and begun anew. {reason}", err=True)
    for plan, reason in outcomes.failed:
        _complain(plan, f"nothing can be said of it: {reason.rstrip('.')}")
    return 1 if outcomes.broken or outcomes.failed else 0


def _reasons(plans: Sequence[tuple[CrashPlan, str]]) -> list[dict[str, object]]:
    return [{"seed": plan.seed, "delivery": plan.delivery, "reason": reason} for plan, reason in plans]


def _complain(plan: Any, why: str) -> None:
    say(
        f"seed {plan.seed}, {plan.delivery}: {why}. Repeat it: orderkit crash-test "
        f"--plans 1 --seed {plan.seed} --delivery {plan.delivery} --engine {plan.engine} --orders {plan.orders}",
        err=True,
    )


def _tell(outcome: Any) -> None:
    verdict = "; ".join(outcome.broken) or "kept"
    say(
        f"seed {outcome.plan.seed} {outcome.plan.delivery}: {outcome.plan}: {verdict} ({outcome.seconds:.0f} s)",
        err=True,
    )


def _list() -> int:
    from orderkit.crash.plan import ACTS, POINTS, PRODUCER_POINTS  # noqa: PLC0415

    for title, told in (("act", ACTS), ("point of a consumer", POINTS), ("point of the producer", PRODUCER_POINTS)):
        click.echo(f"{title}:")
        for name, text in told.items():
            click.echo(f"  {name:<16}{text}")
    return 0
