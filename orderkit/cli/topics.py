"""`orderkit topics`: create, list, and clear away what runs left behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click
from confluent_kafka import KafkaException

from orderkit.brokers.dlq import use_broker_dlq
from orderkit.cli.options import checked, connection_options, make_connection, topic_options
from orderkit.cli.types import SOME, Commands, examples
from orderkit.dead_letters import DLQ_CONFIG
from orderkit.kafka import Connection
from orderkit.kafka.configs import TOPIC, read_config
from orderkit.kafka.names import check_group, check_topic
from orderkit.replay.journal import SUFFIX
from orderkit.show.printable import say

RUN_TOPIC = re.compile(rf"orders\.[0-9a-f]{{8}}(\.dlq|\..+\.retry\.\d+)?({re.escape(SUFFIX)})?")


@click.group(cls=Commands)
def topics() -> None:
    """Create and list topics; delete those of finished runs."""


@topics.command(epilog=examples("orderkit topics create", "orderkit topics create --topic shop --dlq-topic shop-dlq"))
@click.option("--partitions", type=SOME, default=4, show_default=True, help="Partitions of each.")
@click.option(
    "--broker-dlq", metavar="NAME", help="Let the broker dead-letter for share group --group into `dlq.…`.",
    callback=checked(check_topic),
)  # fmt: skip
@click.option(
    "--group", default="orderkit", envvar="ORDERKIT_GROUP", show_default=True, help="That share group.",
    callback=checked(check_group),
)  # fmt: skip
@topic_options
@connection_options
def create(**options: Any) -> None:
    """Create the topics of the orders and of the dead letters, where they are missing."""
    connection, count = make_connection(options), options["partitions"]
    connection.check_partitions(count)
    made = connection.create_topics({options["topic"]: count})
    made += connection.create_topics({options["dlq_topic"]: count}, DLQ_CONFIG)
    for name in (options["topic"], options["dlq_topic"]):
        there = len(connection.partitions(name))
        say(f"{name}: {'created' if name in made else 'is there already'}, {there} partitions")
    if options["broker_dlq"]:
        use_broker_dlq(connection, options["group"], options["broker_dlq"], count)
        say(f"{options['broker_dlq']}: the broker moves the dead letters of share group {options['group']} there")


@topics.command(
    "list", epilog=examples("orderkit topics list", "orderkit topics list --bootstrap-server localhost:9092")
)
@connection_options
def list_(**options: Any) -> None:
    """List the topics with their partitions and records."""
    connection = make_connection(options)
    names = sorted(name for name in connection.metadata().topics if not name.startswith("__"))
    for name in names:
        marks = connection.watermarks(name).values()
        say(f"{name}: {len(marks)} partitions, {sum(high - low for low, high in marks)} records")
    if not names:
        say("no topics; `orderkit topics create` makes them")


@topics.command(epilog=examples("orderkit topics describe", "orderkit topics describe orders orders-dlq"))
@click.argument("names", nargs=-1, metavar="[TOPIC]...")
@connection_options
def describe(names: tuple[str, ...], **options: Any) -> None:
    """Show partitions, offsets and leaders of topics, and how long they keep records; by default of all."""
    connection = make_connection(options)
    cluster = connection.metadata()
    names = names or tuple(sorted(name for name in cluster.topics if not name.startswith("__")))
    for name in names:
        marks = connection.watermarks(name)
        say(f"{name}: {len(marks)} partitions, {sum(high - low for low, high in marks.values())} records")
        if told := _settings(connection, name):
            say(f"  {told}")
        say(f"  {'partition':>9}  {'first':>9}  {'next':>9}  {'records':>9}  {'leader':>6}  replicas")
        for number, (low, high) in sorted(marks.items()):
            part = cluster.topics[name].partitions[number]
            leader = "none" if part.leader < 0 else str(part.leader)
            replicas = ",".join(map(str, part.replicas))
            say(f"  {number:>9}  {low:>9}  {high:>9}  {high - low:>9}  {leader:>6}  {replicas}")
    if not names:
        say("no topics; `orderkit topics create` makes them")


def _settings(connection: Connection, topic: str) -> str:
    """Say in words what a broker has set for a topic; the embedded one tells nothing."""
    if connection.is_embedded:
        return ""
    try:
        found = read_config(connection.admin(), TOPIC, topic)
    except KafkaException as error:
        return f"settings not told: {error.args[0].str()}"
    return "; ".join(tell(found[name]) for name, tell in SETTINGS.items() if name in found)


def _kept(milliseconds: str) -> str:
    return "keeps records for ever" if int(milliseconds) < 0 else f"keeps records for {_span(int(milliseconds) / 1000)}"


def _span(seconds: float) -> str:
    for unit, long in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * long:
            return f"{seconds / long:g} {unit}"
    return f"{seconds:g} seconds"


SETTINGS: dict[str, Callable[[str], str]] = {
    "retention.ms": _kept,
    "cleanup.policy": lambda value: f"cleanup by {value}",
    "max.message.bytes": lambda value: f"{int(value):,} bytes in a batch at most",
}


@topics.command(
    epilog=examples("orderkit topics delete-runs", "orderkit topics delete-runs --command-config kafka.properties")
)
@connection_options
def delete_runs(**options: Any) -> None:
    """Delete the topics that demos and notebooks made for themselves."""
    connection = make_connection(options)
    names = [name for name in connection.metadata().topics if RUN_TOPIC.fullmatch(name)]
    connection.delete_topics(names)
    say(f"{len(names)} topics deleted")
