"""`orderkit dlq replay`: move dead letters back, with brakes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import click

from orderkit.cli.letters import dlq_topic_option, filter_options, make_filter, never
from orderkit.cli.options import (
    checked,
    connection_options,
    json_option,
    make_connection,
    make_reader,
    make_values,
    print_json,
    reading_options,
)
from orderkit.cli.progress import progress
from orderkit.cli.signals import Interrupted, stop_on_signal
from orderkit.cli.types import COUNT, SOME, Number, examples
from orderkit.dead_letters import DLQ_CONFIG
from orderkit.dead_letters.filters import LetterFilter
from orderkit.errors import UsageError
from orderkit.kafka import Connection
from orderkit.kafka.names import check_group, check_topic
from orderkit.replay.batch import (
    DOUBLED,
    FAILED,
    FILTERED,
    LEFT,
    MISSING,
    MOVED,
    NOWHERE,
    PARKED,
    REFUSED,
    SPENT,
    UNKNOWN,
)
from orderkit.replay.job import Replay
from orderkit.replay.mending import Mender, load_transform
from orderkit.replay.noting import Journal
from orderkit.replay.parallel import ParallelReplay
from orderkit.replay.report import ReplayReport
from orderkit.show.printable import say

log = logging.getLogger("orderkit")

ABANDONED = "interrupted; the same command goes on where it was."

Job = Replay | ParallelReplay
FATES = {
    PARKED: "parked: replayed too often",
    SPENT: "left: replayed too often, and there is no --parking",
    DOUBLED: "left: replayed before, would count twice",
    UNKNOWN: "left: no header of any known dialect",
    NOWHERE: "left: do not say where they came from; --to TOPIC moves them",
    MISSING: "left: THEIR TOPIC IS NOT THERE",
    REFUSED: "left: THEIR TARGET REFUSES THEM, they are too large for it",
    LEFT: "left: the transform gave None",
    FAILED: "left: THE TRANSFORM FAILED",
    FILTERED: "left: not meant by the filter",
}


@click.command(
    epilog=examples("orderkit dlq replay --dry-run", "orderkit dlq replay --reason transient --rate 100 --yes")
)
@filter_options
@click.option(
    "--to", metavar="TOPIC", help="Move all there; by default each to where it came from first.",
    callback=checked(check_topic),
)  # fmt: skip
@click.option("--rate", type=Number(0, min_open=True), metavar="N", help="At most so many records per second.")
@click.option("--limit", type=COUNT, metavar="N", help="At most so many records; run again for the next.")
@click.option(
    "--max-replays", type=SOME, default=3, show_default=True, help="A record replayed so often is not replayed again."
)
@click.option(
    "--parking", metavar="TOPIC", help="Where such a record goes; made if missing. By default it stays.",
    callback=checked(check_topic),
)  # fmt: skip
@click.option(
    "--transform", metavar="MODULE:FUNCTION", help="Mends values: (fields or None, letter) -> fields or None."
)
@click.option(
    "--jobs", type=SOME, default=1, show_default=True, help="Processes that share the partitions, for more speed."
)
@click.option("--exactly-once", is_flag=True, help="Records and offsets in one transaction; needs a real broker.")
@click.option("--no-check", is_flag=True, help="Do not look in the targets for what was replayed before.")
@click.option(
    "--group", help="Whose offsets are the progress; by default one for this source, target and filter.",
    callback=checked(check_group),
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Move without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would move, and move nothing.")
@reading_options
@dlq_topic_option
@connection_options
@json_option
def replay(**options: Any) -> int:
    """Move dead letters back to where they came from. Shows what would move, and asks, before it moves anything.

    It may be interrupted, or killed, at any point: the same command goes on where it was. `dlq history` shows who
    replayed what, and how it ended.
    """
    if options["yes"] and options["dry_run"]:
        raise UsageError("--yes and --dry-run exclude each other.")
    connection = make_connection(options)
    settings = _settings(connection, options)
    make = _maker(connection, options, settings)
    if not options["yes"] and not _wanted(make(), options, settings["only"]):
        return 0
    job = make()
    ending = stop_on_signal(job.stop, lambda: "Records under way are awaited", ABANDONED)
    bars, told = progress(f"looking through {job.source}", options), str(settings["only"])
    with ending, bars as bar, _journal(connection, job, options, told) as journal:

        def watched(report: ReplayReport) -> None:
            journal.watch(report)
            bar(report.looked, job.total)

        report = job.run(watched)
        journal.watch(report)
    _tell(report, options, "moved", settings["only"])
    if report.interrupted:
        far = f"{report.looked} of {job.total} dead letters looked at, {report.written} moved"
        raise Interrupted(told=f"interrupted: {far}; the same command goes on there.")
    return 1 if report.failed else 0


def _settings(connection: Connection, options: dict[str, Any]) -> dict[str, Any]:
    """Read the options; make the parking topic if it is missing."""
    reader, source, parking = make_reader(options), options["dlq_topic"], options["parking"]
    only, transform = make_filter(options), options["transform"]
    mender = None
    if transform:
        mender = Mender(load_transform(transform), reader.order_schema, reader.codec, make_values(options))
    if parking is not None and parking not in (source, options["to"]) and not options["dry_run"]:
        connection.create_topics({parking: len(connection.partitions(source))}, DLQ_CONFIG)
    return {
        "to": options["to"],
        "only": only,
        "group": options["group"],
        "max_replays": options["max_replays"],
        "parking": parking,
        "mender": mender,
        "reader": reader,
        "rate": options["rate"],
        "limit": options["limit"],
        "exactly_once": options["exactly_once"],
        "check": not options["no_check"],
    }


def _maker(connection: Connection, options: dict[str, Any], settings: dict[str, Any]) -> Callable[[], Job]:
    """Give a function that makes the job, once to look and once to move."""
    source = options["dlq_topic"]
    if options["jobs"] > 1:
        return lambda: ParallelReplay(connection, source, options["jobs"], **settings)
    return lambda: Replay(connection, source, **settings)


def _journal(connection: Connection, job: Job, options: dict[str, Any], only: str) -> Journal:
    names = ("rate", "limit", "max_replays", "parking", "transform", "jobs", "exactly_once")
    told = {name: options[name] for name in names if options[name]}

    def warn(text: str) -> None:
        log.warning("%s", text, extra={"event": "journal"})

    return Journal(connection, job.source, warn, to=options["to"], group=job.group, only=only, settings=told)


def _wanted(job: Job, options: dict[str, Any], only: LetterFilter) -> bool:
    """Show what would move; whether to go on."""
    with stop_on_signal(job.stop), progress(f"looking through {job.source}", options) as bar:
        report = job.preview(lambda so_far: bar(so_far.looked, job.total))
    if report.interrupted:
        raise Interrupted(told="interrupted; nothing was moved.")
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not options["dry_run"] and not options["as_json"]
    _tell(report, options, "would move", only)
    if not report.written:
        return False
    if asks:
        return click.confirm(f"Move {report.written} records?")
    if not options["as_json"]:
        say("Nothing was moved: this was a dry run. Add --yes to move.")
    return False


def _tell(report: ReplayReport, options: dict[str, Any], verb: str, only: LetterFilter) -> None:
    if options["as_json"]:
        print_json({**report.as_dict(), "dry_run": verb != "moved"})
        return
    for text in report.errors:
        say(f"transform: {text}", err=True)
    if not report.looked:
        say(f"Nothing to replay: group {report.group} has been through all of {report.source}.")
        return
    if report.counts[FILTERED] == report.looked:
        # Several processes keep to themselves which fields they saw.
        missing = never(only) if options["jobs"] == 1 else ""
        say(f"No dead letter in {report.source} matches the filter; there is nothing to move.{missing}")
        return
    rate = (
        f" in {report.seconds:.1f} s ({report.written / report.seconds:,.0f}/s)"
        if verb == MOVED and report.written
        else ""
    )
    say(f"{report.looked} dead letters looked at in {report.source}{rate}")
    for target, many in report.targets.items():
        say(f"  {many:8}  {verb} to {target}")
    for note in report.notes:
        say(f"            {note}")
    for fate, text in FATES.items():
        if report.counts[fate]:
            say(f"  {report.counts[fate]:8}  {text}")
    if report.waiting:
        say(f"  {report.waiting:8}  wait in {report.source}: run the same command again to try them again")
    for check in report.checks.values():
        if check.doubled:
            say(f"  {check}")
