"""What the tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from operator import itemgetter

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

from orderkit.brokers import ApacheBroker
from orderkit.brokers._ports import Ports
from orderkit.errors import OrderkitError
from orderkit.members import patience
from orderkit.show import logs

DEAR = (
    "test_browser.py",
    "test_promises.py",
    "test_reach.py",
    "test_security.py",
    "test_transactions.py",
    "test_wheel.py",
)  # what each of these sets up is made once, in one worker
HEAVY_BEGUN = 0.8  # of the run: begun later, what is heavy would be waited for at the end


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--campaign`."""
    parser.addoption("--campaign", action="store_true", help="run what takes too long for landing, too")


def pytest_configure() -> None:
    """Let signals work in what tests start, though this run was started in the background, where some are ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.name == "posix" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # by nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Groups(LoadGroupScheduling):  # type: ignore[misc]  # xdist says nothing of its types
    """xdist's own, for single tests and dear files, but the run goes on after a test that ended its worker."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        return file if file.endswith(DEAR) else nodeid

    def remove_node(self, node: WorkerController) -> str | None:
        """Take back what a worker that is gone had still to do; not the test that ended it, it would end the next."""
        units = self.assigned_work[node]
        begun = next(((unit, name) for unit in units.values() for name, done in unit.items() if not done), None)
        if begun:
            unit, name = begun
            unit[name] = True
        self.assigned_work[node] = {scope: unit for scope, unit in units.items() if not all(unit.values())}
        super().remove_node(node)
        return begun and begun[1]

    def schedule(self) -> None:
        """Hand out work, and say when there is no more: a worker keeps the last test that it knows of for later."""
        super().schedule()
        for node in self.nodes:
            self._reschedule(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups | None:
    """Replace xdist's scheduler of groups."""
    return Groups(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave campaigns out, and with several workers put the others in an order in which no core is idle for long."""
    if not config.getoption("--campaign"):
        long = [item for item in items if item.get_closest_marker("campaign")]
        items[:] = [item for item in items if not item.get_closest_marker("campaign")]
        config.hook.pytest_deselected(items=long)
    if hasattr(config, "workerinput"):
        items[:] = well_ordered(items)


def well_ordered(items: list[pytest.Item]) -> list[pytest.Item]:
    """Begin with what is dear, and spread what is heavy among all the others, most of which wait."""
    dear = [item for item in items if item.path.name in DEAR]
    heavy = [item for item in items if item not in dear and item.get_closest_marker("heavy")]
    others = [item for item in items if item not in dear and item not in heavy]
    places = [(HEAVY_BEGUN * i / len(heavy), item) for i, item in enumerate(heavy)]
    places += [(i / len(others), item) for i, item in enumerate(others)]
    return dear + [item for _, item in sorted(places, key=itemgetter(0))]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say of each second try at which line of the test its deadline was missed; pytest only names the test."""
    for report in terminalreporter.stats.get("rerun", []):
        place = getattr(report.longrepr.reprtraceback.reprentries[0], "reprfileloc", None)  # some --tb have none
        line = f", line {place.lineno}" if place else ""
        terminalreporter.write_line(f"tried again: {report.nodeid}{line}: {report.longrepr.reprcrash.message}")


@pytest.fixture(autouse=True, scope="session")
def _pytest_watches_for_freezes() -> Iterator[None]:
    """Leave the process's one timer to pytest's `faulthandler_timeout`, which ends a frozen test as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "ended_if_frozen", nullcontext)
        yield


@pytest.fixture(autouse=True, scope="session")
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what a user's folder would keep, the journal of replays, out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORDERKIT_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _log_lines_go_where_they_went() -> Iterator[None]:
    """Take back where a command sends its log lines: it is a stream of its own test, closed afterwards."""
    before = [(log, log.handlers[:], log.level, log.propagate) for log in (logs.ROOT, logs.KAFKA)]
    yield
    for log, handlers, level, propagate in before:
        log.handlers[:] = handlers
        log.setLevel(level)
        log.propagate = propagate


@pytest.fixture
def free_port() -> Iterator[int]:
    """Give a port that nobody has, nor is given during the test; who names it can listen there."""
    with Ports(["free"]) as ports:
        yield ports.numbers["free"]


@pytest.fixture(scope="session")
def apache() -> Iterator[ApacheBroker]:
    """One real broker for the whole session. `ORDERKIT_REQUIRE_KAFKA=1` makes it a failure that there is none."""
    try:
        broker = ApacheBroker()
    except OrderkitError as error:
        if os.environ.get("ORDERKIT_REQUIRE_KAFKA") == "1":
            raise
        pytest.skip(str(error))
    with broker:
        yield broker
