"""`orderkit broker`: keep a broker up for other terminals."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import click

from orderkit.brokers import ApacheBroker, Broker, EmbeddedBroker
from orderkit.brokers._ports import Ports
from orderkit.brokers._settings import HOST
from orderkit.brokers.proxy import Proxy
from orderkit.cli.options import topic_options
from orderkit.cli.signals import stop_on_signal
from orderkit.cli.types import PORT, SOME, examples
from orderkit.dead_letters import DLQ_CONFIG
from orderkit.errors import UsageError
from orderkit.show.printable import say


@click.command(epilog=examples("orderkit broker --port 9092", "orderkit broker --apache --folder kafka-data"))
@click.option("--apache", is_flag=True, help='Real Apache Kafka; needs pip install "orderkit[kafka]".')
@click.option("--port", type=PORT, help="Where to be reached.  [default: a free port]")
@click.option("--folder", metavar="DIR", help="Keep the real one's data here; else they go when it stops.")
@click.option("--partitions", type=SOME, default=4, show_default=True, help="Partitions of the topics.")
@topic_options
def broker(**options: Any) -> None:
    """Keep a broker up until Ctrl-C, with the topics created, and say how to reach it."""
    topics = {options["topic"]: options["partitions"], options["dlq_topic"]: options["partitions"]}
    done = threading.Event()
    with stop_on_signal(done.set), ExitStack() as stack:
        running, address = _open(stack, topics, options)
        say(f"{running.kind} broker is up at {address}; topics: {', '.join(topics)}")
        click.echo("In another terminal:")
        click.echo(f"  export KAFKA_BOOTSTRAP_SERVERS={address}")
        click.echo("  orderkit produce --verbose")
        click.echo("Ctrl-C ends it.")
        while not done.wait(0.2):
            pass


def _open(stack: ExitStack, topics: dict[str, int], options: dict[str, Any]) -> tuple[Broker, str]:
    """Open a broker until `stack` ends; give it, and its address."""
    port = options["port"]
    if options["apache"]:
        apache = stack.enter_context(ApacheBroker({}, port=port, folder=options["folder"]))
        letters = options["dlq_topic"]
        apache.connection.create_topics({letters: topics[letters]}, DLQ_CONFIG)
        apache.create_topics(topics)
        return apache, apache.bootstrap
    if options["folder"] is not None:
        raise UsageError("--folder goes with --apache; the embedded broker keeps nothing.")
    if port is not None:
        stack.enter_context(Ports(["ours"], {"ours": port}))
    embedded = stack.enter_context(EmbeddedBroker(topics))
    if port is None:
        return embedded, embedded.bootstrap
    # The mock cluster takes the ports it gets. Who asks at ours is told the other one, and goes on there.
    host, _, theirs = embedded.bootstrap.rpartition(":")
    stack.callback(Proxy(port, (host, int(theirs))).close)
    return embedded, f"{HOST}:{port}"
