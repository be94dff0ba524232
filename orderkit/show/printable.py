"""Text that a terminal shows and never obeys, on streams that can print it."""

from __future__ import annotations

import io
import os
import sys

import click

CAP = 300  # characters of a text in a line: an error may quote what it choked on


def capped(text: str) -> str:
    """Cut a text to what a line should carry."""
    return text if len(text) <= CAP else text[: CAP - 1] + "…"


def printable(text: str) -> str:
    r"""Write what is not printable as Python does in `repr`: escape codes as `\x1b`, line ends as `\n`.

    Order ids, keys, headers and errors come from strangers. On a terminal their escape codes could recolour it, retitle
    it or hide lines, their line ends could forge a line, and what turns the direction of writing could forge a word.
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def cell(text: str) -> str:
    """Give a text for a table that programs read: as it is into a file, printable onto a terminal."""
    return printable(text) if sys.stdout.isatty() else text


def say(text: str, err: bool = False) -> None:
    """Print one line, whatever is in it.

    Args:
        text: the line.
        err: print it to standard error.
    """
    click.echo(printable(text), err=err)


def prepare_streams() -> None:
    r"""Let both standard streams print every text: what a terminal's encoding lacks becomes `\u2026` and the like.

    Python's own standard output raises instead, in the middle of a run. A stream that is closed takes everything.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115  until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
