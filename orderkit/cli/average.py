"""`orderkit average`: what a group has come to."""

from __future__ import annotations

import logging
from typing import Any

import click

from orderkit.account.state import group_state
from orderkit.cli.options import (
    connection_options,
    group_option,
    json_option,
    make_connection,
    print_json,
    topic_options,
)
from orderkit.cli.types import examples

log = logging.getLogger("orderkit")


@click.command(epilog=examples("orderkit average", "orderkit average --group orderkit --json"))
@group_option
@topic_options
@connection_options
@json_option
def average(**options: Any) -> None:
    """Print the group's running average, read from its commits."""
    connection, topic = make_connection(options), options["topic"]
    state = group_state(connection, options["group"], topic)
    ends = connection.watermarks(topic)
    lag = sum(max(0, high - max(low, state.offsets.get(number, low))) for number, (low, high) in ends.items())
    answer = {
        "group": options["group"],
        "topic": topic,
        "average": state.average.rounded(),
        "count": state.average.count,
        "total": state.average.sum,
        "dead": state.dead,
        "skipped": state.skipped,
        "lost": state.lost,
        "ahead": state.ahead,
        "lag": lag,
    }
    if not state.offsets:
        told = "Group %r has committed nothing of %r yet; `orderkit consume` does, with the same --group and --topic."
        log.warning(told, options["group"], topic, extra={"event": "no-commits"})
    if options["as_json"]:
        print_json(answer)
    else:
        lost = f"up to {state.lost} lost to crashes, " if state.lost else ""
        ahead = f"{state.ahead} committed before they are handled, " if state.ahead else ""
        click.echo(
            f"average {answer['average']} over {answer['count']} orders; "
            f"{state.dead} dead, {state.skipped} skipped, {lost}{ahead}{lag} to go"
        )
