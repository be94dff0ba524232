"""A Kafka client's properties file: written for Java or for librdkafka, read for librdkafka."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from orderkit.errors import UsageError

log = logging.getLogger("orderkit")

_JAAS = re.compile(r"""(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s;"']+))""")


# Under another name, with the same meaning.
SAME = {
    "fetch.max.wait.ms": "fetch.wait.max.ms",
    "ssl.truststore.certificates": "ssl.ca.pem",
    "ssl.keystore.certificate.chain": "ssl.certificate.pem",
    "ssl.keystore.key": "ssl.key.pem",
}
WITH_A_STORE = {"ssl.truststore.type", "ssl.truststore.password", "ssl.keystore.type"}
# What Java's clients know and librdkafka does not: none of it changes what becomes of an order.
JAVA_NAMES = """
    bootstrap.controllers bootstrap.resolve.timeout.ms buffer.memory buffer.memory.allocation.strategy
    compression.gzip.level compression.lz4.level compression.zstd.level config.providers default.api.timeout.ms
    exclude.internal.topics interceptor.classes key.deserializer key.serializer max.block.ms max.poll.records
    max.request.size metadata.cluster.check.enable metadata.max.idle.ms metric.reporters metrics.num.samples
    metrics.recording.level metrics.sample.window.ms auto.include.jmx.reporter partitioner.class
    partitioner.ignore.keys partitioner.rack.aware rebalance.timeout.ms receive.buffer.bytes send.buffer.bytes
    security.providers share.acquire.mode socket.connection.setup.timeout.max.ms ssl.client.auth
    ssl.enabled.protocols ssl.engine.factory.class ssl.keymanager.algorithm ssl.protocol ssl.provider
    ssl.secure.random.implementation ssl.trustmanager.algorithm transaction.two.phase.commit.enable
    value.deserializer value.serializer sasl.client.callback.handler.class sasl.login.class
    sasl.kerberos.ticket.renew.jitter sasl.kerberos.ticket.renew.window.factor
"""
ONLY_JAVA = set(JAVA_NAMES.split())
ONLY_JAVA_FAMILIES = (
    "default.list.", "internal.", "partitioner.adaptive.", "partitioner.availability.", "sasl.login.",
    "sasl.oauthbearer.allow.", "sasl.oauthbearer.clock.", "sasl.oauthbearer.expected.", "sasl.oauthbearer.header.",
    "sasl.oauthbearer.jwks.", "sasl.oauthbearer.jwt.",
)  # fmt: skip
REGISTRY_FAMILIES = "schema.registry.", "basic.auth."  # Confluent writes both kinds of client into one file
ASSIGNORS = {"range": "range", "roundrobin": "roundrobin", "cooperativesticky": "cooperative-sticky"}


def bare(text: str) -> str:
    r"""Take away what is no part of a setting: white space and line ends round it, and a byte order mark."""
    return text.strip(" \t\r\n\f\v\xa0\ufeff")


def read_properties(path: Path) -> dict[str, str]:
    """Read a Kafka client properties file, written for Java or for librdkafka, as librdkafka properties.

    Java's `sasl.jaas.config` and PEM or PKCS#12 stores are translated; a JKS store has no librdkafka reader. What only
    the clients of Java or of a schema registry have is left out, and one line says so. As in Java, spaces around a
    value are no part of it, and of two lines for one name the later one counts.

    Raises:
        UsageError: no such file, or a store or an assignor that librdkafka does not have.
    """
    import javaproperties  # noqa: PLC0415  it takes as long to load as half of this package, and few need it

    try:
        text = path.read_text(encoding="utf-8-sig")
        given = {name: bare(value) for name, value in javaproperties.loads(text).items()}  # as Kafka's ConfigDef does
    except (OSError, ValueError) as error:
        raise UsageError(f"--command-config {path}: {getattr(error, 'strerror', None) or error}.") from None
    config: dict[str, str] = {}
    unused = []
    for name, value in given.items():
        if name in ONLY_JAVA or name.startswith((*ONLY_JAVA_FAMILIES, *REGISTRY_FAMILIES)):
            unused.append(name)
        elif translate := TRANSLATED.get(name):
            config |= translate(path, value, given)
        elif name not in WITH_A_STORE:
            config[SAME.get(name, name)] = value
    _say_unused(path, sorted(unused))
    if config.pop("group.id", None):
        log.warning("--command-config %s: group.id is left out; name the group with --group.", path)
    return config


def _say_unused(path: Path, names: list[str]) -> None:
    registry = [name for name in names if name.startswith(REGISTRY_FAMILIES)]
    if java := [name for name in names if name not in registry]:
        log.warning("--command-config %s: only Java's clients have %s; it is left out.", path, ", ".join(java))
    if registry:
        told = "--command-config %s: %s is for a schema registry; it is left out, name yours with --schema-registry."
        log.warning(told, path, ", ".join(registry))


def _login(_path: Path, value: str, _given: Mapping[str, str]) -> dict[str, str]:
    login = {key: re.sub(r"\\(.)", r"\1", "".join(quoted)) for key, *quoted in _JAAS.findall(value)}
    return {f"sasl.{key}": login[key] for key in ("username", "password") if key in login}


def _truststore(path: Path, value: str, given: Mapping[str, str]) -> dict[str, str]:
    _refuse_jks(path, given.get("ssl.truststore.type", "JKS"), "PEM")
    return {"ssl.ca.location": value}


def _keystore(path: Path, value: str, given: Mapping[str, str]) -> dict[str, str]:
    if given.get("ssl.keystore.type", "").upper() == "PEM":
        return {"ssl.certificate.location": value, "ssl.key.location": value}
    _refuse_jks(path, given.get("ssl.keystore.type", "JKS"), "PKCS12")
    return {"ssl.keystore.location": value}


def _identification(_path: Path, value: str, _given: Mapping[str, str]) -> dict[str, str]:
    return {"ssl.endpoint.identification.algorithm": value or "none"}


def _assignors(path: Path, value: str, _given: Mapping[str, str]) -> dict[str, str]:
    """Give librdkafka's names of Java's assignors. It has no `StickyAssignor`; what it has goes through."""
    found = []
    for name in re.split(r"\s*,\s*", value):
        java = re.fullmatch(r"org\.apache\.kafka\.clients\.consumer\.(\w+)Assignor", name)
        known = ASSIGNORS.get(java[1].lower()) if java else name
        if known is None or (java is None and "." in name):
            raise UsageError(
                f"--command-config {path}: partition.assignment.strategy has {name}, which is Java's own. "
                f"Choose from: {', '.join(ASSIGNORS.values())}."
            )
        found.append(known)
    if value.startswith("org.apache.") and len(found) > 1:  # Java's default has both kinds, for a way between them
        found = [name for name in found if name != "cooperative-sticky"]
    return {"partition.assignment.strategy": ",".join(found)} if value else {}


TRANSLATED: dict[str, Callable[[Path, str, Mapping[str, str]], dict[str, str]]] = {
    "sasl.jaas.config": _login,
    "ssl.truststore.location": _truststore,
    "ssl.keystore.location": _keystore,
    "ssl.endpoint.identification.algorithm": _identification,
    "partition.assignment.strategy": _assignors,
}


def _refuse_jks(path: Path, kind: str, wanted: str) -> None:
    if kind.upper() != wanted:
        raise UsageError(f"--command-config {path}: a {kind} store cannot be read here. Convert it to {wanted}.")
