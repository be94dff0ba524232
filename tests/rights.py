"""What the user bob may do at a real broker that asks for rights."""

from __future__ import annotations

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from helpers import wait_for

from orderkit.brokers import ApacheBroker

AUTHORIZER = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer"}


class Rights:
    """What the user bob may do, changed while others run; what is changed holds when a call returns."""

    def __init__(self, broker: ApacheBroker) -> None:
        self._admin = broker.connection.admin()

    @staticmethod
    def _binding(kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
        allow = AclPermissionType.ALLOW
        return AclBinding(kind, name, ResourcePatternType.LITERAL, "User:bob", "*", operation, allow)

    @staticmethod
    def _all_on(kind: ResourceType, name: str) -> AclBindingFilter:
        anything = AclOperation.ANY, AclPermissionType.ANY
        return AclBindingFilter(kind, name, ResourcePatternType.LITERAL, "User:bob", None, *anything)  # type: ignore[arg-type]  # any host

    def _granted(self, kind: ResourceType, name: str) -> set[AclBinding]:
        return set(self._admin.describe_acls(self._all_on(kind, name)).result(20))

    def grant(self, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Allow operations on one topic, group or transactional id."""
        bindings = [self._binding(kind, name, operation) for operation in operations]
        for future in self._admin.create_acls(bindings).values():
            future.result(20)
        wait_for(lambda: set(bindings) <= self._granted(kind, name))

    def take(self, kind: ResourceType, name: str) -> None:
        """Take all rights on one topic or group away."""
        for future in self._admin.delete_acls([self._all_on(kind, name)]).values():
            future.result(20)
        wait_for(lambda: not self._granted(kind, name))
