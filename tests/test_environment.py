"""environment.yml says what pyproject.toml says, and Binder installs what the notebooks need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "environment.yml").read_text("utf-8")
ENVIRONMENT: dict[str, Any] = yaml.safe_load(TEXT)
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PYPI_NAMES = {"matplotlib-base": "matplotlib", "python-build": "build"}  # conda-forge's name: PyPI's name


def bounds(lines: list[str]) -> dict[str, str]:
    """Read `name>=version` lines; nothing else is allowed on them: no upper bound, no pin, no build string."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([a-z0-9-]+(?:\[[a-z]+\])?)>=([0-9.]+)", line)
        assert match, f"{line!r} is not a name with a lower bound"
        found[PYPI_NAMES.get(match[1], match[1])] = match[2]
    return found


def conda() -> list[str]:
    """List what conda installs."""
    return [line for line in ENVIRONMENT["dependencies"] if isinstance(line, str)]


def pip() -> list[str]:
    """List what pip installs."""
    (section,) = [entry for entry in ENVIRONMENT["dependencies"] if isinstance(entry, dict)]
    lines: list[str] = section["pip"]
    return lines


def test_names_and_lower_bounds_are_those_of_pyproject() -> None:
    """Every dependency of the project and its extras is there with the same bound, and no other."""
    extras = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name != "colab"}
    wanted = [line for part in (PROJECT["dependencies"], *extras.values()) for line in part]
    ours = bounds([line for line in (*conda(), *pip()) if line != "-e ."])
    del ours["python"], ours["pip"]
    assert ours == bounds([line for line in wanted if not line.startswith("orderkit[")])


def test_colab_is_asked_for_nothing_that_it_lacks() -> None:
    """Each demand of the extra `colab` is one of the lab's, and no stricter: Colab's own packages stay as they are."""
    extras = {name: bounds(PROJECT["optional-dependencies"][name]) for name in ("lab", "colab")}
    there = {"pandas": (2, 2), "matplotlib": (3, 10), "ipywidgets": (7, 7)}  # on Colab, 19 August 2026
    assert extras["colab"].keys() == there.keys() <= extras["lab"].keys()
    for name, bound in extras["colab"].items():
        assert tuple(map(int, bound.split("."))) <= there[name]


def test_python_is_the_one_the_project_asks_for() -> None:
    """Python has the project's own lower bound."""
    assert bounds(conda())["python"] == PROJECT["requires-python"].removeprefix(">=")


def test_the_kit_itself_is_installed() -> None:
    """`import orderkit` works from any folder, so the environment installs the project in place."""
    assert "-e ." in pip()


def test_binder_installs_what_the_notebooks_need() -> None:
    """Binder installs the kit in place with `lab`, and with `kafka`, as numbers 10 and 11 start a real broker."""
    binder: dict[str, Any] = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text("utf-8"))
    (section,) = [entry for entry in binder["dependencies"] if isinstance(entry, dict)]
    assert section["pip"] == ["-e ..[lab,kafka]"]
    assert binder["channels"] == ENVIRONMENT["channels"]


def test_only_conda_forge() -> None:
    """Packages of two channels do not mix: conda-forge alone."""
    assert ENVIRONMENT["channels"] == ["conda-forge", "nodefaults"]


def test_every_line_has_its_reason() -> None:
    """A dependency without a reason beside it can never be removed."""
    listed = TEXT.partition("dependencies:")[2].splitlines()
    assert not [line for line in listed if re.match(r" +- (?!pip:$)", line) and not re.search(r" # \w", line)]
