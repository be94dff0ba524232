"""Move dead letters back, with brakes: filters, a rate, a limit, a cap on replays; resumable at any point.

Progress is the offset of the replay's own group, and moves only behind acknowledgements. A replay that was killed goes
on where it was. The few records which were written but not yet noted are known again by the origin in their headers,
because a replay first looks at what its targets hold.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

from confluent_kafka import Message

from orderkit.consuming.calm import calm_collector
from orderkit.dead_letters.filters import LetterFilter
from orderkit.dead_letters.payload import PayloadReader
from orderkit.dead_letters.reader import read_batches
from orderkit.dead_letters.strangers import LOOK
from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.replay.batch import REFUSED, Batch
from orderkit.replay.claims import RENEWED
from orderkit.replay.mending import Mender
from orderkit.replay.positions import Position
from orderkit.replay.refusals import refuse_circles, refuse_hopeless, refuse_strangers
from orderkit.replay.report import ReplayReport
from orderkit.replay.routing import Router
from orderkit.replay.seen import check_replays
from orderkit.replay.sending import Sender
from orderkit.replay.transacting import TransactionalSender

PORTION = 10_000  # records that are read, written and committed together
BEAT = 0.1  # seconds between two looks at the brakes

Watcher = Callable[[ReplayReport], object]


class Stopped(Exception):
    """Somebody stopped a replay before its next batch."""


class Replay:
    """Moves the dead letters of a topic to where they came from, or to another topic.

    Args:
        connection: the cluster.
        source: the dead-letter topic.
        to: the target of all; by default each goes back to where it came from first.
        only: which are meant; by default all.
        group: whose offsets say how far it is; by default one for this source, target and filter.
        max_replays: a record that was replayed so often is not replayed again.
        parking: the topic where it goes then; by default it stays.
        mender: mends values on their way.
        reader: reads values, for filter and mender; by default the kit's own orders, JSON and text.
        rate: records per second at most.
        limit: so many records at most.
        exactly_once: records and offsets in one transaction; real brokers only.
        check: look in the targets for what was replayed before, and do not replay it again.
        partitions: of the source; by default all.

    Raises:
        UsageError: a brake out of range, or source and target are the same.
        OrderkitError: no such topic.
    """

    def __init__(
        self,
        connection: Connection,
        source: str,
        *,
        to: str | None = None,
        only: LetterFilter | None = None,
        group: str | None = None,
        max_replays: int = 3,
        parking: str | None = None,
        mender: Mender | None = None,
        reader: PayloadReader | None = None,
        rate: float | None = None,
        limit: int | None = None,
        exactly_once: bool = False,
        check: bool = True,
        partitions: Sequence[int] | None = None,
    ) -> None:
        refuse_circles(source, to, parking)
        if max_replays < 1 or (rate is not None and not rate > 0) or (limit is not None and limit < 0):
            raise UsageError("A replay needs max replays of 1 or more, a rate above 0, and a limit of 0 or more.")
        only = only or LetterFilter()
        self.source, self.group = source, group or default_group(source, to, only)
        marks = connection.watermarks(source, "--dlq-topic")
        self.marks = marks if partitions is None else {number: marks[number] for number in partitions}
        # Asked once: what letters call their topic may be anything, and many things.
        self._topics = {name: len(it.partitions) for name, it in connection.metadata().topics.items()}
        self._alone = partitions is None
        self._connection, self._exactly_once, self._check = connection, exactly_once, check
        self._rate, self._limit = rate or float("inf"), float("inf") if limit is None else limit
        self._routing: dict[str, Any] = {
            "to": to, "only": only, "max_replays": max_replays, "parking": parking, "mender": mender, "reader": reader,
        }  # fmt: skip
        self._stopped = threading.Event()
        self.total, self._due = 0, 0.0  # when the rate allows the next portion
        if to is not None:
            connection.partitions(to)
        if exactly_once and connection.is_embedded:
            raise UsageError("exactly-once needs a real broker: the embedded one does not enforce transactions.")

    def stop(self) -> None:
        """Stop after the records under way; what is done stays done."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        """Whether somebody has asked it to stop."""
        return self._stopped.is_set()

    def preview(self, watch: Watcher = lambda _report: None) -> ReplayReport:
        """Say what `run` would do now; nothing is written, no offset moves.

        Args:
            watch: is called now and then with the report so far.

        Raises:
            OrderkitError: the topic holds no dead letters, or a target is missing.
        """
        with closing(Sender(self._connection, self.source, self.group)) as sender:
            return self._work(sender.positions(self.marks), None, watch)

    def run(self, watch: Watcher = lambda _report: None) -> ReplayReport:
        """Move dead letters until the end that the topic had when this began, the limit, or `stop`.

        Args:
            watch: is called now and then with the report so far.

        Raises:
            OrderkitError: the topic holds no dead letters, a target is missing, or the broker refused something.
        """
        if parking := self._routing["parking"]:
            self._connection.partitions(parking)
        kind = TransactionalSender if self._exactly_once else Sender
        with closing(kind(self._connection, self.source, self.group, min(self.marks, default=0))) as sender:
            return self._work(sender.begin(self.marks), sender, watch)

    def _work(self, positions: dict[int, Position], sender: Sender | None, watch: Watcher) -> ReplayReport:
        report = ReplayReport(self.source, self.group)
        router = Router(self.source, lambda name: self._open_target(name, router, report, sender), **self._routing)
        self.total = sum(high - positions[number].next for number, (_, high) in self.marks.items())
        self.total += sum(len(position.stay) for position in positions.values())
        start = time.monotonic()
        with calm_collector(), suppress(Stopped):
            for messages in self._chunks(positions, self._rate if sender is not None else float("inf")):
                if self.is_stopped:
                    break
                batch = router.route(messages, self._limit - report.written)
                if sender is not None and self._brake(len(batch.outgoing), sender):
                    break
                changed = _advance(positions, messages, batch)
                report.add(batch, sum(batch.counts.values()))
                if self._alone:
                    refuse_strangers(report, LOOK)
                if sender is not None and changed:
                    sender.send(batch.outgoing, {number: positions[number] for number in changed})
                    self._settle(report, sender)
                watch(report)
                if report.written >= self._limit:
                    break
        if sender is not None:
            sender.finish()
            self._settle(report, sender)
        if self._alone:
            refuse_hopeless(report)
        report.interrupted = self.is_stopped and report.looked < self.total and report.written < self._limit
        report.waiting = sum(len(position.stay) for position in positions.values()) + report.counts[REFUSED]
        report.seconds = time.monotonic() - start
        return report

    def _settle(self, report: ReplayReport, sender: Sender) -> None:
        """Take in what the broker has acknowledged, and what it refused."""
        report.acknowledged = sender.acknowledged
        for topic, *_ in sender.refused[report.counts[REFUSED] :]:
            report.take_back(topic, topic == self._routing["parking"])

    def _chunks(self, positions: dict[int, Position], rate: float) -> Iterator[Sequence[Message]]:
        """Yield what is to be decided about, in portions that the rate allows for one beat."""
        most = int(max(1, min(rate * BEAT, 1_000_000)))
        since = {number: position.first for number, position in positions.items()}
        looks_back = any(position.stay for position in positions.values())
        for messages in read_batches(self._connection, self.source, since=since, most=PORTION, only=self.marks):
            wanted: Sequence[Message] = messages
            if looks_back:
                wanted = [it for it in messages if positions[it.partition() or 0].wants(it.offset() or 0)]
            for begin in range(0, len(wanted), most):
                yield wanted[begin : begin + most]

    def _brake(self, many: int, sender: Sender) -> bool:
        """Wait until the rate allows more, and say whether it was stopped; what was slow before is not made up for."""
        while not self.is_stopped and (left := self._due - time.monotonic()) > 0:
            self._stopped.wait(min(left, RENEWED))
            sender.renew()
        self._due = max(self._due, time.monotonic()) + many / self._rate
        return self.is_stopped

    def _open_target(self, name: str, router: Router, report: ReplayReport, sender: Sender | None) -> int:
        """Count a target's partitions, 0 where there is no such topic; note what was replayed into it before.

        Raises:
            Stopped: meanwhile.
        """
        many = self._topics.get(name, 0)
        if self._check and many:

            def stop() -> bool:
                if sender is not None:
                    sender.renew()
                return self.is_stopped

            try:
                report.checks[name] = check_replays(self._connection, name, router.seen, stop)
            except OrderkitError as error:
                raise OrderkitError(f"{error} With --no-check it is not searched for earlier replays.") from None
            if self.is_stopped:
                raise Stopped
        return many


def default_group(source: str, to: str | None = None, only: LetterFilter | None = None) -> str:
    """Name the group of a replay: the same source, target and filter go on where the last one ended."""
    told = repr((to, str(only or "")))
    return f"orderkit.replay.{source}.{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def _advance(positions: dict[int, Position], messages: Sequence[Message], batch: Batch) -> set[int]:
    """Note what was decided about; give the partitions that got further."""
    for number, end in batch.taken.items():
        position = positions[number]
        position.next = max(position.next, end)
        if position.stay:
            position.stay -= {
                it.offset() or 0 for it in messages if it.partition() == number and (it.offset() or 0) < end
            }
    for number, offset in batch.stay:
        positions[number].stay.add(offset)
    return set(batch.taken)
