"""Where Kafka is: flags, environment, and properties files as Java's tools have them."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import trustme
from confluent_kafka import Producer

from orderkit.errors import UsageError
from orderkit.kafka import LOCALHOST, Connection, connect
from orderkit.kafka.properties import read_properties

PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"


@pytest.fixture(autouse=True)
def _no_address_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder for properties files."""
    return tmp_path


def file(folder: Path, *lines: str) -> Path:
    """Write a properties file."""
    path = folder / "client.properties"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def read(folder: Path, *lines: str) -> dict[str, str]:
    """Write a properties file and read it."""
    return read_properties(file(folder, *lines))


def refusal(folder: Path, *lines: str) -> str:
    """Read a file that must be refused; give the line that says why."""
    path = file(folder, *lines)
    with pytest.raises(UsageError) as caught:
        connect(None, path)
    told = str(caught.value)
    assert len(told.splitlines()) == 1
    return told


# --- which address


def test_the_flag_goes_before_the_environment_before_the_file_before_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four places that can name the cluster, the nearest to the reader wins."""
    path = file(folder, "bootstrap.servers=file:1", "client.id=me")
    assert connect().bootstrap == LOCALHOST
    assert connect(None, path).bootstrap == "file:1"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "environment:2")
    assert connect(None, path).bootstrap == "environment:2"
    assert connect().bootstrap == "environment:2"
    assert connect("flag:3", path).bootstrap == "flag:3"


def test_the_address_is_taken_out_of_the_file_and_the_rest_kept(folder: Path) -> None:
    """The file's address cannot overrule a flag later on: it is no further setting."""
    path = file(folder, "bootstrap.servers=file:1", "client.id=me")
    assert dict(connect("flag:3", str(path)).config) == {"client.id": "me"}


def test_an_empty_environment_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to nothing names no cluster."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")
    assert connect().bootstrap == LOCALHOST


@pytest.mark.parametrize(
    "address", ["localhost:9092", "a.example.org:1,b:65535", "10.0.0.1:9092", "[::1]:9092", "[fe80::1]:9092,x-y:9"]
)
def test_addresses_that_are_some(address: str) -> None:
    """Names, numbers and IPv6 in brackets are addresses, one or several."""
    assert connect(address).bootstrap == address


@pytest.mark.parametrize(
    "address",
    ["localhost", "localhost:", ":9092", "a:b", "a:1,", "a:1;b:2", "a b:1", "http://a:1", "::1:9092", "a:123456"],
)
def test_addresses_that_are_none(address: str) -> None:
    """What is no HOST:PORT is refused in one line that shows how to write it."""
    with pytest.raises(UsageError, match=r"HOST:PORT, as in localhost:9092") as caught:
        connect(address)
    assert repr(address) in str(caught.value)


