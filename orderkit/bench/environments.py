"""What contenders need, each in a folder of its own beside Kafka's jars; made when first wanted."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

from orderkit.bench.contenders import Entry
from orderkit.brokers import _jars, _maven
from orderkit.errors import OrderkitError

PEERS = Path(__file__).parent / "peers"
PATIENCE = 600  # seconds for an installation


class Missing(OrderkitError):
    """A contender cannot run on this machine; says why."""


def command(entry: Entry) -> tuple[list[str], dict[str, str]]:
    """Give what starts a contender (without its arguments) and its environment, installing what it needs.

    Raises:
        Missing: its language is not on this machine, or its packages cannot be fetched.
    """
    kept = {name: value for name, value in _jars.java_environment().items() if not name.startswith("PYTHON")}
    contender = entry.contender
    if contender.language == "node":
        node = _tool("node")
        home = _ready(contender.needs, _install_node)
        return [node, str(PEERS / contender.module)], {**kept, "NODE_PATH": str(home / "node_modules")}
    if contender.language == "java":
        home = _ready((*contender.needs, _fingerprint(PEERS / contender.module)), _install_java)
        parts = [home, home / "jars" / "*", _jars.kafka_home() / "jars" / "*"]
        return [_jars.java(), "-cp", os.pathsep.join(map(str, parts)), "Plain"], _jars.java_environment()
    if contender.needs:
        python = _python(_ready(contender.needs, _install_python))
        return [python, "-m", f"peers.{contender.module}"], {**kept, "PYTHONPATH": str(PEERS.parent)}
    package = PEERS.parent.parent.parent
    return [sys.executable, "-m", f"orderkit.bench.peers.{contender.module}"], {**kept, "PYTHONPATH": str(package)}


def folder(needs: tuple[str, ...]) -> Path:
    """Give the folder for an environment; other versions have another folder."""
    text = repr((needs, sys.version_info[:2]))
    return _jars.cache_folder() / "bench" / hashlib.sha256(text.encode()).hexdigest()[:12]


def _ready(needs: tuple[str, ...], install: Callable[[Path, tuple[str, ...]], None]) -> Path:
    """Give the environment's folder; make it, whole or not at all, if it is not there.

    A virtual environment cannot be moved, so a last file says that the folder is finished.
    """
    home = folder(needs)
    if os.pathsep in str(home):
        raise Missing(f"{home} holds a {os.pathsep}, which separates paths: name another folder in ORDERKIT_CACHE")
    done = home / "done"
    if not done.exists():
        shutil.rmtree(home, ignore_errors=True)
        try:
            home.mkdir(parents=True)
            install(home, needs)
            done.write_text("\n".join(needs), encoding="utf-8")
        except OSError as error:
            raise Missing(f"{home} cannot be made: {error.strerror or error}") from None
    return home


def _install_python(home: Path, needs: tuple[str, ...]) -> None:
    venv.create(home, with_pip=True)
    _run([_python(home), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needs], home)


def _install_node(home: Path, needs: tuple[str, ...]) -> None:
    _run([_tool("npm"), "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), *needs], home)


def _install_java(home: Path, needs: tuple[str, ...]) -> None:
    compiler = _tool("javac")
    _fetch_jars(needs[:-1], home / "jars")
    jars = os.pathsep.join((str(home / "jars" / "*"), str(_jars.kafka_home() / "jars" / "*")))
    _run([compiler, "--release", "17", "-nowarn", "-cp", jars, "-d", str(home), str(PEERS / "Plain.java")], home)


def _fetch_jars(parts: tuple[str, ...], jars: Path) -> None:
    """Fetch jars and what they need from Maven Central."""
    with tempfile.TemporaryDirectory(prefix="orderkit-maven-") as work:
        try:
            found = _maven.resolve(parts, Path(work))
        except ImportError:
            raise Missing(_jars.EXTRA) from None
        except _maven.FAILURES as error:
            raise Missing(f"{parts[0]} cannot be fetched from Maven Central ({type(error).__name__})") from None
        jars.mkdir()
        for path in found:
            shutil.move(path, jars / path.name)


def _python(home: Path) -> str:
    return str(home / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def _tool(name: str) -> str:
    """Find a program on this machine.

    Raises:
        Missing: it is not there.
    """
    found = shutil.which(name)
    if found is None:
        raise Missing(f"no {name} on this machine")
    return found


def _fingerprint(source: Path) -> str:
    return hashlib.sha256(source.read_bytes()).hexdigest()[:12]


def _run(command: list[str], home: Path) -> None:
    kept = {name: value for name, value in _jars.java_environment().items() if not name.startswith("PYTHON")}
    try:
        done = subprocess.run(  # noqa: S603  our own list of arguments
            command, cwd=home, env=kept, capture_output=True, timeout=PATIENCE, check=False,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Missing(f"{Path(command[0]).name} has not ended after {PATIENCE} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise Missing(f"{Path(command[0]).name} failed: {last}")
