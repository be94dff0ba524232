"""Pages differ in what they hear of the kernel and in how fast they draw; the live view works on each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import Late

pytest.importorskip("ipywidgets", reason='the lab needs the extra: pip install "orderkit[lab]"')

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from orderkit.lab import page

LABEL = "vscode-notebook-cell:/home/me/00_start_here.ipynb#W6sZmlsZQ%3D%3D"
CELL = """
import asyncio, ipywidgets
from orderkit.lab.page import listen
slider = ipywidgets.IntSlider()
listen(slider)
print(slider.comm.comm_id, end="")  # a line's end might come by itself
while slider.value < 9:
    await asyncio.sleep(0.02)
print("arrived")
"""


@pytest.fixture
def kernel() -> Iterator[BlockingKernelClient]:
    """Start a kernel as a notebook has it, and somebody who speaks with it."""
    manager = KernelManager()
    manager.start_kernel()
    client: Any = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


def hear(client: BlockingKernelClient, kind: str, parent: str = "") -> Any:
    """Wait for a message of a kind that answers another; give its contents."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        message = client.get_iopub_msg(timeout=30)
        if message["msg_type"] == kind and parent in ("", message["parent_header"].get("msg_id")):
            return message["content"]
    raise Late(f"no {kind} came")


def move(client: BlockingKernelClient, comm: str, value: int) -> str:
    """Send a slider's value as a page does that has no subshells; give the message's id."""
    data = {"method": "update", "state": {"value": value}, "buffer_paths": []}
    message = client.session.msg("comm_msg", {"comm_id": comm, "data": data})
    client.shell_channel.send(message)
    return str(message["header"]["msg_id"])


def test_every_change_is_done_with_while_a_cell_awaits(kernel: BlockingKernelClient) -> None:
    """A page sends a widget's next change when it has heard that the last one is done with: it hears so of each."""
    kernel.execute(CELL)
    comm = hear(kernel, "stream")["text"]
    for value in (3, 6, 9):
        asked = move(kernel, comm, value)
        while hear(kernel, "status", asked)["execution_state"] != "idle":
            pass
    assert hear(kernel, "stream")["text"].strip() == "arrived"


def test_frames_are_as_many_as_the_page_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """VS Code works off two frames a second, and no slower than asked for; other pages take what they are given."""
    assert not page.has_a_page()
    assert page.pace(0.125) == 0.125
    monkeypatch.setattr(page, "cell_id", lambda: LABEL)
    assert page.has_a_page()
    assert (page.pace(0.125), page.pace(2.0)) == (0.5, 2.0)
    monkeypatch.setattr(page, "cell_id", lambda: "9f3c2a1e-start")
    assert page.pace(0.125) == 0.125
