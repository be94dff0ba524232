"""`orderkit notebook`: the notebooks, copied to a writable folder, and JupyterLab on them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from orderkit.cli.types import PORT, examples
from orderkit.errors import OrderkitError
from orderkit.show.printable import say

PACKAGE = Path(__file__).parent.parent
FIRST = "00_start_here.ipynb"
COPIES = "orderkit-notebooks"


def find_notebooks(folder: str | None, package: Path = PACKAGE) -> Path:
    """Give the folder with the notebooks: those of the source tree, or copies of those in the wheel.

    Copies that are there already are kept: they hold what the reader has done.

    Args:
        folder: where the copies go; by default `orderkit-notebooks` in the current folder.
        package: the installed package.

    Raises:
        OrderkitError: there are none, or they cannot be copied.
    """
    beside, inside = package.parent / "notebooks", package / "notebooks"
    if folder is None and (beside / FIRST).is_file():
        return beside
    source = inside if (inside / FIRST).is_file() else beside
    if not (source / FIRST).is_file():
        raise OrderkitError("This installation has no notebooks. Install orderkit from its wheel or its source tree.")
    target = Path(folder or COPIES).absolute()
    try:
        for file in sorted(source.rglob("*")):
            copy = target / file.relative_to(source)
            if file.suffix in (".ipynb", ".py", ".md") and "." not in file.parent.name and not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
    except OSError as error:
        raise OrderkitError(
            f"The notebooks cannot be copied to {target}: {error.strerror}. Choose another folder."
        ) from None
    return target


def lab_command(folder: Path, port: int | None, browser: bool, more: tuple[str, ...]) -> list[str]:
    """Give the command that opens JupyterLab on a folder."""
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    command += [f"--LabApp.default_url=/lab/tree/{FIRST}"]
    command += [f"--ServerApp.port={port}"] if port else []
    command += [] if browser else ["--no-browser"]
    return [*command, *more]


@click.command(epilog=examples("orderkit notebook", "orderkit notebook lessons --port 8899 --no-browser"))
@click.option("--port", type=PORT, help="Of JupyterLab.  [default: 8888, or the next free one]")
@click.option("--browser/--no-browser", default=True, help="Open it in the browser.")
@click.argument("folder", required=False)
@click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTION]...")
def notebook(port: int | None, browser: bool, folder: str | None = None, more: tuple[str, ...] = ()) -> int:
    """Open the notebooks in JupyterLab, beginning with 00_start_here.

    They are copied to FOLDER first, and what is there already stays as it is. Without FOLDER that is
    `orderkit-notebooks`, or in a source tree its own notebooks. Options of JupyterLab go after `--`.
    Needs pip install "orderkit[lab]".
    """
    if folder is not None and folder.startswith("-"):
        more, folder = (folder, *more), None
    if importlib.util.find_spec("jupyterlab") is None:
        raise OrderkitError('The notebooks need JupyterLab: pip install "orderkit[lab]".')
    place = find_notebooks(folder)
    say(f"Notebooks: {place}")
    command = lab_command(place, port, browser, more)
    if os.name == "posix":
        sys.stdout.flush()
        os.execv(command[0], command)  # noqa: S606  signals and Ctrl-C are JupyterLab's from here on
    return subprocess.call(command)  # noqa: S603  our own interpreter