def test_a_bad_address_is_refused_wherever_it_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's and the file's addresses are checked too."""
    with pytest.raises(UsageError, match="'nowhere'"):
        connect(None, file(folder, "bootstrap.servers=nowhere"))
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "elsewhere")
    with pytest.raises(UsageError, match="'elsewhere'"):
        connect()


def test_java_s_lists_may_have_spaces(folder: Path) -> None:
    """Java trims the members of a list, so `a:1, b:2` in a file are two addresses."""
    assert connect(None, file(folder, "bootstrap.servers=a:1, b:2")).bootstrap.replace(" ", "") == "a:1,b:2"


# --- properties files


def test_a_java_properties_file_is_read_as_java_reads_it(folder: Path) -> None:
    """Comments, all three separators, continued lines and escapes mean what they mean in Java."""
    found = read(
        folder,
        "# a comment",
        "! another",
        "security.protocol = SASL_SSL",
        "client.id: me",
        "client.rack west",
        "ssl.cipher.suites=one,\\",
        "    two",
        "metric\\ name=\\u20ac",
        "",
    )
    assert found == {
        "security.protocol": "SASL_SSL",
        "client.id": "me",
        "client.rack": "west",
        "ssl.cipher.suites": "one,two",
        "metric name": "€",
    }


def test_librdkafka_s_own_properties_go_through(folder: Path) -> None:
    """A file written for librdkafka stays as it is."""
    lines = ["sasl.username=alice", "sasl.password=secret", "ssl.ca.location=/ca.pem", "socket.timeout.ms=500"]
    assert read(folder, *lines) == dict(line.split("=") for line in lines)


@pytest.mark.parametrize(
    ("value", "name", "password"),
    [
        (f'{PLAIN} username="alice" password="secret";', "alice", "secret"),
        (f"{SCRAM} username='alice' password='it is';", "alice", "it is"),
        (f"{PLAIN} username=alice password=secret;", "alice", "secret"),
        (f'{PLAIN} username = "alice" password = "se;cret" ;', "alice", "se;cret"),
        (f'{PLAIN} \\\n  username="alice" \\\n  password="secret";', "alice", "secret"),
        (f'{SCRAM} password="secret" username="alice" tokenauth="true";', "alice", "secret"),
        (f'{PLAIN} username="alice" password="a\\\\"b";', "alice", 'a"b'),  # the file has \\", Java's parser sees \"
        (f'{PLAIN} username="alice" password="a\\\\\\\\b";', "alice", "a\\b"),
        (f'{PLAIN} username="alice" password="it\'s = #1!";', "alice", "it's = #1!"),
        (f'{PLAIN} username="alice" password="username=bob";', "alice", "username=bob"),
        (f'{PLAIN} username="\\u00e4lice" password="";', "älice", ""),
    ],
)
def test_java_s_login_is_translated(value: str, name: str, password: str, folder: Path) -> None:
    """Name and password come out of `sasl.jaas.config`, whatever their quotes and escapes."""
    found = read(folder, f"sasl.jaas.config={value}")
    assert found == {"sasl.username": name, "sasl.password": password}


def test_only_the_login_s_own_options_are_its_name_and_password(folder: Path) -> None:
    """What another option's text looks like is no name."""
    value = f'{SCRAM} username="alice" password="secret" note="username=bob";'
    assert read(folder, f"sasl.jaas.config={value}") == {"sasl.username": "alice", "sasl.password": "secret"}


def test_a_pem_truststore_is_translated(folder: Path) -> None:
    """A PEM truststore is librdkafka's CA file; it has no password."""
    found = read(folder, "ssl.truststore.type=PEM", "ssl.truststore.location=/ca.pem", "ssl.truststore.password=x")
    assert found == {"ssl.ca.location": "/ca.pem"}


def test_a_pem_keystore_is_certificate_and_key(folder: Path) -> None:
    """A PEM keystore holds both the certificate and the key; the key's password stays."""
    found = read(folder, "ssl.keystore.location=/me.pem", "ssl.keystore.type=PEM", "ssl.key.password=k")
    assert found == {
        "ssl.certificate.location": "/me.pem",
        "ssl.key.location": "/me.pem",
        "ssl.key.password": "k",
    }


def test_a_pkcs12_keystore_keeps_its_place_and_password(folder: Path) -> None:
    """PKCS#12 is what librdkafka's own keystore is."""
    found = read(folder, "ssl.keystore.type=PKCS12", "ssl.keystore.location=/me.p12", "ssl.keystore.password=k")
    assert found == {"ssl.keystore.location": "/me.p12", "ssl.keystore.password": "k"}


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["ssl.truststore.location=/t"], "JKS store.*Convert it to PEM"),  # JKS is Java's default
        (["ssl.truststore.location=/t", "ssl.truststore.type=JKS"], "JKS store.*Convert it to PEM"),
        (["ssl.truststore.location=/t", "ssl.truststore.type=PKCS12"], "PKCS12 store.*Convert it to PEM"),
        (["ssl.keystore.location=/k"], "JKS store.*Convert it to PKCS12"),
        (["ssl.keystore.location=/k", "ssl.keystore.type=JKS"], "JKS store.*Convert it to PKCS12"),
    ],
)
def test_a_store_without_a_reader_is_refused(lines: list[str], told: str, folder: Path) -> None:
    """A store that librdkafka cannot open is refused, with the format to convert it to."""
    with pytest.raises(UsageError, match=told):
        read(folder, *lines)


