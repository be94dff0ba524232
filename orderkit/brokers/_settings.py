"""What a real broker finds at its start: its settings, and an empty log."""

from __future__ import annotations

import base64
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

CONTROLLER = "CONTROLLER"
HOST = "127.0.0.1"
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": CONTROLLER,
    "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
    "metadata.max.idle.interval.ms": "0",  # by default an idle broker writes a record that says nothing twice a second
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",  # after `kill`, `up` waits until the dead broker is given up: by default 9 s
    "group.initial.rebalance.delay.ms": "0",  # by default the first member waits 3 s for others
    "group.min.session.timeout.ms": "1000",  # a lesson about a lost member should not take a minute
    "group.share.min.record.lock.duration.ms": "1000",
    "offsets.topic.num.partitions": "4",  # 50 by default: files to make at the first start
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "share.coordinator.state.topic.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.cleaner.dedupe.buffer.size": "8388608",  # bytes of heap, taken at once; 128 MB by default
}
# What follows from the broker's arguments, and so is not for its `properties`.
OURS = {"process.roles", "node.id", "controller.listener.names", "controller.quorum.voters", "log.dirs", "listeners"}
OURS |= {"listener.security.protocol.map", "inter.broker.listener.name"}


def placed(listeners: Mapping[str, str], ports: Mapping[str, int], data: str) -> dict[str, str]:
    """Give settings for these listeners (name to security protocol) and ports, and the folder of the data."""
    return {
        **SETTINGS,
        "listeners": ",".join(f"{name}://{HOST}:{ports[name]}" for name in listeners),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in listeners.items()),
        "controller.quorum.voters": f"1@{HOST}:{ports[CONTROLLER]}",
        "log.dirs": data,
    }


def format_log(data: Path, template: Path) -> None:
    """Make an empty Kafka log unless there is one: a copy of the formatted template, with a name of its own."""
    identity = data / "meta.properties"
    if identity.exists():
        return
    shutil.copytree(template, data, ignore=shutil.ignore_patterns(identity.name), copy_function=shutil.copyfile)
    fresh = {"version": "1", "node.id": "1", "cluster.id": _kafka_id(), "directory.id": _kafka_id()}
    identity.write_text(to_java(fresh), encoding="utf-8")  # last: it says that the copy is whole


def cluster_of(data: Path) -> str:
    """Give the id of the cluster that a Kafka log belongs to; empty if the log does not say."""
    import javaproperties  # noqa: PLC0415  as below

    told: str = javaproperties.loads((data / "meta.properties").read_text(encoding="utf-8")).get("cluster.id", "")
    return told


def to_java(settings: Mapping[str, str]) -> str:
    """Write settings as Java reads them."""
    import javaproperties  # noqa: PLC0415  it takes long to load, and only a start needs it

    text: str = javaproperties.dumps(settings)
    return text


def _kafka_id() -> str:
    return base64.urlsafe_b64encode(b"\x10" + uuid.uuid4().bytes[1:]).decode().rstrip("=")  # must not start with "-"
