"""The notebooks run anywhere, give what is saved in them, and obey their parameters."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason='notebooks need the extra: pip install "orderkit[lab]"')

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SANITIZE = Path(__file__).parent / "sanitize.cfg"
LINES, COLUMNS = 8, 72  # of a code cell, at the most

# Per notebook: parameters other than its own, and a line that the saved notebook does not have and this run must.
SETS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "00_start_here": [
        ({"failure_rate": 1, "poison_rate": 0, "max_attempts": 2, "orders": 120, "rate": 0}, "it was 120."),
        ({"failure_rate": 0, "poison_rate": 0.5, "orders": 90, "rate": 300, "seed": 5}, "poison 44"),
    ],
}
WRONG: dict[str, list[tuple[str, str]]] = {
    "00_start_here": [("failure_rate", "1.5"), ("orders", "many")],
}


def cells(path: Path, kind: str = "code") -> list[dict[str, Any]]:
    """Read the cells of one kind."""
    return [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: dict[str, Any]) -> str:
    """Give a cell's text."""
    return "".join(cell["source"])


def outputs(path: Path) -> list[dict[str, Any]]:
    """Read all saved outputs."""
    return [output for cell in cells(path) for output in cell["outputs"]]


def printed(path: Path) -> str:
    """Read all that was printed or shown as text."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs(path)]
    return "\n".join("".join(text) for text in texts)


def images(path: Path) -> list[bytes]:
    """Read the saved pictures."""
    found = [output["data"]["image/png"] for output in outputs(path) if "image/png" in output.get("data", {})]
    return [b64decode("".join(image)) for image in found]


def launch(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start a Python module as a reader would."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=settings,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ended(process: subprocess.Popen[str], seconds: float = 150) -> tuple[int, str]:
    """Wait for a process; give its status and what it said."""
    with process:
        try:
            said, _ = process.communicate(timeout=seconds)
        finally:
            process.kill()
    return process.returncode, said


def papermill(path: Path, out: Path, parameters: dict[str, Any]) -> tuple[int, str]:
    """Run a notebook with parameters, from a folder that is not its own."""
    given = [text for name, value in parameters.items() for text in ("-p", name, str(value))]
    return ended(launch("papermill", str(path), str(out), "--no-progress-bar", *given, cwd=out.parent))


def test_every_notebook_is_tested() -> None:
    """There are notebooks, and each has its parameter sets here."""
    assert {path.stem for path in NOTEBOOKS} == set(SETS) == set(WRONG)
    assert all(len(some) >= 2 for some in SETS.values())


@pytest.mark.parametrize("where", ["elsewhere", pytest.param("project", marks=pytest.mark.campaign)])
def test_saved_outputs_are_what_comes_out_anywhere(where: str, tmp_path: Path) -> None:
    """Strict comparison of every saved output, whatever the working directory; only run ids may differ."""
    strict = ("pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=60", "-p", "no:cacheprovider", "-q")
    folder = FOLDER.parent if where == "project" else tmp_path
    status, said = ended(launch(*strict, f"--nbval-sanitize-with={SANITIZE}", *map(str, NOTEBOOKS), cwd=folder))
    assert status == 0, said
    assert "passed" in said


def first_of_each(sets: dict[str, list[Any]]) -> list[Any]:
    """List all sets of all notebooks; landing is content with the first one of each."""
    return [
        pytest.param(name, *case, marks=[pytest.mark.campaign] if number else [])
        for name, some in sets.items()
        for number, case in enumerate(some)
    ]


@pytest.mark.parametrize(("name", "parameters", "line"), first_of_each(SETS))
def test_parameters_change_the_run(name: str, parameters: dict[str, Any], line: str, tmp_path: Path) -> None:
    """Values given to papermill reach the run: the result has a line that they alone bring."""
    path, out = FOLDER / f"{name}.ipynb", tmp_path / "out.ipynb"
    status, said = papermill(path, out, parameters)
    assert status == 0, said
    assert line in printed(out)
    assert line not in printed(path)
    assert f"{parameters['orders']} produced" in printed(out)
    assert all(map(has_colour, images(out)))
    assert len(images(out)) == len(images(path))


@pytest.mark.parametrize(("name", "wrong", "value"), first_of_each(WRONG))
def test_a_wrong_parameter_stops_with_its_name(name: str, wrong: str, value: str, tmp_path: Path) -> None:
    """The last line says which parameter it is, and the run ends there."""
    status, said = papermill(FOLDER / f"{name}.ipynb", tmp_path / "out.ipynb", {wrong: value})
    assert status != 0
    assert re.match(rf"UsageError: {wrong} is '?{value}'?; it must be ", said.strip().splitlines()[-1])


def has_colour(png: bytes) -> bool:
    """Say whether a picture shows more than axes: some of its pixels are neither grey nor white."""
    from matplotlib.image import imread

    pixels = imread(BytesIO(png), format="png")[..., :3]
    return bool((pixels.max(axis=2) - pixels.min(axis=2) > 0.3).sum() > 200)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestSaved:
    """What can be seen without running anything."""

    def test_one_parameters_cell(self, path: Path) -> None:
        """Exactly one cell is tagged, and it holds plain values and nothing else."""
        (cell,) = [cell for cell in cells(path) if "parameters" in cell["metadata"].get("tags", ())]
        for line in ast.parse(source(cell)).body:
            assert isinstance(line, ast.Assign)
            ast.literal_eval(line.value)

    def test_cells_are_short(self, path: Path) -> None:
        """No code cell is longer or wider than a reader takes in; half of them have 3 lines or less."""
        sizes = []
        for cell in cells(path):
            lines = source(cell).splitlines()
            sizes.append(len(lines))
            assert len(lines) <= LINES, source(cell)
            assert max(map(len, lines)) <= COLUMNS, source(cell)
        assert sorted(sizes)[len(sizes) // 2] <= 3

    def test_every_cell_has_a_lasting_id(self, path: Path) -> None:
        """Ids are words, so that a diff names the cell that changed."""
        whole = json.loads(path.read_text("utf-8"))
        ids = [cell["id"] for cell in whole["cells"]]
        assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
        assert len(ids) == len(set(ids))
        assert all(re.fullmatch(r"[a-z][a-z-]+", name) for name in ids), ids

    def test_it_reads_well_where_nothing_runs(self, path: Path) -> None:
        """No widget state, no view without its widget, no cleared output, no error and nothing on stderr."""
        text = path.read_text("utf-8")
        assert "widgets" not in json.loads(text)["metadata"]
        assert "widget-view" not in text
        assert "clear_output" not in text
        assert "NBVAL" not in text
        assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs(path))
        assert all(cell["execution_count"] for cell in cells(path))

    def test_pictures_are_not_blank(self, path: Path) -> None:
        """Every saved picture has something drawn in it."""
        assert images(path)
        assert all(map(has_colour, images(path)))

    def test_exercises_have_answers_that_are_right(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """An empty exercise says todo, and the answer folded below it says right."""
        from orderkit import lab

        prose = "\n".join(source(cell) for cell in cells(path, "markdown"))
        answers = re.findall(r"<details>.*?```python\n(.*?)```.*?</details>", prose, re.DOTALL)
        exercises = [source(cell) for cell in cells(path) if "lab.check(" in source(cell)]
        assert len(answers) == len(exercises) > 0
        for exercise, answer in zip(exercises, answers, strict=True):
            check = exercise[exercise.index("lab.check(") :]
            for code, verdict in ((exercise, "todo "), (f"{answer}\n{check}", "right ")):
                exec(code, {"lab": lab})
                assert capsys.readouterr().out.startswith(verdict)


def test_a_blank_picture_is_found_out() -> None:
    """The guard itself: axes alone are no picture."""
    from matplotlib.figure import Figure

    from orderkit.lab import Picture

    figure = Figure()
    figure.subplots().set_title("empty")
    assert not has_colour(Picture(figure).png())