def test_an_empty_identification_algorithm_turns_it_off(folder: Path) -> None:
    """Java writes nothing where librdkafka writes `none`."""
    name = "ssl.endpoint.identification.algorithm"
    assert read(folder, f"{name}=") == {name: "none"}
    assert read(folder, f"{name}=https") == {name: "https"}


def test_files_that_cannot_be_read_are_refused(folder: Path) -> None:
    """A missing file, a folder, and bytes that are no text are refused, by name and with the reason."""
    (folder / "bytes").write_bytes(b"a=\xff\xfe")
    for name, told in (("none", "No such file"), (".", "directory"), ("bytes", "utf-8")):
        with pytest.raises(UsageError, match=told) as caught:
            connect(None, folder / name)
        assert f"--command-config {folder / name}" in str(caught.value)


def test_a_broken_escape_is_refused(folder: Path) -> None:
    """A file that Java could not read either is refused in one line."""
    assert "--command-config" in refusal(folder, "client.id=\\u12")


def test_a_byte_order_mark_is_no_part_of_a_name(folder: Path) -> None:
    """A file saved by a Windows editor means what it says."""
    path = folder / "client.properties"
    path.write_bytes(b"\xef\xbb\xbfclient.id=me\n")
    assert read_properties(path) == {"client.id": "me"}


# --- in a client's hands


def test_no_password_shows(folder: Path) -> None:
    """A connection can be printed, logged and shown in a notebook without giving a password away."""
    login = f'{PLAIN} username="alice" password="hunter2";'
    connection = connect(None, file(folder, f"sasl.jaas.config={login}", "ssl.key.password=hunter3"))
    assert connection.config["sasl.password"] == "hunter2"
    for shown in (repr(connection), str(connection), f"{connection}"):
        assert "hunter" not in shown
        assert LOCALHOST in shown


def test_librdkafka_takes_a_translated_file(folder: Path) -> None:
    """What Java's file became is accepted by a real client: login, CA, certificate and key."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    mine = authority.issue_cert("me.example.org", not_after=datetime.datetime(2040, 1, 1, tzinfo=datetime.UTC))
    mine.private_key_and_cert_chain_pem.write_to_path(folder / "me.pem")
    path = file(
        folder,
        "security.protocol=SASL_SSL",
        "sasl.mechanism=SCRAM-SHA-512",
        f'sasl.jaas.config={SCRAM} username="alice" password="secret";',
        "ssl.truststore.type=PEM",
        f"ssl.truststore.location={folder / 'ca.pem'}",
        "ssl.keystore.type=PEM",
        f"ssl.keystore.location={folder / 'me.pem'}",
        "ssl.endpoint.identification.algorithm=",
    )
    assert isinstance(connect("localhost:1", path).producer(), Producer)


@pytest.mark.parametrize(
    "line", ["no.such.thing=1", "security.protocol=CARRIER_PIGEON", "ssl.ca.location=/no/such/file"]
)
def test_what_librdkafka_does_not_know_is_a_usage_error(line: str, folder: Path) -> None:
    """A setting that no client can be made with is refused in one line that points at the file, and hides passwords."""
    connection = connect("localhost:1", file(folder, "security.protocol=SSL", "sasl.password=hunter2", line))
    with pytest.raises(UsageError, match="--command-config") as caught:
        connection.producer()
    assert len(str(caught.value).splitlines()) == 1
    assert "hunter2" not in str(caught.value)


def test_a_connection_is_a_value() -> None:
    """Two connections with the same address and settings are equal."""
    assert connect("a:1") == Connection("a:1") != Connection("a:2")
