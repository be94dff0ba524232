"""What a broker has set for a topic or a group: read, and changed."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from orderkit.errors import OrderkitError
from orderkit.kafka.asking import comes_true

PATIENCE = 8.0  # seconds for an answer
TOPIC, GROUP = ResourceType.TOPIC, ResourceType.GROUP


def read_config(admin: AdminClient, kind: ResourceType, name: str) -> dict[str, str]:
    """Give what is set for a topic or a group, the broker's defaults among it.

    Args:
        admin: asks the broker.
        kind: `TOPIC` or `GROUP`.
        name: of the topic or the group.

    Raises:
        KafkaException: the broker does not tell.
    """
    (asked,) = admin.describe_configs([ConfigResource(kind, name)], request_timeout=PATIENCE).values()
    return {key: entry.value or "" for key, entry in asked.result().items()}


def change_config(admin: AdminClient, kind: ResourceType, name: str, config: Mapping[str, str]) -> None:
    """Set some of it, and wait until the broker has it: it hears of it a moment after the controller has said yes.

    Who did not wait could join a share group that still begins at the latest record, say.

    Args:
        admin: asks the broker.
        kind: `TOPIC` or `GROUP`.
        name: of the topic or the group.
        config: what is to be set, as Kafka spells it.

    Raises:
        KafkaException: the broker does not take one.
        OrderkitError: it took them, and does not show them.
    """
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()]
    resource = ConfigResource(kind, name, incremental_configs=entries)
    for future in admin.incremental_alter_configs([resource], request_timeout=PATIENCE).values():
        future.result()
    if not comes_true(lambda: config.items() <= read_config(admin, kind, name).items()):
        raise OrderkitError(f"The broker took the settings of {name!r} and does not show them. Try again.")
