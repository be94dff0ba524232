"""What a consumer shows to Prometheus: read when it is asked for, so that it costs the loop nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from orderkit.account.average import RunningAverage
from orderkit.account.tally import AVERAGED, RETRY, SKIPPED, UNDONE
from orderkit.consuming.loop import Loop
from orderkit.members.commits import Key

REASONS = ("poison", "permanent", "transient")  # those that are there from the start; others come when they happen


class ConsumerMetrics(Collector):
    """Gives what a consumer has come to as Prometheus metrics.

    Args:
        consumer: whose numbers; they are only read, from any thread.
    """

    def __init__(self, consumer: Loop) -> None:
        self._consumer = consumer
        self._most: dict[tuple[str, ...], float] = {}
        self._reading = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        """Give all metrics, as they are now."""
        with self._reading:
            return [*self._orders(), *self._waiting(), *self._average(), *self._group(), *self._loop()]

    def _most_so_far(self, name: str, value: float, *labels: str) -> float:
        """Give a count that never falls: to Prometheus a counter that falls has started again at zero.

        A rebalance takes back what was not committed; it is counted again when it was delivered again.
        """
        key = (name, *labels)
        self._most[key] = max(self._most.get(key, 0), value)
        return self._most[key]

    def _counter(self, name: str, told: str, value: float) -> Metric:
        return CounterMetricFamily(f"orderkit_{name}", told, value=self._most_so_far(name, value))

    def _orders(self) -> Iterable[Metric]:
        ledger = self._consumer.ledger
        counts, reasons = list(ledger.counts), dict(ledger.reasons)
        dead = CounterMetricFamily(
            "orderkit_orders_dead",
            "Orders given up and written to the dead-letter topic. poison: the bytes are no order. permanent: the "
            "handler refused it for good. transient: all its delivery attempts failed.",
            labels=["reason"],
        )
        for reason in sorted({*REASONS, *reasons}):
            dead.add_metric([reason], self._most_so_far("dead", reasons.get(reason, 0), reason))
        averaged = self._most_so_far("orders_averaged", counts[AVERAGED])
        skipped = self._most_so_far("orders_skipped", counts[SKIPPED])
        consumed = averaged + skipped + sum(sample.value for sample in dead.samples)
        yield self._counter(
            "orders_consumed",
            "Orders this consumer is done with: averaged + dead + skipped, always. Those that still wait for their "
            "next delivery attempt are in orderkit_orders_in_flight.",
            consumed,
        )
        yield self._counter("orders_averaged", "Orders the handler accepted; each is in the running average.", averaged)
        yield dead
        yield self._counter("orders_skipped", "Orders given up and left out, without a dead letter.", skipped)
        yield self._counter(
            "retries",
            "Delivery attempts that failed and were followed by another. Divided by orders consumed: how much work "
            "failures add.",
            counts[RETRY],
        )
        yield self._counter(
            "orders_undone",
            "Orders that were done with, but not committed before their partition went to another consumer. They are "
            "delivered again; the counters above do not count them twice.",
            counts[UNDONE],
        )

    def _waiting(self) -> Iterable[Metric]:
        member, letters = self._consumer.member, self._consumer.letters
        parts, held = list(member.parts.values()), set(member.held)
        yield _gauge(
            "orders_in_flight",
            "Orders fetched and not done with: waiting for their next delivery attempt, or behind one that waits.",
            sum(len(part.backlog) for part in parts),
        )
        outstanding = GaugeMetricFamily(
            "orderkit_dead_letters_outstanding",
            "Dead letters that the broker has not acknowledged. No offset is committed past them. refused: the "
            "dead-letter topic said no; they are offered again, and their partitions wait.",
            labels=["state"],
        )
        outstanding.add_metric(["under_way"], letters.under_way)
        outstanding.add_metric(["refused"], len(letters.refused))
        yield outstanding
        yield _by_partition(
            "partition_held",
            "1 while the partition waits: for the back-off of the order at its head, or for the dead-letter topic. "
            "Its other orders wait behind it; sum() is how many partitions wait.",
            {(part.topic, part.partition): (part.topic, part.partition) in held for part in parts},
        )
        yield _by_partition(
            "partition_lag_orders",
            "Orders in the partition that this consumer is not done with, as it was up to half a second ago. "
            "Growing for long: more arrives than is handled, or the partition is held.",
            member.lag(),
        )

    def _average(self) -> Iterable[Metric]:
        average = RunningAverage()
        for part in list(self._consumer.member.parts.values()):
            average = average.merge(part.average)
        yield _gauge(
            "running_average_price",
            "Average price of the orders in this consumer's partitions, since the group's first, in the orders' own "
            "currency. NaN before the first.",
            average.mean if average.count else float("nan"),
        )
        yield _gauge(
            "running_average_orders",
            "Orders in orderkit_running_average_price. Over several consumers: "
            "sum(price * orders) / sum(orders). Moves with the partitions in a rebalance.",
            average.count,
        )

    def _group(self) -> Iterable[Metric]:
        member = self._consumer.member
        told = "The consumer group that this process works for."
        yield InfoMetricFamily("orderkit_consumer", told, value={"group": member.group})
        yield _gauge("partitions_assigned", "Partitions that are this consumer's now.", len(member.parts))
        yield self._counter(
            "rebalances", "Times the group gave this consumer partitions. Often: members come and go.",
            member.rebalances,
        )  # fmt: skip
        yield self._counter("commits", "Commits the broker has acknowledged, average included.", member.commits.count)
        latency = GaugeMetricFamily(
            "orderkit_commit_latency_seconds",
            "Time from a commit to its acknowledgement, over the latest 100: quantile 0.5 is the median, 1 the worst.",
            labels=["quantile"],
        )
        times = sorted(member.commits.times.copy())
        for quantile in (0.5, 0.9, 1.0) if times else ():
            latency.add_metric([f"{quantile:g}"], times[round(quantile * (len(times) - 1))])
        yield latency

    def _loop(self) -> Iterable[Metric]:
        yield _gauge(
            "loop_turn_age_seconds",
            "Time since the loop began its latest turn. Normally below a second; large when a handler hangs. /healthz "
            "goes by it.",
            time.monotonic() - self._consumer.turned,
        )


def _by_partition(name: str, told: str, values: Mapping[Key, float]) -> Metric:
    family = GaugeMetricFamily(f"orderkit_{name}", told, labels=["topic", "partition"])
    for (topic, partition), value in values.items():
        family.add_metric([topic, str(partition)], value)
    return family


def _gauge(name: str, told: str, value: float) -> Metric:
    return GaugeMetricFamily(f"orderkit_{name}", told, value=value)
