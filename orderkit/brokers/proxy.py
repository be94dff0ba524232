"""A TCP relay in front of a broker: an address that stays the same, or a network that can fail."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

from orderkit.brokers._settings import HOST

CHUNK = 65_536  # bytes


class Proxy:
    """Relays each connection to a target; can go silent or slow. It ends with `close`.

    Args:
        port: where to listen; 0 for a free one.
        target: host and port; until there is one, connections are closed.
    """

    def __init__(self, port: int = 0, target: tuple[str, int] | None = None) -> None:
        self.target = target
        self.delay = 0.0  # seconds by which every chunk is late, in both directions
        self.answer_delay = 0.0  # and by which what the target says is late on top of that
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="orderkit-proxy", daemon=True)
        self._thread.start()
        self._flows, self._server = self._call(self._open(port))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self, port: int) -> tuple[asyncio.Event, asyncio.Server]:
        flows = asyncio.Event()
        flows.set()
        return flows, await asyncio.start_server(self._relay, HOST, port)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self.target is None:
                return writer.close()
            there, back = await asyncio.open_connection(*self.target)
            answers = self._forward(there, writer, answers=True)
            await asyncio.gather(self._forward(reader, back), answers)
        writer.close()
        return None

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool = False
    ) -> None:
        """Pass bytes on; while the network is silent they wait here, and arrive late."""
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await self._flows.wait()
                if delay := self.delay + (self.answer_delay if answers else 0.0):
                    await asyncio.sleep(delay)
                writer.write(chunk)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Go silent, as with a pulled cable: nothing comes through, and nobody is told."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def mend(self) -> None:
        """Let everything through again, what was held back first."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def close(self) -> None:
        """End all connections."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
