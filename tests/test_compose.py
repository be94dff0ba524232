"""docker-compose.yml, the Dockerfile, and what the Kafka image makes of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import javaproperties
import pytest
import yaml  # type: ignore[import-untyped]
from confluent_kafka import ShareConsumer
from helpers import PATIENCE, Late

from orderkit.brokers import _jars
from orderkit.brokers._ports import Ports
from orderkit.cli import cli
from orderkit.errors import OrderkitError
from orderkit.kafka import Connection

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
DOCKERIGNORE = (ROOT / ".dockerignore").read_text("utf-8").splitlines()


def compose(**environment: str) -> dict[str, Any]:
    """Read the compose file as `docker compose` does in this environment."""
    text = re.sub(r"\$\{(\w+):-(\w*)\}", lambda match: environment.get(match[1], match[2]), TEXT)
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


SERVICES: dict[str, Any] = compose()["services"]
KAFKA = SERVICES["kafka"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_services() -> None:
    """One Kafka and nothing else besides the kit: no ZooKeeper; JupyterLab and a browser's view only when asked for."""
    assert set(SERVICES) == {"kafka", "topics", "producer", "consumer", "jupyter", "ui"}
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {"jupyter": ["jupyter"], "ui": ["ui"]}


def test_image_has_an_exact_tag() -> None:
    """Images at a release that will be the same one tomorrow; Kafka is the official one that `ApacheBroker` runs."""
    images = {name: service["image"] for name, service in SERVICES.items() if "image" in service}
    assert images == {"kafka": "apache/kafka:4.4.0", "ui": "tchiotludo/akhq:0.26.0"}
    assert KAFKA["image"] == f"apache/kafka:{_jars.VERSION}"


def test_names_are_left_to_compose() -> None:
    """Two copies of the project can run side by side, and a service can be scaled: nothing has a fixed name."""
    assert not [name for name, service in SERVICES.items() if "container_name" in service]


def test_ports_are_open_to_this_machine_only() -> None:
    """Neither Kafka nor JupyterLab nor the browser's view can be reached from the network."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert sorted(ports) == ["127.0.0.1:8080:8080", "127.0.0.1:8888:8888", "127.0.0.1:9092:9092"]


def test_kafka_port_is_mapped_and_advertised() -> None:
    """ORDERKIT_PORT moves the published port and the address that Kafka gives to clients, together."""
    kafka = compose(ORDERKIT_PORT="19192")["services"]["kafka"]
    assert kafka["ports"] == ["127.0.0.1:19192:9092"]
    assert kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")[1] == "HOST://127.0.0.1:19192"


def test_the_browsers_view_reads_the_same_kafka() -> None:
    """AKHQ has one connection, the listener for containers, and shows the latest records first; its port moves."""
    ui = compose(ORDERKIT_UI_PORT="18080")["services"]["ui"]
    assert ui["ports"] == ["127.0.0.1:18080:8080"]
    connections = yaml.safe_load(ui["environment"]["AKHQ_CONFIGURATION"])["akhq"]["connections"]
    (connection,) = connections.values()
    assert connection["properties"] == {"bootstrap.servers": "kafka:19092"}
    assert connection["ui-options"] == {"topic-data": {"sort": "NEWEST", "date-time-format": "ISO"}}


def test_jupyter_port_is_the_one_in_its_log() -> None:
    """ORDERKIT_JUPYTER_PORT moves the published port and the one in the address that JupyterLab prints."""
    jupyter = compose(ORDERKIT_JUPYTER_PORT="18888")["services"]["jupyter"]
    assert jupyter["ports"] == ["127.0.0.1:18888:18888"]
    assert "--port=18888" in jupyter["command"].split()
    assert "127.0.0.1:18888/" in jupyter["healthcheck"]["test"][-1]


def test_jupyter_asks_for_its_token() -> None:
    """Nobody turns off the token: any page in the reader's browser could run code otherwise."""
    assert "token" not in SERVICES["jupyter"]["command"]
    assert "password" not in SERVICES["jupyter"]["command"]


def test_data_is_in_a_named_volume() -> None:
    """`down` and `up` keep the orders: the volume is mounted where Kafka writes."""
    assert KAFKA["volumes"] == [f"kafka-data:{KAFKA['environment']['KAFKA_LOG_DIRS']}"]
    assert list(compose()["volumes"]) == ["kafka-data"]


