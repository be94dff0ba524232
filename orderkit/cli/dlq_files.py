"""`orderkit dlq export` and `import`: dead letters into a file, and out of one into a topic."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from orderkit.cli.letters import dlq_topic_option, filter_options, make_filter
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
from orderkit.cli.types import COUNT, examples
from orderkit.errors import UsageError
from orderkit.kafka.names import check_group, check_topic
from orderkit.letter_files.exporting import STDOUT, Exported, export_letters
from orderkit.letter_files.importing import Import, Imported, open_letters
from orderkit.show.printable import say

ABANDONED = "interrupted; the same command goes on where it was."


@click.command(
    epilog=examples(
        "orderkit dlq export letters.jsonl",
        "orderkit dlq export poison.parquet --reason poison --since 2d",
    )
)
@click.argument("file")
@filter_options
@click.option("--limit", type=COUNT, help="At most so many.")
@click.option("--overwrite", is_flag=True, help="Take the place of a file that is there.")
@reading_options
@dlq_topic_option
@connection_options
@json_option
def export(**options: Any) -> int:
    """Write dead letters to a file, bit for bit: JSON lines to read and edit, Parquet if its name ends in .parquet.

    FILE is - for JSON lines to standard output. `orderkit dlq import` writes the letters of a file to a topic.
    """
    file, quiet = options["file"], options["file"] == STDOUT
    if quiet and options["as_json"]:
        raise UsageError("--json and - would both write to standard output. Choose one.")
    only, reader, values = make_filter(options), make_reader(options), make_values(options)
    with progress(f"reading {options['dlq_topic']}", options) as bar:
        report = export_letters(
            make_connection(options), options["dlq_topic"], file,
            only=only, reader=reader, values=values, limit=options["limit"], overwrite=options["overwrite"],
            watch=lambda so_far: bar(so_far.looked, None),
        )  # fmt: skip
    if options["as_json"]:
        print_json({**asdict(report), "file": file})
    else:
        _tell_export(report, file, quiet)
    return 1 if report.unreadable else 0


def _tell_export(report: Exported, file: str, quiet: bool) -> None:
    rate = f" in {report.seconds:.1f} s ({report.written / report.seconds:,.0f}/s)" if report.written else ""
    say(f"{report.written} dead letters of {report.topic} {'written' if quiet else f'in {file}'}{rate}", err=quiet)
    if report.unreadable:
        say(
            f"{report.unreadable} LEFT OUT: a header's name is not UTF-8, and the client gives none of their headers.",
            err=True,
        )


@click.command(
    "import",
    epilog=examples(
        "orderkit dlq import letters.jsonl --to orders-dlq-mended --dry-run",
        "orderkit dlq import poison.parquet --to orders-dlq-mended --yes",
    ),
)
@click.argument("file")
@click.option(
    "--to", metavar="TOPIC", help="Write all there; by default each to the topic where it lay.",
    callback=checked(check_topic),
)  # fmt: skip
@click.option("--by-key", is_flag=True, help="Choose partitions by key; by default each letter's own.")
@click.option("--skip-bad", is_flag=True, help="Leave out lines that are no letters; by default nothing is written.")
@click.option("--again", is_flag=True, help="Write all, though an earlier import of this file has written some.")
@click.option(
    "--group", help="Whose offsets are the progress; by default one for this file's contents and target.",
    callback=checked(check_group),
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@reading_options
@connection_options
@json_option
def import_(**options: Any) -> int:
    """Write the letters of an exported file to a topic. Looks through it all, shows what it would write, and asks.

    Values may have been edited: they are written in the wire format they had, and the former value goes into a header.
    It may be interrupted, or killed, at any point: the same command goes on where it was, and writes no letter twice.
    """
    if options["yes"] and options["dry_run"]:
        raise UsageError("--yes and --dry-run exclude each other.")
    names = ("to", "by_key", "skip_bad", "again", "group")
    source = open_letters(options["file"], make_values(options))
    job = Import(make_connection(options), source, **{name: options[name] for name in names})
    awaited = stop_on_signal(job.stop, lambda: "Letters under way are awaited", ABANDONED)
    with awaited, progress(f"looking through {source.name}", options) as bar:
        looked = job.look(lambda found: bar(found.end, None))
    _check_end(looked, "nothing was written")
    if not _wanted(looked, options):
        return 1 if looked.found.bad else 0
    awaited = stop_on_signal(job.stop, lambda: "Letters under way are awaited", ABANDONED)
    with awaited, progress(f"writing {source.name}", options) as bar:
        report = job.run(looked, lambda so_far: bar(so_far.done, so_far.found.end))
    far = f"{report.done} of {report.found.end} {source.unit}s are done; the same command goes on"
    _tell(report, options, dry=False)
    if report.done < report.found.end:
        _check_end(report, far)
    return 1 if report.found.bad else 0


def _check_end(report: Imported, told: str) -> None:
    if report.stopped:
        raise Interrupted(told=f"interrupted: {told}.")


def _wanted(looked: Imported, options: dict[str, Any]) -> bool:
    """Show what would be written, where nobody has said yes; whether to go on."""
    found = looked.found
    if not found.letters or looked.before >= found.end:
        _tell(looked, options, dry=True)
        return False
    if options["yes"]:
        return True
    _tell(looked, options, dry=True)
    if options["as_json"]:
        return False
    if sys.stdin.isatty() and sys.stdout.isatty() and not options["dry_run"]:
        return click.confirm(f"Write the letters of {found.source}?")
    say("Nothing was written: this was a dry run. Add --yes to write.")
    return False


def _tell(report: Imported, options: dict[str, Any], dry: bool) -> None:
    found = report.found
    if options["as_json"]:
        print_json({**_as_dict(report), "file": found.source, "dry_run": dry})
        return
    if not found.letters:
        say(f"{found.source} holds no dead letters; there is nothing to write.")
    elif dry and report.before >= found.end:
        say(
            f"{found.source} is written already: group {report.group} has been through it. --again writes it once more."
        )
    else:
        rate = "" if dry or not report.seconds else f" in {report.seconds:.1f} s"
        say(f"{found.letters.total()} dead letters in {found.source}{rate}")
        for topic, many in _planned(report, options["to"]) if dry else report.written.items():
            say(f"  {many:8}  {'would be written' if dry else 'written'} to {topic}")
    _notes(report)


def _notes(report: Imported) -> None:
    found = report.found
    notes = (
        (report.before if report.before < found.end else 0, f"{found.unit}s were done by an earlier import"),
        (report.again, "were there already: written by an import that was killed"),
        (found.edited, "with an edited value; the former one goes into a header"),
        (found.timeless, "say 1970-01-01T00:00Z for a time, which the client cannot write: it writes the present one"),
        (found.bad, f"{found.unit}s LEFT OUT: {found.complaint if found.bad else ''}"),
    )
    for many, text in notes:
        if many:
            say(f"  {many:8}  {text}", err=text.startswith(f"{found.unit}s LEFT OUT"))


def _planned(report: Imported, to: str | None) -> Iterator[tuple[str, int]]:
    yield from [(to, report.found.letters.total())] if to else report.found.letters.items()


def _as_dict(report: Imported) -> dict[str, object]:
    found = report.found
    return {
        "letters": found.letters.total(),
        "edited": found.edited,
        "bad": [{found.unit: number, "why": why} for number, why in found.told],
        "bad_total": found.bad,
        "group": report.group,
        f"{found.unit}s": found.end,
        "before": report.before,
        "done": report.done,
        "again": report.again,
        "written": dict(report.written),
        "seconds": report.seconds,
    }
