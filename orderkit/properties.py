"""A Kafka client's properties file: written for Java or for librdkafka, read for librdkafka."""

from __future__ import annotations

import re
from pathlib import Path

from orderkit.errors import UsageError

_JAAS = re.compile(r"""(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s;"']+))""")


def bare(text: str) -> str:
    r"""Take away what is no part of a setting: white space and line ends round it, and a byte order mark."""
    return text.strip(" \t\r\n\f\v\xa0\ufeff")


def is_text(text: str) -> bool:
    """Whether UTF-8 can carry it: an argument in another encoding holds halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_properties(path: Path) -> dict[str, str]:
    """Read a Kafka client properties file, written for Java or for librdkafka, as librdkafka properties.

    Java's `sasl.jaas.config` and PEM or PKCS#12 stores are translated; a JKS store has no librdkafka reader.

    Raises:
        UsageError: no such file, or a store that librdkafka cannot open.
    """
    import javaproperties  # noqa: PLC0415  it takes as long to load as half of this package, and few need it

    try:
        text = path.read_text(encoding="utf-8-sig")
        given = {name: bare(value) for name, value in javaproperties.loads(text).items()}  # as Kafka's ConfigDef does
    except (OSError, ValueError) as error:
        raise UsageError(f"--command-config {path}: {getattr(error, 'strerror', None) or error}.") from None
    config: dict[str, str] = {}
    for name, value in given.items():
        if name == "sasl.jaas.config":
            login = {key: re.sub(r"\\(.)", r"\1", "".join(quoted)) for key, *quoted in _JAAS.findall(value)}
            config |= {f"sasl.{key}": login[key] for key in ("username", "password") if key in login}
        elif name == "ssl.truststore.location":
            _refuse_jks(path, given.get("ssl.truststore.type", "JKS"), "PEM")
            config["ssl.ca.location"] = value
        elif name == "ssl.keystore.location":
            if given.get("ssl.keystore.type", "").upper() == "PEM":
                config["ssl.certificate.location"] = config["ssl.key.location"] = value
            else:
                _refuse_jks(path, given.get("ssl.keystore.type", "JKS"), "PKCS12")
                config["ssl.keystore.location"] = value
        elif name == "ssl.endpoint.identification.algorithm":
            config[name] = value or "none"
        elif name not in {"ssl.truststore.type", "ssl.truststore.password", "ssl.keystore.type"}:
            config[name] = value
    return config


def _refuse_jks(path: Path, kind: str, wanted: str) -> None:
    if kind.upper() != wanted:
        raise UsageError(f"--command-config {path}: a {kind} store cannot be read here. Convert it to {wanted}.")