def test_health_is_checked_and_waited_for() -> None:
    """What listens has a health check; the kit starts when Kafka is healthy and the topics are there."""
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == {"kafka", "jupyter"}
    assert SERVICES["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    for name in ("producer", "consumer", "jupyter", "ui"):
        assert SERVICES[name]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}


def test_the_kit_reaches_kafka_by_its_inner_listener() -> None:
    """Inside, `localhost` is the container itself, so the kit uses the listener that advertises `kafka`."""
    inner = KAFKA["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")[0].removeprefix("CONTAINERS://")
    for service in OURS.values():
        assert service["environment"]["KAFKA_BOOTSTRAP_SERVERS"] == inner == "kafka:19092"


def test_stopping_is_clean_and_lasting() -> None:
    """SIGTERM always arrives, and what the reader has stopped does not come back by itself."""
    for service in OURS.values():
        assert service["init"] is True
        assert service.get("restart", "no").partition(":")[0] in {"no", "on-failure"}


def test_built_images_share_no_tag() -> None:
    """Services that build the same tag at the same time fail on a fresh machine."""
    assert not [name for name, service in OURS.items() if "image" in service]


def test_jupyter_has_what_the_notebooks_need() -> None:
    """JupyterLab, and a Java for the notebooks with a real broker, are in the image of that service, and only there."""
    extras = {name: service["build"] for name, service in OURS.items() if service["build"] != "."}
    assert extras == {"jupyter": {"context": ".", "args": {"EXTRAS": "lab,kafka"}}}


COMMANDS = [service["command"] for name, service in OURS.items() if name != "jupyter"]
COMMANDS += re.findall(r"^#.* exec \w+ (orderkit .+?)(?:  |$)", TEXT, re.MULTILINE)


def parse_command(line: str) -> None:
    """Read a line of shell as `orderkit` does, without running it: its command and its options must exist."""
    program, *words = shlex.split(line, comments=True)
    assert program == "orderkit"
    command: click.Command = cli
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found, f"no command {words[0]!r}"
        command = found
        del words[0]
    command.make_context(command.name, words)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist(line: str) -> None:
    """Every `orderkit` line in the file is a command of this version, with options that it has."""
    parse_command(line)


def test_dockerfile() -> None:
    """The image: an exact Python, nothing pulled besides, dependencies before sources, output at once, no root."""
    lines = DOCKERFILE.splitlines()
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM python:3.12-slim"]
    assert "syntax=" not in DOCKERFILE  # that line makes the builder pull an image of its own
    assert DOCKERFILE.index("COPY pyproject.toml") < DOCKERFILE.index("pip install -r") < DOCKERFILE.index("COPY . ")
    assert "PYTHONUNBUFFERED=1" in DOCKERFILE
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER orderkit"


def let_through() -> set[str]:
    """List what reaches the builder: the exceptions in .dockerignore."""
    return {line[1:] for line in DOCKERIGNORE if line.startswith("!")}


