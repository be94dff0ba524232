"""TLS and passwords, against the real broker, with nothing but a client properties file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import Certificates
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from orderkit.brokers import ApacheBroker
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection, connect

pytestmark = pytest.mark.kafka

USER = "alice"
PASSWORD = 'p"a\\s=s #7 wörd'  # every character that some syntax on the way has a use for
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
LISTENERS = {"PLAINTEXT": "PLAINTEXT", "TLS": "SSL", "SCRAM": "SASL_SSL", "PLAIN": "SASL_PLAINTEXT"}


@dataclass
class Secured:
    """A broker with protected listeners, and what a client needs for them."""

    broker: ApacheBroker
    certificates: Certificates
    folder: Path

    def properties(self, **lines: str) -> Path:
        """Write a client properties file; names have `_` for `.`."""
        path = self.folder / "client.properties"
        text = "".join(f"{name.replace('_', '.')}={_escaped(value)}\n" for name, value in lines.items())
        path.write_text("# a client of the tests\n" + text, encoding="utf-8")
        return path


def _escaped(value: str) -> str:
    """Escape a value as a properties file wants it."""
    return value.replace("\\", "\\\\")


def jaas(module: str, password: str = PASSWORD) -> str:
    """Give a line for `sasl.jaas.config`."""
    quoted = password.replace("\\", "\\\\").replace('"', '\\"')
    return f'{module} username="{USER}" password="{quoted}";'


@pytest.fixture(scope="module")
def secured(apache: ApacheBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    assert apache  # the session's broker decides whether there can be one at all
    folder = tmp_path_factory.mktemp("security")
    certificates = Certificates(folder)
    settings: Mapping[str, str] = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.store("broker", "localhost", "127.0.0.1")),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.trusted),
        "listener.name.tls.ssl.client.auth": "required",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{SCRAM};",
        "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.plain.plain.sasl.jaas.config": jaas(PLAIN).replace(";", f' user_{USER}="plain sailing";'),
    }
    with ApacheBroker({"orders": 1}, listeners=LISTENERS, properties=settings) as broker:
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        user = UserScramCredentialUpsertion(USER, credential, PASSWORD.encode())
        admin = broker.connection.admin()
        for future in admin.alter_user_scram_credentials([user]).values():
            future.result(20)
        yield Secured(broker, certificates, folder)


def round_trip(connection: Connection, value: bytes) -> bytes | None:
    """Write a record and read it back."""
    places: list[tuple[KafkaError | None, int | None]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        places.append((error, message.offset()))

    producer = connection.producer()
    producer.produce("orders", value, on_delivery=delivered)
    producer.flush(20)
    [(error, offset)] = places
    assert error is None
    consumer = connection.consumer("readers")
    consumer.subscribe(["orders"])
    try:
        for _ in range(100):
            message = consumer.poll(0.2)
            if message is not None and message.error() is None and message.offset() == offset:
                return message.value()
    finally:
        consumer.close()
    return None


def test_tls_with_certificates_on_both_sides(secured: Secured) -> None:
    """PEM stores in a Java properties file are enough for TLS with a client certificate."""
    file = secured.properties(
        security_protocol="SSL",
        ssl_truststore_type="PEM",
        ssl_truststore_location=str(secured.certificates.trusted),
        ssl_keystore_type="PEM",
        ssl_keystore_location=str(secured.certificates.store("client", "client.example")),
    )
    assert round_trip(connect(secured.broker.address("TLS"), file), b"over TLS") == b"over TLS"


def test_a_broker_of_another_authority_is_not_trusted(secured: Secured, tmp_path: Path) -> None:
    """A certificate that the trust store does not vouch for ends the conversation."""
    file = secured.properties(
        security_protocol="SSL",
        ssl_truststore_type="PEM",
        ssl_truststore_location=str(Certificates(tmp_path).trusted),
    )
    with pytest.raises(OrderkitError, match="No Kafka broker answers"):
        connect(secured.broker.address("TLS"), file).metadata(timeout=3)


def scram_file(secured: Secured, password: str) -> Path:
    """Write the properties file of a user with a password, over TLS."""
    return secured.properties(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_jaas_config=jaas(SCRAM, password),
        ssl_truststore_type="PEM",
        ssl_truststore_location=str(secured.certificates.trusted),
    )


def test_scram_over_tls(secured: Secured) -> None:
    """A user and a password in `sasl.jaas.config` are enough for SCRAM."""
    connection = connect(secured.broker.address("SCRAM"), scram_file(secured, PASSWORD))
    assert round_trip(connection, b"over SCRAM") == b"over SCRAM"


def test_plain_password(secured: Secured) -> None:
    """The PLAIN mechanism works as well."""
    file = secured.properties(
        security_protocol="SASL_PLAINTEXT", sasl_mechanism="PLAIN", sasl_jaas_config=jaas(PLAIN, "plain sailing")
    )
    assert round_trip(connect(secured.broker.address("PLAIN"), file), b"over PLAIN") == b"over PLAIN"


def test_a_wrong_password_is_a_clear_failure_that_keeps_the_secret(
    secured: Secured, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A wrong password fails in seconds, and no message, log line or `repr` shows it."""
    wrong = "not-the-password"
    caplog.set_level(logging.DEBUG)
    connection = connect(secured.broker.address("SCRAM"), scram_file(secured, wrong))
    with pytest.raises(OrderkitError) as caught:
        connection.metadata(timeout=3)
    told = [str(caught.value), repr(caught.value), repr(connection), str(connection), caplog.text, *capfd.readouterr()]
    assert not any(wrong in text for text in told)
    assert "password" in str(caught.value)


def test_no_password_at_all_is_a_clear_failure(secured: Secured) -> None:
    """A client without settings does not get in, and is told which option it lacks."""
    with pytest.raises(OrderkitError, match="--command-config"):
        connect(secured.broker.address("SCRAM")).metadata(timeout=3)
