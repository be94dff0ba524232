"""The one error a user of the kit ever has to read."""

from collections.abc import Collection


class OrderkitError(Exception):
    """Say in one line what is wrong and what to do next.

    The command line prints it and ends with `exit_status`: 1 when the run failed, 2 when it was asked for wrongly.
    """

    exit_status = 1

    def _render_traceback_(self) -> list[str]:
        """Give what a notebook shows: the line alone, for the frames above it are the kit's and not the reader's."""
        return [f"{type(self).__name__}: {self}"]


class UsageError(OrderkitError):
    """The request itself is wrong: a bad number, an unknown name, a broken file."""

    exit_status = 2


class Interrupted(OrderkitError, KeyboardInterrupt):
    """An interrupt came while a run was waited for; the run is stopped, and what was done is committed."""


def check_known(what: str, name: str, choices: Collection[str]) -> None:
    """Hold a word against those that there are.

    Args:
        what: the word stands for, "engine" for example.
        name: the word.
        choices: all that there are.

    Raises:
        UsageError: it is none of them.
    """
    if name not in choices:
        raise UsageError(f"Unknown {what} {name!r}. Choose from: {', '.join(choices)}.")
