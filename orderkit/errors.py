"""The one error a user of the kit ever has to read."""


class OrderkitError(Exception):
    """Say in one line what is wrong and what to do next.

    The command line prints it and ends with `exit_status`: 1 when the run failed, 2 when it was asked for wrongly.
    """

    exit_status = 1


class UsageError(OrderkitError):
    """The request itself is wrong: a bad number, an unknown name, a broken file."""

    exit_status = 2
