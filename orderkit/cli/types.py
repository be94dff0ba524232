"""What an option may be, and how a command shows itself: what is wrong is told with the option as it was typed."""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Any

import click


class OneOf(click.Choice[str]):
    """One word of a list; of a word that is nearly right, the right one is named."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the word back.

        Raises:
            BadParameter: it is not in the list.
        """
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            near = get_close_matches(str(value), self.choices, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.BadParameter(error.message + hint, ctx, param) from None


class Whole(click.IntRange):
    """A whole number in a range."""

    name = "n"


class Number(click.FloatRange):
    """A finite number in a range; Python's own takes "nan" for one."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Give the number.

        Raises:
            BadParameter: it is none, or out of range.
        """
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no number that can be meant.", param, ctx)
        return number


class Span(click.ParamType):  # type: ignore[type-arg]
    """Two order numbers, the first and the last of some in a row."""

    name = "FIRST-LAST"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read them.

        Raises:
            BadParameter: they are none, or run backwards.
        """
        if isinstance(value, tuple):
            return value
        first, dash, last = str(value).partition("-")
        if not (dash and first.isascii() and first.isdecimal() and last.isascii() and last.isdecimal()):
            self.fail(f"{value!r}: write the first and the last order number, as in 100-150.", param, ctx)
        if int(last) < int(first):
            self.fail(f"{value!r} runs backwards. Write {last}-{first}.", param, ctx)
        return int(first), int(last)


SHARE = Number(0, 1)
SECONDS = Number(0)
COUNT = Whole(0)
SOME = Whole(1)
PORT = Whole(1, 65535)


class Commands(click.Group):
    """A group of commands whose summaries are shown whole."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with the first sentence of its help, over as many lines as that takes."""
        found = [(name, command) for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))]
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in found if not command.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def examples(*lines: str) -> str:
    """Make the end of a command's help: how it is used."""
    shown = "\n".join(f"  {line}" for line in lines)
    return f"\b\nExamples:\n{shown}"
