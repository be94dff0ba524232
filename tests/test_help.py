"""Help is help: whole, with examples that work, and with the word that was meant."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from test_cli import Run, here  # noqa: F401  a fixture

from orderkit.cli import cli


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Go through all commands, and those of groups."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = dict(commands(cli))
LEAVES = {path: command for path, command in ALL.items() if not isinstance(command, click.Group)}
GROUPS = [(), *(path for path in ALL if path not in LEAVES)]


def parse(words: list[str]) -> click.Context:
    """Parse a command line as click would, and run nothing."""
    command: click.Command = cli
    while isinstance(command, click.Group):
        name, words = words[0], words[1:]
        command = command.commands[name]
    return command.make_context(command.name or "", words)


@pytest.mark.parametrize("path", GROUPS, ids=" ".join)
def test_a_bare_group_prints_its_help(path: tuple[str, ...], here: Run) -> None:  # noqa: F811
    """`orderkit`, `orderkit dlq`, `orderkit topics` print what `--help` prints, line by line, with status 0."""
    bare, asked = here(*path), here(*path, "--help")
    assert (bare.returncode, bare.stderr) == (0, "")
    assert bare.stdout == asked.stdout
    _, title, summaries = bare.stdout.partition("\nCommands:\n")
    assert title
    assert "..." not in summaries  # none is cut off


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_has_two_examples_that_parse(path: tuple[str, ...], here: Run) -> None:  # noqa: F811
    """The help of each command ends with at least two command lines of its own, each without a mistake."""
    shown = here(*path, "--help").stdout.partition("Examples:\n")[2].splitlines()
    lines = [shlex.split(line) for line in shown if line.strip()]
    assert len(lines) >= 2
    for words in lines:
        assert words[: 1 + len(path)] == ["orderkit", *path]
        parse(words[1:])


CHOICES = [
    (path, option, choice)
    for path, command in LEAVES.items()
    for option in command.params
    if isinstance(option.type, click.Choice)
    for choice in option.type.choices
]


@pytest.mark.parametrize(("path", "option", "choice"), CHOICES, ids=str)
def test_a_word_that_is_nearly_right_is_named(path: tuple[str, ...], option: click.Option, choice: str) -> None:
    """For each choice of each option, with a letter too many, the message names the option and the word."""
    with pytest.raises(click.BadParameter) as caught:
        parse([*path, option.opts[0], f"{choice}x"])
    told = caught.value.format_message()
    assert f"'{option.opts[0]}'" in told
    assert f"Did you mean '{choice}'?" in told


NUMBERS = [
    (path, option)
    for path, command in LEAVES.items()
    for option in command.params
    if isinstance(option.type, click.IntRange | click.FloatRange)
]


@pytest.mark.parametrize(("path", "option"), NUMBERS, ids=str)
def test_a_number_out_of_range_is_told_with_its_option(path: tuple[str, ...], option: click.Option) -> None:
    """No option takes a number below its range, or one that is none, and the message names it as it was typed."""
    for value in ("-1", "nan", "inf"):
        with pytest.raises(click.BadParameter) as caught:
            parse([*path, option.opts[0], value])
        assert f"'{option.opts[0]}'" in caught.value.format_message()


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [("dem", "demo"), ("demo --fail", "--failure-rate"), ("demo --engine p", "pause"), ("dlq s", "show")],
)
def test_tab_completes_commands_options_and_choices(typed: str, wanted: str) -> None:
    """What the README says of a shell's completion is true: `orderkit` answers the shell's questions."""
    asked = {"COMP_WORDS": f"orderkit {typed}", "COMP_CWORD": str(len(typed.split()))}
    env = {**os.environ, "_ORDERKIT_COMPLETE": "bash_complete", **asked}
    command = [sys.executable, "-c", "from orderkit.cli import main; main()"]
    told = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False).stdout
    assert f"plain,{wanted}" in told.splitlines()
