"""What a group answers to a client that it does not let in: the client would ask again for ever, and say nothing."""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._group import ConsumerGroupDescription

from orderkit.errors import OrderkitError
from orderkit.kafka import Connection

log = logging.getLogger("orderkit")

DENIED = KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED
# A member that has just ended without a word holds the group until its session is over: seconds to wait for that.
PATIENCE = 8.0
FORGET = 6.0  # seconds without a refusal, after which the next one is the first: the client asks every second or two
BRIEFLY = 2.0  # seconds for asking who is in the group
OTHERS = {KafkaError.INCONSISTENT_GROUP_PROTOCOL, KafkaError.GROUP_ID_NOT_FOUND}  # they speak another protocol
INSTANCE = "Another member has this group.instance.id: give each member its own."
FOR_GOOD = {
    KafkaError.INVALID_SESSION_TIMEOUT: "Set session.timeout.ms between the broker's group.min.session.timeout.ms and "
    "group.max.session.timeout.ms, or leave it out.",
    KafkaError.INVALID_GROUP_ID: "Give another name with --group.",
    KafkaError.GROUP_MAX_SIZE_REACHED: "Stop another member, or raise the broker's group.max.size.",
    KafkaError.UNSUPPORTED_ASSIGNOR: "Set group.remote.assignor to one that the broker has: uniform or range.",
    KafkaError.FENCED_INSTANCE_ID: INSTANCE,
    KafkaError.UNRELEASED_INSTANCE_ID: INSTANCE,
    KafkaError.UNSUPPORTED_VERSION: "This broker is too old for group.protocol=consumer: leave it out.",
    KafkaError._UNSUPPORTED_FEATURE: "This broker is too old for group.protocol=consumer: leave it out.",
}


class Refusals:
    """Tells a group that lets nobody in for now from one that will never let this member in.

    Args:
        connection: the cluster.
        group: the group's name.
        shares: whether it is to be a share group.
    """

    def __init__(self, connection: Connection, group: str, shares: bool = False) -> None:
        self._connection, self._group, self._shares = connection, group, shares
        self._first = math.inf  # on the monotonic clock: when the group first said no, and has not stopped since
        self._latest = -math.inf

    def complain(self, error: KafkaError) -> None:
        """Say what a broker refused.

        Raises:
            OrderkitError: nothing can be read before somebody has done something about it.
        """
        kind = _kind(error)
        if kind in FOR_GOOD:
            raise OrderkitError(f"Group {self._group!r} does not let this member in: {error.str()}. {FOR_GOOD[kind]}")
        if kind in OTHERS:
            self._wait_for_others(error)
            return
        if _is_fatal(error):
            raise OrderkitError(f"The client of group {self._group!r} cannot go on: {error.str()}. Start again.")
        complain(error)

    def _wait_for_others(self, error: KafkaError) -> None:
        now = time.monotonic()
        if now > self._latest + FORGET:
            self._first = now
        self._latest = now
        if now >= self._first + PATIENCE or _is_fatal(error):
            raise held_by_others(self._connection, self._group, self._shares)


def _is_fatal(error: KafkaError) -> bool:
    return error.fatal() or error.code() == KafkaError._FATAL


def _kind(error: KafkaError) -> int:
    """Give an error's number; a fatal one hides it behind its text."""
    if error.code() != KafkaError._FATAL:
        return error.code()
    kinds = (*OTHERS, *FOR_GOOD)
    return next((kind for kind in kinds if KafkaError(kind).str() in error.str()), KafkaError._FATAL)


def held_by_others(connection: Connection, group: str, shares: bool = False) -> OrderkitError:
    """Say who has a group that this client cannot join.

    Args:
        connection: the cluster.
        group: the group's name.
        shares: whether this client is a share consumer, which cannot do as they do.
    """
    found: ConsumerGroupDescription | None = None
    with suppress(KafkaException, TimeoutError):  # what cannot be asked is left out
        admin = connection.admin()
        found = admin.describe_consumer_groups([group], request_timeout=BRIEFLY)[group].result(2 * BRIEFLY)
    away = "take another name with --group"
    if found is None or not found.members:
        return OrderkitError(
            f"Group {group!r} is held by a group of another kind (a share group, say), with a protocol of its own. "
            f"Stop its members, or {away}."
        )
    who = ", ".join(sorted({f"{member.client_id} at {member.host.strip('/')}" for member in found.members})[:3])
    if found.type.name == "CONSUMER":
        what, same = "the consumer protocol (KIP-848)", "group.protocol=consumer"
    else:
        strategy = found.partition_assignor or "another"
        what = f"the classic protocol and the assignor {strategy!r}"
        same = f"partition.assignment.strategy={strategy}"
    return OrderkitError(
        f"Group {group!r} is held by members with {what} ({who}), which this one does not speak. "
        f"Stop them, or {'' if shares else f'set {same} in --command-config as they do, or '}{away}."
    )


def complain(error: KafkaError) -> None:
    """Say what a broker refused, whoever asked.

    Raises:
        OrderkitError: nothing can be read before somebody has done something about it.
    """
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise OrderkitError(f"{error.str()}. Create the topic with `orderkit topics create`.")
    if error.code() in DENIED:
        raise OrderkitError(f"{error.str()}. Ask for the right to read it; the offsets stay where they are.")
    log.warning("%s", error.str())
