"""Kafka clients that say where they are: the places at which a worker can be hurt, outside of the consumer's code."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, Message, Producer

from orderkit.crash.plan import Injury
from orderkit.kafka import Connection

Passed = Callable[[str, Message | None], None]
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "freeze": signal.SIGSTOP} if os.name == "posix" else {}


class Trap:
    """Counts passages, and springs at the n-th.

    Args:
        injuries: number in the plan and injury, in order; each counts from where the one before it sprang.
        tell: called with a number before anything is done.
    """

    def __init__(self, injuries: Iterable[tuple[int, Injury]], tell: Callable[[int], None]) -> None:
        self._left = deque(injuries)
        self._tell = tell
        self._count = 0

    def passed(self, point: str, _message: Message | None = None) -> None:
        """Count a passage; what is done to this process is done here and now, the rest by who is told."""
        if not self._left or self._left[0][1].point != point:
            return
        self._count += 1
        number, injury = self._left[0]
        if self._count < injury.nth:
            return
        self._left.popleft()
        self._count = 0
        self._tell(number)
        if injury.act in SIGNALS:
            os.kill(os.getpid(), SIGNALS[injury.act])


class WatchedConsumer(Consumer):
    """A Kafka consumer that says when it has fetched, and when its commits are sent and answered."""

    def __init__(self, config: dict[str, Any], passed: Passed, **more: Any) -> None:
        self._passed = passed
        self._answered = config.get("on_commit")
        super().__init__({**config, "on_commit": self._commit_answered}, **more)

    def _commit_answered(self, error: Any, offsets: Any) -> None:
        if self._answered:
            self._answered(error, offsets)
        if error is None:
            self._passed("commit", None)

    def poll(self, *args: Any, **more: Any) -> Any:
        """Poll, and pass `fetch` with a record."""
        message = super().poll(*args, **more)
        if message is not None and message.error() is None:
            self._passed("fetch", message)
        return message

    def consume(self, *args: Any, **more: Any) -> Any:
        """Consume, and pass `fetch` with records."""
        messages = super().consume(*args, **more)
        if messages:
            self._passed("fetch", messages[0])
        return messages

    def commit(self, *args: Any, asynchronous: bool = True, **more: Any) -> Any:
        """Commit, and pass `commit-sent`: before a commit that is waited for, after one that is not."""
        if not asynchronous:
            self._passed("commit-sent", None)
        client: Any = super()
        answer = client.commit(*args, asynchronous=asynchronous, **more)
        self._passed("commit-sent" if asynchronous else "commit", None)
        return answer


class WatchedProducer(Producer):
    """A Kafka producer that says when a record was produced and acknowledged, and how far a transaction is."""

    def __init__(self, config: dict[str, Any], passed: Passed, prefix: str, **more: Any) -> None:
        self._passed, self._prefix = passed, prefix
        super().__init__(config, **more)

    def produce(self, *args: Any, on_delivery: Any = None, **more: Any) -> None:
        """Produce, and pass `produce` now and `ack` when it is acknowledged."""
        client: Any = super()
        client.produce(*args, on_delivery=self._telling(on_delivery), **more)
        self._passed(f"{self._prefix}produce", None)

    def produce_batch(self, *args: Any, on_delivery: Any = None, **more: Any) -> int:
        """Produce records, and pass `produce` now and `ack` when it is acknowledged, once for each."""
        client: Any = super()
        taken: int = client.produce_batch(*args, on_delivery=self._telling(on_delivery), **more)
        for _ in range(taken):
            self._passed(f"{self._prefix}produce", None)
        return taken

    def _telling(self, on_delivery: Any) -> Callable[[Any, Message], None]:
        def delivered(error: Any, message: Message) -> None:
            if on_delivery:
                on_delivery(error, message)
            if error is None and message.offset() is not None:
                self._passed(f"{self._prefix}ack", message)

        return delivered

    def send_offsets_to_transaction(self, *args: Any, **more: Any) -> None:
        """Send offsets, and pass `commit-sent`."""
        super().send_offsets_to_transaction(*args, **more)
        self._passed("commit-sent", None)

    def commit_transaction(self, *args: Any, **more: Any) -> None:
        """End the transaction, and pass `commit`."""
        super().commit_transaction(*args, **more)
        self._passed("commit", None)


@dataclass(frozen=True)
class WatchedConnection(Connection):
    """A connection whose clients say where they are.

    Args:
        passed: told of each passage.
        prefix: of the points that a producer passes.
    """

    passed: Passed = lambda _point, _message: None
    prefix: str = ""

    def _client(self, kind: Any, defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        return super()._client(self._watched(kind), defaults, settings)

    def _watched(self, kind: Any) -> Any:
        if kind is Consumer:
            return lambda config, **more: WatchedConsumer(config, self.passed, **more)
        if kind is Producer:
            return lambda config, **more: WatchedProducer(config, self.passed, self.prefix, **more)
        return kind
