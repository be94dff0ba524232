"""The built wheel stands on its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as a release would."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_its_schema_and_the_notebooks(wheel: Path) -> None:
    """Schema and notebooks inside the wheel are those at the top level; tests stay out."""
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("orderkit/schemas/order.avsc") == (ROOT / "schemas" / "order.avsc").read_bytes()
        first = "notebooks/00_start_here.ipynb"
        assert archive.read(f"orderkit/{first}") == (ROOT / first).read_bytes()
        assert {name.split("/")[0].split("-")[0] for name in archive.namelist()} == {"orderkit"}


@pytest.mark.timeout(300)
def test_the_wheel_in_an_empty_folder_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    """`pip install` of the wheel in an empty folder, with no extra, runs `orderkit demo`."""
    venv.create(tmp_path / "env", with_pip=False)  # the tests' own pip does as well, and is there
    bin_folder = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", str(bin_folder / "python"), "install", "--quiet", "--no-compile"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=250)
    empty = tmp_path / "empty"
    empty.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "KAFKA_BOOTSTRAP_SERVERS")}
    done = subprocess.run(
        [bin_folder / "orderkit", "demo", "--json"], cwd=empty, env=kept, capture_output=True, text=True, check=True
    )
    report = json.loads(done.stdout)
    assert (report["produced"], report["lost"], report["duplicated"]) == (500, 0, 0)
    chart = subprocess.run(
        [bin_folder / "orderkit", "demo", "--chart", "run.png"],
        cwd=empty,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (chart.returncode, chart.stderr.count("\n")) == (1, 1)
    assert 'pip install "orderkit[lab]"' in chart.stderr


def test_importing_the_kit_loads_neither_pandas_nor_matplotlib() -> None:
    """The base install is light: frames and pictures load their libraries when asked for."""
    code = "import sys, orderkit, orderkit.cli; print({'pandas', 'matplotlib', 'jgo', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
