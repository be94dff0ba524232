"""What the tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from xdist.scheduler import LoadScheduling

from orderkit import patience
from orderkit.brokers import ApacheBroker
from orderkit.errors import OrderkitError

LONG = "test_notebooks.py", "test_readme.py", "test_wheel.py"  # begun last, they would be waited for


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--campaign`."""
    parser.addoption("--campaign", action="store_true", help="run what takes too long for landing, too")


class Load(LoadScheduling):  # type: ignore[misc]  # xdist says nothing of its types
    """xdist's own, but a test that ended its worker, frozen or killed, has no second try."""

    def mark_test_pending(self, item: str) -> None:
        """Refuse what pytest-rerunfailures asks for after a crash, whatever `--only-rerun` says."""
        raise NotImplementedError


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Load:
    """Replace xdist's scheduler."""
    return Load(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave campaigns out, and begin with what takes long."""
    if not config.getoption("--campaign"):
        long = [item for item in items if item.get_closest_marker("campaign")]
        items[:] = [item for item in items if not item.get_closest_marker("campaign")]
        config.hook.pytest_deselected(items=long)
    items.sort(key=lambda item: item.path.name not in LONG and item.get_closest_marker("kafka") is None)


@pytest.fixture(autouse=True, scope="session")
def _pytest_watches_for_freezes() -> Iterator[None]:
    """Leave the process's one timer to pytest's `faulthandler_timeout`, which ends a frozen test as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patience, "ended_if_frozen", nullcontext)
        yield


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
