"""`orderkit doctor`: check the installation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from orderkit.cli.options import connection_options, json_option, make_connection, print_json
from orderkit.cli.types import examples
from orderkit.doctor import examine
from orderkit.kafka import named_broker
from orderkit.show.printable import say


@click.command(epilog=examples("orderkit doctor", "orderkit doctor --bootstrap-server localhost:9092 --json"))
@connection_options
@json_option
def doctor(**options: Any) -> int:
    """Check the installation, and name every problem with its fix."""
    named = bool(options["bootstrap_server"] or options["command_config"] or named_broker())
    findings = examine(make_connection(options), named)
    healthy = all(finding.state != "problem" for finding in findings)
    if options["as_json"]:
        print_json({"healthy": healthy, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            say(f"{finding.state:8} {finding.name}: {finding.told}")
    return 0 if healthy else 1
