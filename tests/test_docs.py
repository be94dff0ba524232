"""The maps are true: what they name is there, and what is there they name."""

from __future__ import annotations

import json
import re
from pathlib import Path

from orderkit.delivery import MODES

ROOT = Path(__file__).parent.parent
CURRICULUM = (ROOT / "docs" / "curriculum.md").read_text("utf-8")
READING = (ROOT / "docs" / "reading.md").read_text("utf-8")
MAP = (ROOT / "docs" / "architecture.md").read_text("utf-8")
ROOMS = (
    "orders", "consuming", "members", "engines", "delivery", "retry", "dead_letters", "replay", "letter_files",
    "account", "show",
)  # fmt: skip
STOPS = [line.split("|")[2:5] for line in READING.splitlines() if re.match(r"\| \d+ \|", line)]


def test_each_stop_of_the_reading_order_is_there() -> None:
    """Ten stops; each file exists, and has the names that a reader is to look for in it."""
    assert len(STOPS) == 10
    for where, _, _ in STOPS:
        first, *names = re.findall(r"`([^`]+)`", where)
        code = (ROOT / first).read_text("utf-8")
        for name in names:
            if name.endswith(".py"):
                assert (ROOT / first).with_name(name).exists(), name
                code += (ROOT / first).with_name(name).read_text("utf-8")
            else:
                function = name.rpartition(".")[2]
                assert f"def {function}(" in code or f"class {name}" in code, name


def test_each_law_has_a_place_in_the_reading_order() -> None:
    """A reader finds each of the nine laws in one named place, or more."""
    laws = {int(number) for _, _, law in STOPS for number in re.findall(r"\d+", law)}
    rest = READING[READING.index("Then `") :]
    assert laws | {int(number) for number in re.findall(r"law (\d)", rest)} == set(range(1, 10))


def test_the_map_names_every_room_and_file() -> None:
    """Each folder and top file of the package is a room of the map, and each small file of a room is named there."""
    package = ROOT / "orderkit"
    table = MAP[MAP.index("| room |") : MAP.index("## The loop")].strip()
    rooms = {name for line in table.splitlines() for name in re.findall(r"`([\w/.]+)`", line.split("|")[1])}
    there = {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    there |= {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert rooms == there
    for room in ROOMS:
        line = next(line for line in table.splitlines() if line.startswith(f"| `{room}/`"))
        files = {path.stem for path in (package / room).glob("*.py") if path.stem not in ("__init__", "base", "mode")}
        assert files <= set(re.findall(r"`(\w+)`", line)), room


def test_the_curriculum_has_every_notebook_after_what_it_needs() -> None:
    """Each notebook is in the table once, with its own title; what is to be known before it stands above it."""
    rows = re.findall(r"^\| \[(\d\d)\]\(\.\./(\S+)\) (.+?) \|.*\| ([^|]+) \|$", CURRICULUM, re.MULTILINE)
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [ROOT / path for _, path, _, _ in rows] == notebooks
    for (number, _, title, before), path in zip(rows, notebooks, strict=True):
        first = "".join(json.loads(path.read_text("utf-8"))["cells"][0]["source"]).splitlines()[0]
        assert first.removeprefix("# ").startswith(title)
        assert all(other < number for other in re.findall(r"\d\d", before))
        assert ("real Kafka" in before) == ("real Kafka broker" in path.read_text("utf-8"))


def test_each_promise_of_a_delivery_mode_has_a_test_of_its_name() -> None:
    """The table of modes has a column for each, and a test behind each line."""
    readme, tests = ((ROOT / name).read_text("utf-8") for name in ("README.md", "tests/test_promises.py"))
    head, _, *lines = readme[readme.index("| | `at-most-once`") :].partition("\n\n")[0].splitlines()
    assert sorted(re.findall(r"`([^`]+)`", head)) == sorted(MODES)
    assert len(lines) == 6
    for line in lines:
        promise, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert len(cells) == len(MODES)
        assert f"def test_{promise.replace(' ', '_')}(" in tests
