"""`orderkit broker`: keep a broker up for other terminals."""

from __future__ import annotations

import threading
from typing import Any

import click

from orderkit.brokers import ApacheBroker, Broker, EmbeddedBroker
from orderkit.cli.options import topic_options
from orderkit.cli.signals import stop_on_signal
from orderkit.cli.types import SOME, examples
from orderkit.errors import UsageError
from orderkit.show.printable import say


@click.command(epilog=examples("orderkit broker", "orderkit broker --apache --port 9092 --folder kafka-data"))
@click.option("--apache", is_flag=True, help='Real Apache Kafka; needs pip install "orderkit[kafka]".')
@click.option("--port", type=int, help="Port of the real one; else a free port. The embedded one takes what it gets.")
@click.option("--folder", metavar="DIR", help="Keep the real one's data here; else they go when it stops.")
@click.option("--partitions", type=SOME, default=4, show_default=True, help="Partitions of the topics.")
@topic_options
def broker(**options: Any) -> None:
    """Keep a broker up until Ctrl-C, with the topics created, and say how to reach it."""
    topics = {options["topic"]: options["partitions"], options["dlq_topic"]: options["partitions"]}
    done = threading.Event()
    with stop_on_signal(done.set), _open(topics, options) as running:
        say(f"{running.kind} broker is up at {running.bootstrap}; topics: {', '.join(topics)}")
        click.echo("In another terminal:")
        click.echo(f"  export KAFKA_BOOTSTRAP_SERVERS={running.bootstrap}")
        click.echo("  orderkit produce --verbose")
        click.echo("Ctrl-C ends it.")
        while not done.wait(0.2):
            pass


def _open(topics: dict[str, int], options: dict[str, Any]) -> Broker:
    if options["apache"]:
        return ApacheBroker(topics, port=options["port"], folder=options["folder"])
    if options["port"] is not None or options["folder"] is not None:
        raise UsageError(
            "--port and --folder go with --apache; the embedded broker takes a free port, and keeps nothing."
        )
    return EmbeddedBroker(topics)
