"""`orderkit dlq`: look at dead letters, whoever wrote them, and move them back."""

from __future__ import annotations

from itertools import chain, islice
from typing import Any

import click

from orderkit.cli.anatomy import print_letter, whole_letter
from orderkit.cli.dlq_files import export, import_
from orderkit.cli.history import history
from orderkit.cli.letters import (
    Pairs,
    any_option,
    filter_options,
    format_option,
    make_filter,
    never,
    print_csv,
    print_rows,
    print_table,
)
from orderkit.cli.numbers import print_numbers, print_numbers_as_csv
from orderkit.cli.options import (
    connection_options,
    json_option,
    make_connection,
    make_reader,
    print_json,
    reading_options,
    topic_options,
)
from orderkit.cli.replay import replay
from orderkit.cli.types import COUNT, Commands, examples
from orderkit.consuming.calm import calm_collector
from orderkit.dead_letters import LetterFilter, read_dead_letters, read_one, select
from orderkit.dead_letters.filters import parse_place
from orderkit.dead_letters.stats import count_letters
from orderkit.errors import OrderkitError
from orderkit.replay.seen import check_replays
from orderkit.show.printable import say


@click.group(cls=Commands)
def dlq() -> None:
    """Look at dead letters (what they are, where they came from, and why) and move them back."""


for command in (replay, history, export, import_):
    dlq.add_command(command)


@dlq.command("list", epilog=examples("orderkit dlq list", "orderkit dlq list --reason poison --since 2d --format csv"))
@click.option("--limit", type=COUNT, help="At most so many.")
@filter_options
@any_option
@format_option
@reading_options
@topic_options
@connection_options
@json_option
def list_(**options: Any) -> None:
    """List dead letters, a line each."""
    reader = make_reader(options)
    only, topic = make_filter(options), options["dlq_topic"]
    letters = read_dead_letters(make_connection(options), topic, any_topic=options["any_topic"])
    with calm_collector():
        pairs = _begun(islice(select(letters, only, reader), options["limit"]))
        if options["as_json"] or options["shape"] == "json":
            print_rows(topic, pairs)
        elif options["shape"] == "csv":
            print_csv(pairs)
        elif not print_table(pairs):
            say(_nothing(topic, only))


def _begun(pairs: Pairs) -> Pairs:
    """Read the first letters, so that what is wrong with all is said before anything is printed."""
    source = iter(pairs)
    first = list(islice(source, 1))
    return chain(first, source)


def _nothing(topic: str, only: LetterFilter) -> str:
    """Say that nothing is meant."""
    return f"No dead letters in {topic}{f' with {only}' if not only.is_empty else ''}.{never(only)}"


@dlq.command(epilog=examples("orderkit dlq show 0:0", "orderkit dlq show 2:17 --dlq-topic shop-dlq --json"))
@click.argument("which", metavar="PARTITION:OFFSET")
@reading_options
@topic_options
@connection_options
@json_option
def show(**options: Any) -> None:
    """Show one dead letter: what it is, its bytes, its headers and its story."""
    place, reader = parse_place(options["which"]), make_reader(options)
    letter = read_one(make_connection(options), options["dlq_topic"], *place)
    if letter is None:
        raise OrderkitError(f"There is no dead letter {options['which']}. `orderkit dlq list` shows what there is.")
    if options["as_json"]:
        print_json(whole_letter(letter, reader.read(letter.value)))
    else:
        print_letter(letter, reader)


@dlq.command(epilog=examples("orderkit dlq stats", "orderkit dlq stats --replayed --since 2026-11-23T14:00"))
@click.option("--replayed", is_flag=True, help="Look in --topic for records that were replayed, and replayed twice.")
@filter_options
@any_option
@format_option
@reading_options
@topic_options
@connection_options
@json_option
def stats(**options: Any) -> int:
    """Fold the errors of dead letters into a few lines, and count reasons, origins and the like."""
    connection, reader = make_connection(options), make_reader(options)
    only = make_filter(options)
    found = count_letters(connection, options["dlq_topic"], only, reader, any_topic=options["any_topic"])
    check = check_replays(connection, options["topic"]) if options["replayed"] else None
    if options["as_json"] or options["shape"] == "json":
        print_json({**found.as_dict(), **({"replayed": check.as_dict()} if check else {})})
    elif options["shape"] == "csv":
        print_numbers_as_csv(found)
    else:
        if found.total:
            print_numbers(found)
        else:
            say(_nothing(found.topic, only))
        if check:
            say(str(check))
    return 1 if check and check.doubled else 0
