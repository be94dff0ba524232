"""Why no broker answers, and whether the addresses that a broker gives to its clients can be reached."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata

from orderkit.errors import OrderkitError
from orderkit.kafka.listener import API_VERSIONS, ask, brokers, connect, trusting, what_listens
from orderkit.members.patience import call_aside

SOON = 2.0  # seconds in which a broker that is well has answered
REACH = 5.0  # seconds for a connection to any of the brokers, the look-up of its name included
REFUSALS = {
    KafkaError._AUTHENTICATION: "The broker at {} refuses this user or password",
    KafkaError._SSL: "No Kafka broker answers at {} that TLS lets us talk to",
}
Spoken = dict[str, tuple[str, str]]  # by place, what `what_listens` found there

_reached: set[tuple[str, int]] = set()  # in this process


def ask_for_brokers(
    admin: AdminClient, timeout: float, asked: str, protocol: str | None, told: Sequence[KafkaError]
) -> ClusterMetadata:
    """Ask a cluster what it has; when no answer comes soon, and in the end, look why.

    Args:
        admin: a client.
        timeout: seconds.
        asked: where the client asks first.
        protocol: its `security.protocol`.
        told: what it hears meanwhile.

    Raises:
        OrderkitError: no answer, and why.
    """
    for wait in (min(SOON, timeout), timeout - min(SOON, timeout)):
        with suppress(KafkaException):
            return admin.list_topics(timeout=wait)
        admin.poll(0)  # what it was told meanwhile
        spoken = {place: what_listens(place) for place in asked.split(",")}
        check_detour(asked, protocol, told, spoken)
    raise explain_silence(asked, protocol, told, spoken)


def check_advertised(asked: str, places: Iterable[tuple[str | None, int]], protocol: str) -> None:
    """Make sure that at least one of the brokers can be reached where the cluster says it is.

    A client asks any broker who there is, and from then on uses the addresses in the answer (`advertised.listeners`).
    Where those lead nowhere it waits in silence.

    Args:
        asked: the address that answered.
        places: host and port of each broker there is.
        protocol: the client's `security.protocol`.

    Raises:
        OrderkitError: none of them can be reached; names one, and why not.
    """
    known = {(str(host), port) for host, port in places}
    if not known or known & _reached:
        return
    tries = {place: call_aside(partial(_greet, *place, protocol)) for place in sorted(known)}
    deadline = time.monotonic() + REACH
    while not known & _reached and not all(one.done() for one in tries.values()) and time.monotonic() < deadline:
        time.sleep(0.002)
    if known & _reached:
        return
    (host, port), tried = next(iter(tries.items()))
    why = _reason(tried.exception()) if tried.done() else "no answer"
    raise OrderkitError(
        f"The broker at {asked} answers, and sends its clients to {host}:{port}, which cannot be reached from here: "
        f"{why}. Let it advertise an address that this machine reaches (advertised.listeners), "
        "or name another of its listeners with --bootstrap-server."
    )


def _greet(host: str, port: int, protocol: str) -> None:
    """Connect to a broker as far as takes no password, and note that it is there."""
    with socket.create_connection((host.strip("[]"), port), timeout=REACH) as plain:
        if protocol.endswith("SSL"):
            trusting().wrap_socket(plain).close()
        elif ask(plain, API_VERSIONS, 0, b"") is None:
            raise OSError("something else answers, or nothing")
    _reached.add((host, port))


def _reason(error: BaseException | None) -> str:
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, TimeoutError):
        return "no answer"
    return str(getattr(error, "strerror", None) or error or "no answer").lower()


def check_detour(asked: str, protocol: str | None, told: Sequence[KafkaError], spoken: Spoken) -> None:
    """Find out whether a client hears nothing because the broker speaks otherwise, or sends it to where it cannot go.

    Args:
        asked: where the client asked first.
        protocol: its `security.protocol`.
        told: what it heard meanwhile.
        spoken: what each of the places was found to speak.

    Raises:
        OrderkitError: that is so.
    """
    ours = (protocol or "PLAINTEXT").upper()
    if all(theirs not in {"", "unknown", ours} for theirs, _ in spoken.values()):
        raise explain_silence(asked, protocol, told, spoken)
    for place, (theirs, _) in spoken.items():
        if theirs != ours:
            continue
        found: list[tuple[str | None, int]] = []
        with suppress(OSError), connect(place) as plain:
            if ours == "SSL":
                with trusting().wrap_socket(plain) as secret:
                    found = brokers(secret)
            else:
                found = brokers(plain)
        if not found:  # a listener with a password tells nothing to us, but the client knows
            learned = (re.search(r"([^/\s]+):(\d+)/\d+: ", error.str()) for error in told)
            found = [(it[1], int(it[2])) for it in learned if it]
        if found:
            check_advertised(place, found, ours)


def explain_silence(asked: str, protocol: str | None, told: Sequence[KafkaError], spoken: Spoken) -> OrderkitError:
    """Say why no broker answered.

    Args:
        asked: where.
        protocol: the client's `security.protocol`.
        told: what the client heard meanwhile.
        spoken: what each of the places was found to speak.
    """
    ours = (protocol or "PLAINTEXT").upper()
    place = asked.partition(",")[0]
    theirs, mechanisms = spoken[place]
    if theirs not in {"", "unknown", ours}:
        with_sasl = f", with its sasl.mechanism ({mechanisms}), name and password" if mechanisms else ""
        return OrderkitError(
            f"The listener at {place} speaks {theirs}, and this client {ours}. "
            f"Set security.protocol={theirs}{with_sasl} in --command-config, or name another listener."
        )
    for code, what in REFUSALS.items():
        if refused := [error for error in told if error.code() == code]:
            return OrderkitError(f"{what.format(asked)}: {refused[0].str()}. Check --command-config.")
    if theirs == "unknown":
        return OrderkitError(
            f"No Kafka broker answers at {asked}: something listens there that is none, or stands still. Name another "
            "address with --bootstrap-server HOST:PORT, or stop it, or set ORDERKIT_PORT."
        )
    return OrderkitError(
        f"No Kafka broker answers at {asked}. Start one with `orderkit broker` or "
        "`docker compose up`, or name yours with --bootstrap-server HOST:PORT "
        "(and --command-config FILE if it wants TLS or a password)."
    )
