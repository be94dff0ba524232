"""The command line: options in, a library call, a report out."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from orderkit.cli.average import average
from orderkit.cli.bench import bench
from orderkit.cli.broker import broker
from orderkit.cli.compare import compare_engines
from orderkit.cli.consume import consume
from orderkit.cli.crash import crash_test
from orderkit.cli.demo import demo
from orderkit.cli.dlq import dlq
from orderkit.cli.doctor import doctor
from orderkit.cli.notebook import notebook
from orderkit.cli.produce import produce
from orderkit.cli.signals import Interrupted, interrupted_by_signals, unheard
from orderkit.cli.sweep import sweep
from orderkit.cli.topics import topics
from orderkit.cli.types import Commands
from orderkit.errors import OrderkitError
from orderkit.kafka.properties import bare
from orderkit.show.logs import to_stderr
from orderkit.show.printable import prepare_streams

log = logging.getLogger("orderkit")

BROKE = 1
WRONG_USAGE = 2


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="orderkit", prog_name="orderkit")
@click.option("--debug", is_flag=True, help="Show tracebacks, and what the Kafka client logs.")
def cli(debug: bool) -> None:
    """Learn retries and dead letters on Kafka: a small system that accounts for every order."""
    to_stderr(debug)


COMMANDS = (
    demo, produce, consume, average, topics, dlq, compare_engines, crash_test, bench, sweep, notebook, broker, doctor,
)  # fmt: skip
for command in COMMANDS:
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on standard error, never a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    prepare_streams()
    tidy_settings()
    to_stderr()
    with interrupted_by_signals():
        status = _run(arguments, debug="--debug" in arguments)
    sys.exit(status)


def tidy_settings() -> None:
    """Rid the settings in the environment of what is round them: files and forms add line ends and spaces."""
    for name, value in os.environ.items():
        if name.startswith(("ORDERKIT_", "KAFKA_")):
            os.environ[name] = bare(value)


def _run(arguments: list[str], debug: bool) -> int:  # noqa: PLR0911  one way out for each kind of end
    try:
        status: Any = cli.main(arguments, prog_name="orderkit", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message())
        return 0
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "orderkit"
        return _say(f"{' '.join(error.format_message().split())} Try `{where} --help`.", WRONG_USAGE)
    except click.ClickException as error:
        return _say(error.format_message(), BROKE)
    except OrderkitError as error:
        if debug:
            raise
        end = unheard()
        return _say(str(end or error), end.status if end else error.exit_status)
    except (KeyboardInterrupt, click.exceptions.Abort) as error:
        end = error.__cause__ if isinstance(error.__cause__, Interrupted) else Interrupted()
        return _say(str(end), end.status)
    except UnicodeEncodeError as error:  # an argument in another encoding
        return _say(f"{error.object!r} is no text. Write it in UTF-8.", WRONG_USAGE)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0
    except Exception as error:  # a bug of ours: still one line, and where to look
        if debug:
            raise
        return _say(f"{type(error).__name__}: {error}. Run again with `orderkit --debug` to see where.", BROKE)
    return status if isinstance(status, int) else 0


def _say(text: str, status: int) -> int:
    log.error("%s", text, extra={"event": "end"})
    return status
