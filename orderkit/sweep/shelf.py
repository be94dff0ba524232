"""Finished cells in a folder: what is done stays done."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orderkit.errors import OrderkitError

if TYPE_CHECKING:
    from orderkit.sweep.job import Job, Row


class Shelf:
    """Keeps a JSON file for each finished cell, and of a notebook how it ended.

    Args:
        folder: where; it is made when the first cell is about to run.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def kept(self, jobs: Sequence[Job]) -> dict[str, Row]:
        """Read what an earlier sweep has finished; failed cells are run again."""
        found: dict[str, Row] = {}
        for job in jobs:
            try:
                row = json.loads((self._folder / f"{job.key}.json").read_text("utf-8"))
            except (OSError, ValueError):  # not there, or cut short
                continue
            if row["error"] is None:
                found[job.key] = row
        return found

    def try_out(self) -> None:
        """Find out, before anything runs, whether the folder can be written.

        Raises:
            OrderkitError: it cannot.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder):
                pass
        except OSError as error:
            raise OrderkitError(f"{self._folder} cannot be written: {error.strerror}.") from None

    def keep(self, key: str, row: Row, output: str | None) -> None:
        """Write a finished cell down, whole or not at all.

        Raises:
            OrderkitError: it cannot be written.
        """
        for name, text in ((f"{key}.ipynb", output), (f"{key}.json", json.dumps(row))):
            if text is None:
                continue
            part = self._folder / f"{name}.part"
            try:
                part.write_text(text, "utf-8")
                part.replace(self._folder / name)
            except OSError as error:
                raise OrderkitError(f"{self._folder / name} cannot be written: {error.strerror}.") from None
