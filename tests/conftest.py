"""What the tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from orderkit.brokers import ApacheBroker
from orderkit.errors import OrderkitError


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
