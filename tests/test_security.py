"""TLS, passwords and rights, against the real broker, with nothing but a client properties file."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from certificates import Certificates
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import AclOperation, AdminClient, ResourceType  # type: ignore[attr-defined]
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from helpers import AT_ONCE, Background, Kit, soon, take_orders, wait_for
from rights import AUTHORIZER, Rights

from orderkit.brokers import ApacheBroker
from orderkit.consumer import RetryingConsumer
from orderkit.consuming.loop import Handler, accept
from orderkit.crash.plan import CrashPlan
from orderkit.crash.trial import Trial
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection, connect
from orderkit.orders.order import Order
from orderkit.replay.job import Replay
from orderkit.replay.journal import create_journal, journal_topic, read_journal
from orderkit.replay.noting import Journal
from orderkit.retry import Permanent

pytestmark = pytest.mark.kafka

TOPIC, GROUP = ResourceType.TOPIC, ResourceType.GROUP
BOBS = "bobs-secret"
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
        wait_for(lambda: knows(admin, USER))
        yield Secured(broker, certificates, folder)


def knows(admin: AdminClient, user: str) -> bool:
    """Whether a broker has heard of a user with SCRAM; the controller has a moment before."""
    there: Any = admin.describe_user_scram_credentials()
    return user in there.result(20)


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


def command_lines(pid: int) -> dict[int, bytes]:
    """Read what `ps` shows of a process and all below it."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    found: dict[int, bytes] = {}
    for member in family:
        with suppress(OSError):
            found[member] = Path(f"/proc/{member}/cmdline").read_bytes()
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc")
def test_no_command_line_shows_the_password(secured: Secured) -> None:
    """A command that hands its connection to a process of its own does so out of sight of `ps`."""
    file, address = scram_file(secured, PASSWORD), secured.broker.address("SCRAM")
    command = [sys.executable, "-m", "orderkit", "compare-engines", "--engine", "pause", "--orders", "40"]
    command += ["--bootstrap-server", address, "--command-config", str(file), "--json"]
    seen: dict[int, set[bytes]] = defaultdict(set)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        while running.poll() is None:
            for pid, line in command_lines(running.pid).items():
                seen[pid].add(line)
            time.sleep(0.05)
        assert running.returncode == 0, running.stderr.read() if running.stderr else ""
    assert len(seen) > 1
    assert not [line for lines in seen.values() for line in lines if PASSWORD.encode() in line]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="there is no /proc")
def test_no_command_line_of_a_crash_test_shows_the_password() -> None:
    """The workers of a crash test are told theirs through a pipe."""
    connection = Connection("127.0.0.1:1", {"sasl.username": "bob", "sasl.password": BOBS})
    stage: Any = SimpleNamespace(near=connection, far=connection)
    trial = Trial(stage, CrashPlan(1))
    try:
        for worker in trial.plan.workers:
            trial._start(worker)
        pids = [process.popen.pid for process in trial._running.values()]
        # A program has no command line for a moment after its start: Linux lets the starter go on before that is there.
        wait_for(lambda: all(command_lines(pid)[pid] for pid in pids))
        seen = [line for pid in pids for line in command_lines(pid).values()]
    finally:
        trial._sweep_up()
    assert len(seen) == len(trial.plan.workers)
    assert all(b"orderkit" in line and BOBS.encode() not in line for line in seen)


@pytest.fixture(scope="module")
def guarded(apache: ApacheBroker) -> Iterator[ApacheBroker]:
    """Start a broker that lets bob do what he was granted, and no more."""
    assert apache
    settings = {
        **AUTHORIZER,
        "super.users": "User:ANONYMOUS",
        "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": f'{PLAIN} user_bob="{BOBS}";',
    }
    listeners = {"PLAINTEXT": "PLAINTEXT", "SASL": "SASL_PLAINTEXT"}
    with ApacheBroker({}, listeners=listeners, properties=settings) as broker:
        yield broker


@pytest.fixture
def kit(guarded: ApacheBroker) -> Kit:
    """Give topics of their own with 20 orders, written by somebody with all rights."""
    kit = Kit(1, guarded)
    kit.send_orders(take_orders(20))
    return kit


def bobs_consumer(kit: Kit, guarded: ApacheBroker, handler: Handler = accept) -> RetryingConsumer:
    """Open a consumer with bob's rights."""
    return RetryingConsumer(
        as_bob(guarded), handler, group=kit.group, topic=kit.topic, dead_letters=kit.dead_letters, policy=AT_ONCE
    )


def as_bob(guarded: ApacheBroker) -> Connection:
    """Connect with bob's rights."""
    config = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "bob"}
    return Connection(guarded.address("SASL"), {**config, "sasl.password": BOBS})


