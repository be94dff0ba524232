"""Find out where Kafka is: a flag, the environment, a properties file, or this machine."""

from __future__ import annotations

import os
from pathlib import Path

from orderkit.kafka.connection import LOCALHOST, Connection
from orderkit.kafka.names import check_address
from orderkit.kafka.properties import bare, read_properties
from orderkit.kafka.settings import check_promises


def named_broker() -> str | None:
    """Give the address in `KAFKA_BOOTSTRAP_SERVERS`, if there is one."""
    return bare(os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "")) or None


def connect(bootstrap: str | None = None, properties: str | Path | None = None) -> Connection:
    """Make a `Connection` from a flag, else `KAFKA_BOOTSTRAP_SERVERS`, else the file, else `localhost:9092`.

    Args:
        bootstrap: `host:port`, as `--bootstrap-server` has it.
        properties: a Kafka client properties file, as `--command-config` has it.

    Raises:
        UsageError: the file cannot be read or holds what librdkafka does not know.
    """
    config = read_properties(Path(properties)) if properties else {}
    in_file = config.pop("bootstrap.servers", None) or config.pop("metadata.broker.list", None)
    check_promises(config)
    address = bare(bootstrap) if bootstrap is not None else named_broker()
    return Connection(check_address(address if address is not None else in_file or LOCALHOST), config)