def test_dockerignore_lets_through_what_the_wheel_needs() -> None:
    """The builder gets pyproject.toml and what it names, and nothing else: no tests, no history, no half-done work."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    project, wheel = pyproject["project"], pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    named = {project["readme"], *project["license-files"], *wheel["packages"], *wheel["force-include"]}
    assert let_through() == {"pyproject.toml"} | {name.partition("/")[0] for name in named}
    assert {"*", "**/__pycache__", "**/.ipynb_checkpoints"} <= set(DOCKERIGNORE)


def test_the_wheel_can_be_built_from_what_is_let_through(tmp_path: Path) -> None:
    """`pip install .` in the image finds all that it packs: the same files, alone in a folder, make a wheel."""
    assert re.findall(r"^COPY (.+)", DOCKERFILE, re.MULTILINE) == ["pyproject.toml ./", ". ./"]
    source = tmp_path / "src"
    source.mkdir()
    hidden = shutil.ignore_patterns(*(line.removeprefix("**/") for line in DOCKERIGNORE if line.startswith("**/")))
    for name in let_through():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=hidden)
        else:
            shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    assert len([*tmp_path.glob("*.whl")]) == 1


@pytest.fixture(scope="module")
def java() -> list[str]:
    """Begin a Java command line that has Kafka: the same jars that `ApacheBroker` runs."""
    try:
        program, home = _jars.java(), _jars.kafka_home(quiet=True)
    except OrderkitError as error:
        if os.environ.get("ORDERKIT_REQUIRE_KAFKA") == "1":
            raise
        pytest.skip(str(error))
    return [program, "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", str(home / "jars" / "*")]


def properties(environment: dict[str, Any]) -> dict[str, str]:
    """Name the settings as Kafka does: `KAFKA_NODE_ID` is `node.id`."""
    return {key.removeprefix("KAFKA_").lower().replace("_", "."): str(value) for key, value in environment.items()}


def configure(java: list[str], home: Path, environment: dict[str, Any]) -> Path:
    """Do what the image does when it starts: write server.properties from the environment, format the storage."""
    folders = {name: home / name for name in ("default", "mounted", "final")}
    for folder in folders.values():
        folder.mkdir()
    clean = {key: value for key, value in os.environ.items() if not key.startswith("KAFKA_")}
    given = {key: str(value) for key, value in environment.items()}
    result = subprocess.run(
        [*java, "kafka.docker.KafkaDockerWrapper", "setup"]
        + [word for name, folder in folders.items() for word in (f"--{name}-configs-dir", str(folder))],
        env={**clean, "CLUSTER_ID": "5L6g3nShT-eMCtK--X86sw", **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return folders["final"] / "server.properties"


@pytest.mark.kafka
def test_image_understands_the_environment(java: list[str], tmp_path: Path) -> None:
    """The image's own set-up turns the KAFKA_ variables, all of them, into settings that Kafka accepts."""
    data = tmp_path / "data"
    environment = {**KAFKA["environment"], "KAFKA_LOG_DIRS": data}
    written = configure(java, tmp_path, environment)
    assert javaproperties.loads(written.read_text("utf-8")) == properties(environment)
    assert (data / "meta.properties").is_file()


@pytest.fixture
def ports() -> Iterator[Mapping[str, int]]:
    """Give a free port for each of the compose file's."""
    with Ports(["9092", "9093", "19092"]) as here:
        yield here.numbers


@pytest.fixture
def broker(java: list[str], tmp_path: Path, ports: Mapping[str, int]) -> Iterator[Connection]:
    """Start Kafka with the compose file's settings; ports, host name and folder fit this machine."""
    environment = {
        key: re.sub(r":(9092|9093|19092)\b", lambda match: f":{ports[match[1]]}", str(value)).replace(
            "//kafka:", "//127.0.0.1:"
        )
        for key, value in KAFKA["environment"].items()
    }
    settings = configure(java, tmp_path, {**environment, "KAFKA_LOG_DIRS": tmp_path / "data"})
    command = [*java, "kafka.Kafka", str(settings)]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            connection = Connection(f"127.0.0.1:{ports['9092']}")
            connection.metadata(timeout=60)
            yield connection
        finally:
            process.terminate()


@pytest.mark.kafka
def test_one_broker_is_enough(broker: Connection) -> None:
    """Transactions, consumer groups and share groups work: one broker can hold the topics of their state."""
    broker.create_topics({"orders": 1})
    producer = broker.producer(transactional_id="test")
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("orders", b"order")
    producer.commit_transaction(30)

    with closing(broker.consumer("group", isolation_level="read_committed")) as consumer:
        consumer.subscribe(["orders"])
        (record,) = consumer.consume(1, 30)
        consumer.commit(message=record, asynchronous=False)
    assert record.value() == b"order"

    deadline = time.monotonic() + 60 * PATIENCE
    with closing(ShareConsumer({"bootstrap.servers": broker.bootstrap, "group.id": "share"})) as share:
        share.subscribe(["orders"])
        while not (shared := share.poll(timeout=1.0)):
            if time.monotonic() > deadline:
                raise Late("the share group never read")
            producer.begin_transaction()  # a share group reads only what comes after it has formed
            producer.produce("orders", b"shared")
            producer.commit_transaction(30)
    assert {message.value() for message in shared} == {b"shared"}