def refuse(_order: Order, _attempt: int) -> None:
    """Send every order to the dead letters."""
    raise Permanent("no")


@pytest.mark.parametrize(
    ("denied", "told"),
    [
        ("the topic itself", r"'orders.* may not be seen"),
        ("reading the topic", r"Topic authorization failed.*offsets stay"),
        ("the group", r"Group authorization failed.*offsets stay"),
    ],
)
def test_a_denied_topic_or_group_is_a_clear_error(kit: Kit, guarded: ApacheBroker, denied: str, told: str) -> None:
    """It ends in seconds, says what is not allowed, and commits nothing; no text shows the password."""
    rights = Rights(guarded)
    rights.grant(TOPIC, kit.dead_letters, AclOperation.WRITE)
    if denied != "the topic itself":
        rights.grant(TOPIC, kit.topic, AclOperation.DESCRIBE if denied == "reading the topic" else AclOperation.READ)
    if denied != "the group":
        rights.grant(GROUP, kit.group, AclOperation.READ)
    with pytest.raises(OrderkitError, match=told) as caught:
        bobs_consumer(kit, guarded).run(orders=20, until=soon(lambda: False, 30))
    assert BOBS not in str(caught.value)
    assert kit.offsets() == {}


def test_a_denied_dead_letter_topic_keeps_the_offset(kit: Kit, guarded: ApacheBroker) -> None:
    """Where no topic at all may be written the consumer ends with a clear error, and the offset stays."""
    rights = Rights(guarded)
    rights.grant(TOPIC, kit.topic, AclOperation.READ)
    rights.grant(TOPIC, kit.dead_letters, AclOperation.DESCRIBE)
    rights.grant(GROUP, kit.group, AclOperation.READ)
    for other in list(guarded.connection.metadata().topics):
        rights.take(TOPIC, other) if other not in (kit.topic, kit.dead_letters) else None
    with pytest.raises(OrderkitError, match=r"cannot be written.*Ask for the right.*offsets stay"):
        bobs_consumer(kit, guarded, refuse).run(orders=20, until=soon(lambda: False, 30))
    assert set(kit.offsets().values()) <= {0}
    assert kit.letters() == []


def test_a_right_that_comes_back_is_enough(kit: Kit, guarded: ApacheBroker) -> None:
    """A writer who is refused one topic waits with the offset kept, says why, and goes on when the right is granted."""
    rights = Rights(guarded)
    rights.grant(TOPIC, kit.topic, AclOperation.READ, AclOperation.WRITE)  # some right to write, so that it may try
    rights.grant(TOPIC, kit.dead_letters, AclOperation.DESCRIBE)
    rights.grant(GROUP, kit.group, AclOperation.READ)
    consumer = bobs_consumer(kit, guarded, refuse)
    with Background(consumer):
        wait_for(lambda: consumer.trouble)
        assert "authorization failed" in str(consumer.trouble)
        assert set(kit.offsets().values()) <= {0}
        rights.grant(TOPIC, kit.dead_letters, AclOperation.WRITE)
        wait_for(lambda: kit.offsets() == {0: 20})
    assert len(kit.letters()) == 20


def test_a_replay_needs_no_right_but_to_read_to_write_and_to_commit(kit: Kit, guarded: ApacheBroker) -> None:
    """With those three all moves; its journal is in a file where the topic is hidden, or refused, with a line then."""
    kit.consumer(refuse, policy=AT_ONCE).run(orders=20)
    create_journal(kit.connection, kit.dead_letters)
    rights, bob, told = Rights(guarded), as_bob(guarded), list[str]()
    rights.grant(TOPIC, kit.dead_letters, AclOperation.READ)
    rights.grant(TOPIC, kit.topic, AclOperation.WRITE)
    rights.grant(GROUP, kit.group, AclOperation.READ)
    with pytest.raises(OrderkitError, match=r"authorization failed.*--no-check"):
        Replay(bob, kit.dead_letters, group=kit.group, limit=5).run()
    for seen in (False, True):
        if seen:
            rights.grant(TOPIC, journal_topic(kit.dead_letters), AclOperation.DESCRIBE)
            wait_for(lambda: journal_topic(kit.dead_letters) in bob.metadata().topics)
        with Journal(bob, kit.dead_letters, told.append) as journal:
            report = Replay(bob, kit.dead_letters, group=kit.group, check=False, limit=10).run(journal.watch)
            journal.watch(report)
        assert report.counts == {"moved": 10}
        assert len(told) == seen
    assert "authorization failed" in told[0]
    assert [entry.written for entry in read_journal(kit.connection, pytest.fail, [kit.dead_letters])] == [10, 10]
