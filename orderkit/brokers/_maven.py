"""Jars of Maven Central: the library that fetches them, over one connection and without its chatter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Advance = Callable[[int], None]
FAILURES = RuntimeError, AssertionError, OSError  # what jgo and its HTTP client raise


def resolve(parts: Sequence[str], maven: Path, advance: Advance = lambda _count: None) -> list[Path]:
    """Fetch artifacts of Maven Central, and what they need, into a folder; give their jars.

    Args:
        parts: group, name and version of each, with `:` between.
        maven: the folder; what it has already is not fetched again.
        advance: told of bytes as they arrive.

    Raises:
        ImportError: the extra is not installed.
        AssertionError, OSError, RuntimeError: they cannot be fetched (`FAILURES`).
    """
    from jgo.maven import MavenContext, PythonResolver  # noqa: PLC0415  slow, and only needed once

    with _one_connection():
        resolver = PythonResolver(progress_callback=_reporter(advance))
        context = MavenContext(repo_cache=maven, local_repos=[], resolver=resolver, timeout=30)
        inputs, others = resolver.resolve([context.create_dependency(part) for part in parts])
        return [dependency.artifact.resolve() for dependency in (*inputs, *others)]


@contextmanager
def _one_connection() -> Iterator[None]:
    """Let the fetching library ask for all its files over one connection.

    It would look Maven Central up and shake hands anew for each of 250 files: measured 22 s instead of 1 s, and three
    minutes beside four others, because name servers answer only so many questions a second.
    """
    import requests  # noqa: PLC0415  the library's own HTTP client

    with requests.Session() as session:
        again = requests.adapters.HTTPAdapter(max_retries=1)  # a server may close what was idle for a moment
        session.mount("http://", again)
        session.mount("https://", again)
        requests.request = session.request
        try:
            yield
        finally:
            requests.request = requests.api.request  # each on its own again


def _reporter(advance: Advance) -> Callable[[str, int], Any]:
    @contextmanager
    def report(_name: str, _size: int) -> Iterator[Advance]:
        yield advance

    return report


@contextmanager
def silence() -> Iterator[list[str]]:
    """Keep the fetching library's log lines and warnings from the reader's screen; collect the lines."""
    lines: list[str] = []
    collector = logging.Handler(logging.WARNING)
    collector.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    library = logging.getLogger("jgo")
    passed_on = library.propagate
    library.addHandler(collector)
    library.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield lines
    finally:
        library.removeHandler(collector)
        library.propagate = passed_on
