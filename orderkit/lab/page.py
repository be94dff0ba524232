"""The page that shows a notebook, if there is one: JupyterLab, VS Code, Colab. How it is heard while a cell runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from IPython import get_ipython

SILENT = 10.0  # seconds in which a page that shows the controls says so
DEAF = "running as given: on this page sliders and buttons wait until the cell has ended. Press Run again then."
VSCODE, VSCODE_PACE = "vscode-", 0.5  # how its cells' names begin; seconds between two frames that it keeps up with


def cell_id() -> str:
    """Give the name of the cell that runs, as the page has it; papermill, nbval and scripts give none."""
    kernel = _kernel()
    return str(kernel.get_parent().get("metadata", {}).get("cellId") or "") if kernel else ""


def has_a_page() -> bool:
    """Say whether a cell runs for somebody who sees it."""
    return bool(cell_id())


def pace(every: float) -> float:
    """Give the seconds between two frames that the page keeps up with.

    VS Code works frames off one by one, however late they are, and what is pressed waits behind them.
    """
    return max(every, VSCODE_PACE) if cell_id().startswith(VSCODE) else every


async def pressed(go: asyncio.Event, heard: Callable[[], bool]) -> bool:
    """Wait until Run is pressed; give up on a page of which nothing is heard.

    With ipykernel before 7.2, messages wait while a cell runs: who waits for a button there waits for ever. VS Code
    draws the controls, and is heard, once they are scrolled to.
    """
    deadline = time.monotonic() + SILENT
    while not (go.is_set() or heard()):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    await go.wait()
    return True


def listen(widget: Any) -> None:
    """Let all changes of a widget arrive while a cell awaits, not only the first.

    A page holds a widget's next change back until the kernel is done with the last one. ipykernel 7.4 takes messages
    beside a cell that awaits, and says nothing of it where the page has no subshells for them, as in VS Code.
    """

    def handled(message: Any) -> None:
        widget._handle_msg(message)
        kernel = _kernel()
        if kernel is not None and not message["header"].get("subshell_id"):
            topic = f"kernel.{kernel.ident}.status".encode()
            kernel.session.send(kernel.iopub_socket, "status", {"execution_state": "idle"}, parent=message, ident=topic)

    widget.comm.on_msg(handled)


def unbind(widget: Any) -> None:
    """Let a widget's changes arrive where the page sends them, beside the cell that runs.

    ipykernel 7.4 takes them to where the kernel last spoke of the widget, which is that cell, and while it awaits they
    are not acknowledged.
    """
    getattr(widget.comm, "__dict__", {}).pop("_reply_subshell_id", None)


def _kernel() -> Any:
    return getattr(get_ipython(), "kernel", None)
