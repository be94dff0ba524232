"""`orderkit consume`: the retrying consumer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from orderkit.account.audit import account
from orderkit.account.export import LedgerExport
from orderkit.account.report import Report
from orderkit.account.tally import FATES
from orderkit.cli.options import (
    connection_options,
    fault_options,
    group_option,
    json_option,
    make_budget,
    make_codec,
    make_connection,
    make_faults,
    make_policy,
    print_json,
    reading_options,
    retry_options,
    topic_options,
)
from orderkit.cli.signals import stop_on_signal
from orderkit.cli.types import SECONDS, SOME, Number, OneOf, examples
from orderkit.consuming.consumers import open_consumer
from orderkit.consuming.loop import Loop
from orderkit.dead_letters import WRITABLE
from orderkit.delivery import MODES
from orderkit.errors import OrderkitError, UsageError
from orderkit.ledger import Ledger
from orderkit.show.closing import close
from orderkit.show.logs import FORMATS, DecisionLog, set_format
from orderkit.show.printable import capped, say
from orderkit.show.view import consumer_view, shown

if TYPE_CHECKING:
    from orderkit.show.monitor import MetricsServer

log = logging.getLogger("orderkit")

ABANDONED = "interrupted; what was not committed is delivered again."

Watcher = Callable[[], object]  # called after each turn of the loop


@click.command(
    epilog=examples("orderkit consume --verbose", "orderkit consume --orders 100 --failure-rate 0.3 --engine topics")
)
@group_option
@click.option("--orders", type=SOME, help="Stop after so many are done with.")
@click.option("--idle", type=SECONDS, help="Stop after so many seconds without anything to do.")
@click.option("--seed", default=0, show_default=True, help="Decides the injected faults.")
@fault_options()
@retry_options(base=0.1)
@click.option(
    "--delivery",
    type=OneOf(tuple(MODES)),
    default="at-least-once",
    show_default=True,
    help="When offsets are committed.",
)
@click.option("--instance", metavar="NAME", help="With exactly-once: names this consumer, the same after a restart.")
@reading_options
@click.option(
    "--dialect",
    default="orderkit",
    show_default=True,
    type=OneOf(WRITABLE),
    help="In whose headers a dead letter tells its story.",
)
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each attempt.")
@click.option(
    "--log-format",
    type=OneOf(FORMATS),
    default="text",
    envvar="ORDERKIT_LOG_FORMAT",
    show_default=True,
    help="In json: a line for each decision, on standard error.",
)
@click.option("--metrics-port", metavar="[HOST:]PORT", help="Serve /metrics (Prometheus) and /healthz; 0: a free port.")
@click.option(
    "--stall-after",
    type=Number(1),
    default=30.0,
    show_default=True,
    help="/healthz turns bad after so many idle seconds.",
)
@click.option("--ledger", "ledger_file", metavar="FILE", help="Write each attempt to a .csv file or .parquet folder.")
@topic_options
@connection_options
@json_option
def consume(**options: Any) -> int:
    """Consume orders with retries, keep the average, dead-letter the exhausted. Ctrl-C ends it cleanly."""
    set_format(options["log_format"])
    connection = make_connection(options)
    ledger = Ledger(keep=100_000)
    consumer = open_consumer(
        connection,
        make_faults(options).strike,
        group=options["group"],
        topic=options["topic"],
        dead_letters=options["dlq_topic"],
        policy=make_policy(options),
        engine=options["engine"],
        delivery=options["delivery"],
        instance=options["instance"],
        budget=make_budget(options),
        codec=make_codec(options),
        ledger=ledger,
        seed=options["seed"],
    )
    consumer.letters.dialect = options["dialect"]
    with ExitStack() as stack:
        watchers = _watch(stack, consumer, options)
        stack.enter_context(stop_on_signal(consumer.stop, lambda: consumer.ending, ABANDONED))
        quiet = options["verbose"] or options["as_json"] or options["log_format"] == "json"
        view = consumer_view(consumer, options["orders"], quiet=quiet)
        with shown(view):
            failure = _run(consumer, options, watchers)
            report = account(ledger, consumer.state(), options["topic"], seed=options["seed"], broker="kafka")
            if view:
                view.report = report
    _show(report, options)
    if told := _unmet(ledger, options["outage"]):
        log.warning("%s", told, extra={"event": "outage"})
    if failure is not None:
        raise failure
    if consumer.trouble:
        log.error("%s", consumer.trouble, extra={"event": "dlq-refused"})
    return 1 if consumer.trouble or not report.conserved else 0


def _run(consumer: Loop, options: dict[str, Any], watchers: list[Watcher]) -> OrderkitError | None:
    """Consume; give the error that ended it at an order, if one did: there is an account all the same."""
    try:
        consumer.run(options["orders"], options["idle"], until=_all(watchers))
    except OrderkitError as error:
        if error is not consumer.broken:
            raise
        return error
    return None


def _watch(stack: ExitStack, consumer: Loop, options: dict[str, Any]) -> list[Watcher]:
    """Open what looks on while the consumer works, until `stack` ends; give what is to be called after each turn."""
    watchers: list[Watcher] = []
    if options["ledger_file"]:
        watchers.append(stack.enter_context(LedgerExport(consumer.ledger, options["ledger_file"])))
    if options["log_format"] == "json":
        decisions = DecisionLog(consumer, averaged=options["verbose"])
        stack.callback(decisions.finish)
        watchers.append(decisions)
    elif options["verbose"] and not options["as_json"]:
        watchers.append(_teller(consumer.ledger))
    if options["metrics_port"]:
        host, port = _address(options["metrics_port"])
        server = stack.enter_context(_pages(consumer, port, host, options["stall_after"]))
        told = f"{server.url}/metrics and {server.url}/healthz are open"
        if options["log_format"] == "json":
            log.info("%s", told, extra={"event": "serving"})
        else:
            say(told, err=True)
    return watchers


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65_536):
        raise UsageError(f"--metrics-port {text!r}: write a port from 0 to 65535, or HOST:PORT as in 0.0.0.0:9108.")
    return host or "127.0.0.1", int(port)


def _pages(consumer: Loop, port: int, host: str, stall_after: float) -> MetricsServer:
    try:
        from orderkit.show.monitor import MetricsServer  # noqa: PLC0415  its library is an extra
    except ImportError:
        raise OrderkitError('--metrics-port needs the extra `metrics`: pip install "orderkit[metrics]".') from None
    return MetricsServer(consumer, port, host, stall_after)


def _all(watchers: list[Watcher]) -> Callable[[], bool]:
    """Make one function of all watchers, that never asks to stop."""

    def watch() -> bool:
        for watcher in watchers:
            watcher()
        return False

    return watch


def _show(report: Report, options: dict[str, Any]) -> None:
    if options["as_json"]:
        print_json(report.as_dict())
    elif options["log_format"] == "json":
        log.info("%s", report, extra={"event": "report", "report": report.as_dict()})
    else:
        close(report)


def _unmet(ledger: Ledger, outage: tuple[int, int] | None) -> str | None:
    """Say so if no order came by that was to meet the outage."""
    if outage is None or not ledger.complete:
        return None
    first, last = outage
    met = any(name and name.isdecimal() and first <= int(name) <= last for name in ledger.order_id)
    return None if met else f"--outage {first}-{last}: no order of these numbers came."


def _teller(ledger: Ledger) -> Watcher:
    """Give a function that prints what is new in the ledger."""
    seen = 0

    def tell() -> None:
        nonlocal seen
        for i in range(max(0, seen - ledger.dropped), len(ledger)):
            name = capped(ledger.order_id[i] or "") or f"{ledger.topic[i]}[{ledger.partition[i]}]@{ledger.offset[i]}"
            price = "" if math.isnan(ledger.price[i]) else f" at {ledger.price[i]:.2f}"
            why = f" ({capped(ledger.error[i] or '')})" if ledger.error[i] else ""
            say(f"order {name}{price}: attempt {ledger.attempt[i]}, {FATES[ledger.fate[i]]}{why}")
        seen = ledger.dropped + len(ledger)

    return tell
