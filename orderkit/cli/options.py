"""Options that several commands share, and what they become."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

import click

from orderkit.brokers import ApacheBroker, Broker, EmbeddedBroker
from orderkit.cli.types import SECONDS, SHARE, SOME, Number, OneOf, Span
from orderkit.consuming.consumers import ENGINE_NAMES
from orderkit.dead_letters.payload import PayloadReader
from orderkit.kafka import DEAD_LETTERS, ORDERS, Connection, connect, named_broker
from orderkit.kafka.names import check_dead_letter_topic, check_group, check_topic
from orderkit.letter_files.values import Values
from orderkit.orders.avro import WIRES, Codec
from orderkit.orders.faults import Faults
from orderkit.orders.registry import Registry
from orderkit.retry import WHEN_SPENT, RetryPolicy
from orderkit.retry.backoff import FORMULAS, Backoff
from orderkit.retry.budget import Limits

log = logging.getLogger("orderkit")

Command = TypeVar("Command", bound=Callable[..., Any])


def _stack(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def checked(check: Callable[[object], str]) -> Callable[[click.Context, click.Parameter, str | None], str | None]:
    """Make a callback of an option that holds a name against Kafka's rules before anything else is done."""
    return lambda _context, _option, name: None if name is None else check(name)


connection_options = _stack(
    click.option("--bootstrap-server", metavar="HOST:PORT", help="Where Kafka is; else KAFKA_BOOTSTRAP_SERVERS."),
    click.option("--command-config", metavar="FILE", help="A Kafka client properties file (TLS, SASL)."),
)
group_option = click.option(
    "--group", default="orderkit", envvar="ORDERKIT_GROUP", show_default=True, help="The consumer group.",
    callback=checked(check_group),
)  # fmt: skip
topic_options = _stack(
    click.option(
        "--topic",
        default=ORDERS,
        envvar="ORDERKIT_TOPIC",
        show_default=True,
        help="Topic of the orders.",
        callback=checked(check_topic),
    ),
    click.option(
        "--dlq-topic",
        default=DEAD_LETTERS,
        envvar="ORDERKIT_DLQ_TOPIC",
        show_default=True,
        help="Topic of the dead letters.",
        callback=checked(check_dead_letter_topic),
    ),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object.")
wire_option = click.option(
    "--wire", type=OneOf(WIRES), default="single", show_default=True, help="Wire format of the orders."
)
schema_option = click.option("--schema", metavar="FILE", help="An Avro schema of orders, instead of the kit's own.")
reading_options = _stack(
    schema_option,
    click.option(
        "--writer-schema",
        "writers",
        metavar="FILE",
        multiple=True,
        help="Orders may have been written with it, too; may be given again.",
    ),
    click.option("--schema-registry", "registry", metavar="URL", help="Knows the ids in Confluent's framing."),
)


def retry_options(base: float) -> Callable[[Command], Command]:
    """Add the options of a retry policy, with `base` seconds as the first back-off."""
    return _stack(
        click.option("--max-attempts", type=SOME, default=3, show_default=True, help="Delivery attempts in all."),
        click.option(
            "--backoff", type=OneOf(FORMULAS), default="exponential", show_default=True, help="How waits grow."
        ),
        click.option("--backoff-base", type=SECONDS, default=base, show_default=True, help="First wait, in seconds."),
        click.option(
            "--backoff-cap", type=SECONDS, default=30.0, show_default=True, help="Longest single wait, in seconds."
        ),
        click.option(
            "--max-elapsed",
            type=Number(0, min_open=True),
            help="No attempt later than so many seconds after the first.",
        ),
        click.option("--dlq-budget", type=SHARE, metavar="SHARE", help="Wait when more of the latest 100 orders died."),
        click.option(
            "--when-spent",
            type=OneOf(WHEN_SPENT),
            default="dead-letter",
            show_default=True,
            help="What becomes of an order without an attempt left.",
        ),
        click.option(
            "--engine", type=OneOf(ENGINE_NAMES), default="pause", show_default=True, help="How a retry waits."
        ),
    )


def fault_options(transient: float = 0.0, permanent: float = 0.0) -> Callable[[Command], Command]:
    """Add the knobs of the injected faults, with their defaults."""
    return _stack(
        click.option(
            "--failure-rate",
            type=SHARE,
            default=transient,
            show_default=True,
            help="Share of attempts that fail for the moment.",
        ),
        click.option(
            "--permanent-rate",
            type=SHARE,
            default=permanent,
            show_default=True,
            help="Share of orders that are refused for good.",
        ),
        click.option(
            "--slow-rate", type=SHARE, default=0.0, show_default=True, help="Share of attempts that take longer."
        ),
        click.option("--slow-for", type=SECONDS, default=0.05, show_default=True, help="How much longer, in seconds."),
        click.option(
            "--outage", type=Span(), help="Order numbers whose first attempts meet a dead service, as in 100-150."
        ),
        click.option(
            "--outage-attempts", type=SOME, default=2, show_default=True, help="How many attempts of each that is."
        ),
    )


def make_connection(options: Mapping[str, Any]) -> Connection:
    """Make the connection that the connection options ask for."""
    return connect(options["bootstrap_server"], options["command_config"])


def make_codec(options: Mapping[str, Any]) -> Codec:
    """Make the codec that the reading options ask for."""
    registry = None if options["registry"] is None else Registry(options["registry"])
    return Codec(schema=options["schema"], writers=options["writers"], registry=registry)


def make_reader(options: Mapping[str, Any]) -> PayloadReader:
    """Make the reader of any payload that the reading options ask for."""
    registry = None if options["registry"] is None else Registry(options["registry"])
    return PayloadReader(options["schema"], options["writers"], registry)


def make_values(options: Mapping[str, Any]) -> Values:
    """Make what shows values, and writes edited ones, as the reading options say."""
    registry = None if options["registry"] is None else Registry(options["registry"])
    return Values(options["schema"], options["writers"], registry)


def open_broker(stack: ExitStack, options: Mapping[str, Any]) -> Broker | Connection:
    """Use the broker that was named, else start one of our own, until `stack` ends."""
    if options["apache"]:
        return stack.enter_context(ApacheBroker({}))
    if options["bootstrap_server"] or options["command_config"]:
        return make_connection(options)
    if named := named_broker():
        log.warning("Using the broker at %s, because KAFKA_BOOTSTRAP_SERVERS names it; unset it for the embedded one.",
                    named, extra={"event": "broker"})  # fmt: skip
        return make_connection(options)
    return stack.enter_context(EmbeddedBroker({}))


def make_policy(options: Mapping[str, Any]) -> RetryPolicy:
    """Make the policy that the retry options ask for."""
    backoff = Backoff(options["backoff"], options["backoff_base"], options["backoff_cap"])
    elapsed = options["max_elapsed"] or float("inf")
    return RetryPolicy(options["max_attempts"], backoff, elapsed, options["when_spent"])


def make_budget(options: Mapping[str, Any]) -> Limits | None:
    """Make the dead-letter budget that the retry options ask for, if they do."""
    share = options["dlq_budget"]
    return None if share is None else Limits(share=share)


def make_faults(options: Mapping[str, Any]) -> Faults:
    """Make the faults that the fault options ask for."""
    return Faults(
        seed=options["seed"],
        transient_rate=options["failure_rate"],
        permanent_rate=options["permanent_rate"],
        poison_rate=options.get("poison_rate", 0.0),
        slow_rate=options["slow_rate"],
        slow_for=options["slow_for"],
        outage=options["outage"],
        outage_attempts=options["outage_attempts"],
    )


def print_json(answer: Mapping[str, object]) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(answer, indent=2, default=as_text))


def as_text(value: object) -> str:
    """Give for JSON what it has no word for: bytes are text, a code point for each, as in Avro's own JSON."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
