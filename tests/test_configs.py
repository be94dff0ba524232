"""What a broker has set: a change holds when the call returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import pytest

from orderkit.brokers import ApacheBroker
from orderkit.brokers.dlq import prepare, use_broker_dlq
from orderkit.errors import OrderkitError
from orderkit.kafka import configs
from orderkit.kafka.asking import comes_true
from orderkit.kafka.configs import TOPIC, change_config


class Slow:
    """An admin client of a broker that agrees at once and shows a topic's `max.message.bytes` one look after another.

    Args:
        shown: what it shows, look by look.
    """

    def __init__(self, shown: Iterator[str]) -> None:
        self.shown = shown
        self.looks: list[str] = []

    def incremental_alter_configs(self, resources: Sequence[Any], **_options: Any) -> dict[Any, Future[None]]:
        """Say yes."""
        agreed: Future[None] = Future()
        agreed.set_result(None)
        return {resources[0]: agreed}

    def describe_configs(self, resources: Sequence[Any], **_options: Any) -> dict[Any, Future[Any]]:
        """Show what the broker knows."""
        told: Future[Any] = Future()
        self.looks.append(next(self.shown))
        told.set_result({"max.message.bytes": SimpleNamespace(value=self.looks[-1])})
        return {resources[0]: told}


def test_a_change_is_awaited() -> None:
    """A broker shows a change a moment after the controller has said yes; the call returns when it does."""
    admin: Any = Slow(iter(["1000", "1000", "2000"]))
    change_config(admin, TOPIC, "orders", {"max.message.bytes": "2000"})
    assert admin.looks == ["1000", "1000", "2000"]


def test_a_change_that_does_not_show_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up in a while, with one line."""
    monkeypatch.setattr(configs, "comes_true", partial(comes_true, patience=0.1))
    admin: Any = Slow(repeat("1000"))
    with pytest.raises(OrderkitError, match=r"^The broker took the settings of 'orders' and does not show them\. Try"):
        change_config(admin, TOPIC, "orders", {"max.message.bytes": "2000"})


@pytest.mark.kafka
def test_a_group_that_was_given_a_broker_dlq_has_it(apache: ApacheBroker) -> None:
    """Whoever joins next sees it; it would write the dead letters itself otherwise, beside the broker."""
    for number in range(20):
        group = f"given.{number}"
        use_broker_dlq(apache.connection, group, "dlq.given", 1)
        assert prepare(apache.connection, group, 3) == "dlq.given"


@pytest.mark.kafka
def test_topics_are_there_when_created_and_gone_when_deleted(apache: ApacheBroker) -> None:
    """Brokers hear of both a moment later than the controller; the calls return when they have."""
    for _ in range(5):
        apache.connection.create_topics({"here.and.gone": 1})
        assert apache.connection.partitions("here.and.gone") == [0]
        apache.connection.delete_topics(["here.and.gone"])
        assert "here.and.gone" not in apache.connection.metadata().topics
