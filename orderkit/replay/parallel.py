"""A replay by several processes, each with a share of the partitions: Python moves records on one core per process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any

from orderkit.errors import OrderkitError, UsageError
from orderkit.kafka import Connection
from orderkit.replay.job import Replay, Watcher
from orderkit.replay.refusals import refuse_hopeless
from orderkit.replay.report import ReplayReport

BEAT = 0.2  # seconds between two looks at the workers


class ParallelReplay:
    """A `Replay` whose `run` shares the partitions among processes; letters of one partition keep their order.

    A dead letter that lies in two partitions is not recognised as one, unless one of them was moved before.

    Args:
        connection: the cluster.
        source: the dead-letter topic.
        jobs: how many processes; no more than there are partitions.
        settings: as for `Replay`; a mender or a limit needs a single process.

    Raises:
        UsageError: settings that need a single process, or as `Replay`.
        OrderkitError: as `Replay`.
    """

    def __init__(self, connection: Connection, source: str, jobs: int, **settings: Any) -> None:
        if jobs < 1 or settings.get("mender") is not None or settings.get("limit") is not None:
            raise UsageError("Several jobs need a number of 1 or more, and neither a transform nor a limit.")
        self._whole = Replay(connection, source, **settings)
        self.source, self.group, self.total = source, self._whole.group, 0
        shares = [sorted(self._whole.marks)[i::jobs] for i in range(jobs)]
        self._shares = [share for share in shares if share]
        rate = settings.get("rate")
        self._settings = {**settings, "group": self.group, "rate": rate and rate / len(self._shares)}
        self._connection, self._context = connection, get_context("spawn")
        self._stopped, self._done = self._context.Event(), self._context.Array("q", 3 * len(self._shares))

    def stop(self) -> None:
        """Stop after the records under way; what is done stays done."""
        self._stopped.set()
        self._whole.stop()

    def preview(self, watch: Watcher = lambda _report: None) -> ReplayReport:
        """Say what `run` would do now, as `Replay.preview` does."""
        report = self._whole.preview(watch)
        self.total = self._whole.total
        return report

    def run(self, watch: Watcher = lambda _report: None) -> ReplayReport:
        """Move dead letters, as `Replay.run` does.

        Raises:
            OrderkitError: as `Replay.run`; what the other processes moved is acknowledged and noted.
        """
        start, begin = time.monotonic(), (self._stopped, self._done, os.getpid())
        with ProcessPoolExecutor(len(self._shares), self._context, _begin, begin) as pool:
            futures = [
                pool.submit(_move, i, self._connection, self.source, share, self._settings)
                for i, share in enumerate(self._shares)
            ]
            try:
                self._await(futures, watch)
                report = _merged([future.result() for future in futures])
            except BrokenProcessPool:
                raise OrderkitError(
                    "A process of the replay was killed. What was acknowledged is noted; "
                    "run the same command again to go on."
                ) from None
            finally:
                self._stopped.set()  # the others need not go on
        refuse_hopeless(report)
        report.seconds = time.monotonic() - start
        return report

    def _await(self, futures: list[Future[ReplayReport]], watch: Watcher) -> None:
        """Tell how far it is until all have ended, or one has failed."""
        while not all(future.done() for future in futures):
            self.total = sum(self._done[1::3])
            looked, acknowledged = sum(self._done[::3]), sum(self._done[2::3])
            watch(ReplayReport(self.source, self.group, looked=looked, acknowledged=acknowledged))
            if any(future.done() and future.exception() for future in futures):
                return
            time.sleep(BEAT)


def _merged(reports: list[ReplayReport]) -> ReplayReport:
    whole = reports[0]
    for report in reports[1:]:
        whole.looked += report.looked
        whole.counts += report.counts
        whole.targets += report.targets
        whole.by_key += report.by_key
        whole.missing += report.missing
        whole.waiting += report.waiting
        whole.acknowledged += report.acknowledged
        whole.interrupted |= report.interrupted
        whole.checks = {**report.checks, **whole.checks}
    return whole


_shared: dict[str, Any] = {}
_at_work = threading.Lock()


def _begin(stopped: Any, done: Any, parent: int) -> None:
    """Prepare a process: Ctrl-C is for its parent, who asks it to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _shared.update(stopped=stopped, done=done, parent=parent)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    """End where the parent was killed, once the records under way are noted: a pool's process would wait for ever."""
    if parent := parent_process():
        parent.join()
        with _at_work:
            os._exit(1)


def _move(i: int, connection: Connection, source: str, share: list[int], settings: dict[str, Any]) -> ReplayReport:
    with _at_work:
        job = Replay(connection, source, partitions=share, **settings)
        return job.run(_watcher(i, job))


def _watcher(i: int, job: Replay) -> Callable[[ReplayReport], None]:
    def watch(report: ReplayReport) -> None:
        _shared["done"][3 * i : 3 * i + 3] = [report.looked, job.total, report.acknowledged]
        if _shared["stopped"].is_set() or os.getppid() != _shared["parent"]:  # nobody waits for it any more
            job.stop()

    return watch
