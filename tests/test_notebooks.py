"""The notebooks run anywhere, give what is saved in them, and obey their parameters."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from helpers import crowd, within

pytest.importorskip("matplotlib", reason='notebooks need the extra: pip install "orderkit[lab]"')

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SANITIZE = Path(__file__).parent / "sanitize.cfg"
LINES, COLUMNS = 8, 72  # of a code cell, at the most
UNATTENDED = 60.0  # seconds in which a notebook has to be through, on cores of its own

# Per notebook: parameters other than its own, and a line that the saved notebook does not have and this run must.
# Landing is content with the first set, of some.
SETS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "00_start_here": [
        ({"max_attempts": 1, "orders": 100, "rate": 0, "seed": 9}, "theory 30.7 ± 9.2, measured 35: within chance"),
        (
            {"failure_rate": 1, "poison_rate": 0, "max_attempts": 2, "orders": 120, "rate": 0},
            "theory 120.0 ± 0.0, measured 120: within chance",
        ),
        ({"failure_rate": 0, "poison_rate": 0.5, "orders": 90, "rate": 300, "seed": 5}, "poison 44"),
    ],
    "01_an_order_in_bytes": [
        (
            {"product": "Lamp", "price": 0.0, "seed": 11},
            "You guessed 0; it is 14: 08 31 30 34 32 08 4c 61 6d 70 00 00 00 00",
        ),
        ({"order_id": "x" * 64, "product": "Ä", "price": 1.5}, "You guessed 0; it is 73: 80 01 78"),
        ({"orders": 300, "seed": 3}, "300 orders: 163 dead, 162.9 expected"),
    ],
    "02_the_average_that_follows": [
        ({"orders": 200, "rate": 0, "partitions": 1, "seed": 2}, "200 orders: average 93.52, theory 88.88 ± 12.74"),
        ({"orders": 300, "rate": 0, "partitions": 2}, "300 orders: average "),
        ({"orders": 500, "rate": 0, "seed": 5, "failure_rate": 0}, "500 orders: average "),
    ],
    "03_did_it_arrive": [
        ({"orders": 200, "pace": 500, "seconds_down": 0.2}, "200 sent, 200 acknowledged, 0 failed"),
        ({"orders": 120, "seconds_down": 0.3}, "120 sent, 120 acknowledged, 0 failed"),
        ({"orders": 450, "pace": 300, "seconds_down": 0.6}, "450 sent, 450 acknowledged, 0 failed"),
    ],
    "04_commit_before_or_after": [
        ({"orders": 12, "crash_at": 5, "batch": 3, "seed": 9}, "9 of 9 kills as theory says"),
        ({"orders": 45, "crash_at": 18, "batch": 15}, "commit before: 12 lost, 0 twice, commit after: 0 lost, 3 twice"),
        ({"orders": 30, "crash_at": 7, "batch": 1, "seed": 3}, "average by id   112.65"),
    ],
    "05_try_again": [
        ({"orders": 400, "max_attempts": 1, "seed": 8}, "400 orders: 194 dead, 200.0 expected"),
        ({"orders": 500, "failure_rate": 0.8, "max_attempts": 5}, "500 orders: 170 dead, 163.8 expected"),
        ({"orders": 300, "failure_rate": 0, "seed": 3}, "300 attempts, 300 expected"),
    ],
    "06_how_long_to_wait": [
        ({"backoff": "fixed", "clients": 30}, "Peak: fixed 30, exponential 30, full-jitter 6"),
        ({"orders": 100, "clients": 50, "seed": 3}, "Peak: fixed 50, exponential 50, full-jitter 13"),
        ({"orders": 120, "backoff": "equal-jitter", "backoff_base": 0.02}, "base 0.02 s, cap 2 s"),
    ],
    "07_transient_or_poison": [
        ({"orders": 100, "poison_rate": 0, "seed": 4}, "100 orders: poison 0, permanent 5, transient 2"),
        ({"orders": 200, "poison_rate": 0.5, "permanent_rate": 0}, "poison 101, permanent 0, transient 4"),
        ({"orders": 150, "max_attempts": 5, "seed": 3}, "four kinds: 0 retries, one kind: 32 retries"),
    ],
    "08_dead_letters_and_the_way_back": [
        ({"orders": 120, "seed": 9}, "Dead after each round: 42, 21, 5"),
        ({"orders": 200, "seed": 3}, "Dead after each round: 70, 27, 7"),
        ({"failure_rate": 0.2, "poison_rate": 0.1, "seed": 7}, "34 mended"),
    ],
    "09_retry_topics_and_order": [
        ({"orders": 50, "pace": 100, "failure_rate": 0.2, "seed": 2}, "70 records, 70 expected"),
        (
            {"orders": 80, "pace": 200, "failure_rate": 0.1, "backoff_base": 0.05},
            "The line is busy for 200% of the time.",
        ),
        ({"orders": 60, "failure_rate": 0.1, "max_attempts": 2, "backoff_base": 0.1}, "65 records, 65 expected"),
    ],
    "10_exactly_once": [
        ({"orders": 80, "crash_at": 3, "seed": 2}, "22 have to die; 22 did"),
        ({"orders": 100, "permanent_rate": 0.5, "crash_at": 5}, "53 have to die; 53 did"),
        ({"orders": 200, "seed": 3}, "38 have to die; 38 did"),
    ],
    "11_share_groups_and_the_brokers_own_dlq": [
        ({"orders": 60, "failure_rate": 0.6, "seed": 4}, "last delivery was number: {1: 24, 2: 12, 3: 24}"),
        ({"orders": 100, "failure_rate": 0.3, "seed": 3}, "last delivery was number: {1: 64, 2: 26, 3: 10}"),
        ({"orders": 120, "max_attempts": 2}, "last delivery was number: {1: 54, 2: 66}"),
    ],
    "12_where_the_time_goes": [
        ({"orders": 8000, "batch": 100}, "8000 calls, or 80"),
        ({"orders": 15000, "batch": 300}, "15000 calls, or 50"),
        ({"orders": 12000, "batch": 1, "seed": 3}, "12000 calls, or 12000"),
    ],
    "13_game_day": [
        ({"seed": 11, "orders": 150}, "150 orders: 138 averaged, 12 dead; 0 retries"),
        ({"seed": 26}, "poison 28"),
        ({"seed": 5, "orders": 200}, "attempts: [200, 17, 17]"),
    ],
    "14_monday_morning": [
        ({"letters": 400, "seed": 3}, "460 averaged, 40 left, 0 lost"),
        ({"letters": 2000, "replay_rate": 2000}, "1,008 letters at 2,000 a second: n / r = 0.5 s"),
        ({"letters": 5000, "seed": 11, "replay_rate": 20_000}, "5755 in truth: 89.3719"),
    ],
}
WRONG: dict[str, list[tuple[str, str]]] = {
    "00_start_here": [("failure_rate", "1.5"), ("orders", "many")],
    "01_an_order_in_bytes": [("price", "-3"), ("order_id", "7")],
    "02_the_average_that_follows": [("partitions", "0"), ("rate", "fast")],
    "03_did_it_arrive": [("pace", "0"), ("seconds_down", "60")],
    "04_commit_before_or_after": [("batch", "0"), ("crash_at", "99")],
    "05_try_again": [("max_attempts", "0"), ("failure_rate", "often")],
    "06_how_long_to_wait": [("backoff", "soon"), ("clients", "-5")],
    "07_transient_or_poison": [("permanent_rate", "2"), ("seed", "-1")],
    "08_dead_letters_and_the_way_back": [("poison_rate", "1.5"), ("max_attempts", "none")],
    "09_retry_topics_and_order": [("pace", "0"), ("backoff_base", "-1")],
    "10_exactly_once": [("permanent_rate", "2"), ("crash_at", "0")],
    "11_share_groups_and_the_brokers_own_dlq": [("failure_rate", "-1"), ("max_attempts", "none")],
    "12_where_the_time_goes": [("batch", "0"), ("orders", "all")],
    "13_game_day": [("orders", "0"), ("seed", "-1")],
    "14_monday_morning": [("letters", "399"), ("replay_rate", "0")],
}


SHOWN_ANYWHERE = {"text/plain", "text/html", "image/png"}
REAL = {
    "03_did_it_arrive",
    "04_commit_before_or_after",
    "10_exactly_once",
    "11_share_groups_and_the_brokers_own_dlq",
}  # start a real broker


def real(name: str) -> list[pytest.MarkDecorator]:
    """Mark what runs a notebook that needs the real broker."""
    return [pytest.mark.kafka] if name in REAL else []


OTHERWISE = {
    "00_start_here",
    "03_did_it_arrive",
    "05_try_again",
    "08_dead_letters_and_the_way_back",
    "13_game_day",
}  # run with other parameters at landing; one needs the real broker
WRONGLY = {"00_start_here"}  # run with wrong ones


def campaign(name: str, landing: set[str]) -> list[pytest.MarkDecorator]:
    """Mark what runs a notebook that landing does without."""
    return [] if name in landing else [pytest.mark.campaign]


@pytest.fixture(autouse=True)
def _real_broker(request: pytest.FixtureRequest) -> None:
    """Where there is no real broker, skip what needs one, or fail if one is required."""
    if request.node.get_closest_marker("kafka"):
        request.getfixturevalue("apache")


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
    """Read all that was printed or shown as text; what was printed may have come in pieces, cut anywhere."""
    texts = []
    for output in outputs(path):
        shown = output.get("data", {}).get("text/plain", "")
        texts.append("".join(output["text"]) if output["output_type"] == "stream" else f"\n{''.join(shown)}\n")
    return "".join(texts)


def images(path: Path) -> list[bytes]:
    """Read the saved pictures."""
    found = [output["data"]["image/png"] for output in outputs(path) if "image/png" in output.get("data", {})]
    return [b64decode("".join(image)) for image in found]


def launch(*arguments: str, cwd: Path, watched: bool = False, plugins: bool = True) -> subprocess.Popen[str]:
    """Start a Python module as a reader would; to watch its coverage, or to load pytest's plugins, takes its time."""
    ours = ("PYTEST_",) if watched else ("PYTEST_", "COV")
    settings = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    if not plugins:
        settings["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
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


def papermill(
    path: Path, folder: Path, some: Sequence[dict[str, Any]], *, watched: bool
) -> list[tuple[Path, int, str]]:
    """Run a notebook with each set of parameters, all at the same time, from a folder that is not its own."""
    running = []
    for number, parameters in enumerate(some):
        out = folder / f"out{number}.ipynb"
        given = [text for name, value in parameters.items() for text in ("-p", name, str(value))]
        command = ("papermill", str(path), str(out), "--no-progress-bar", *given)
        running.append((out, launch(*command, cwd=folder, watched=watched)))
    return [(out, *ended(process)) for out, process in running]


def test_every_notebook_is_tested() -> None:
    """There are notebooks, and each has its parameter sets here."""
    assert {path.stem for path in NOTEBOOKS} == set(SETS) == set(WRONG)
    assert all(len(some) >= 3 for some in SETS.values())


@pytest.mark.heavy
@pytest.mark.parametrize("where", ["elsewhere", pytest.param("project", marks=pytest.mark.campaign)])
@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem, marks=real(path.stem)) for path in NOTEBOOKS])
def test_saved_outputs_are_what_comes_out_anywhere(path: Path, where: str, tmp_path: Path) -> None:
    """Strict comparison of every saved output, whatever the working directory; only run ids may differ.

    Each is through in a minute; on a crowded machine a minute is longer.
    """
    strict = ["pytest", "-c", os.devnull, "-p", "nbval.plugin", "--nbval", "--nbval-current-env", "-q"]
    strict += ["--nbval-cell-timeout=60", "-p", "no:cacheprovider"]
    folder = FOLDER.parent if where == "project" else tmp_path
    with within(UNATTENDED * crowd()):
        nbval = launch(*strict, f"--nbval-sanitize-with={SANITIZE}", str(path), cwd=folder, plugins=False)
        status, said = ended(nbval)
    assert status == 0, said
    assert "passed" in said


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "some"),
    [pytest.param(name, slice(1), id=name, marks=[*real(name), *campaign(name, OTHERWISE)]) for name in SETS]
    + [
        pytest.param(name, slice(1, None), id=f"{name}-more", marks=[*real(name), pytest.mark.campaign])
        for name in SETS
    ],
)
def test_parameters_change_the_run(name: str, some: slice, tmp_path: Path) -> None:
    """Values given to papermill reach the run: the result has a line that they alone bring."""
    path = FOLDER / f"{name}.ipynb"
    sets = SETS[name][some]
    results = papermill(path, tmp_path, [parameters for parameters, _ in sets], watched=True)
    for (out, status, said), (_, line) in zip(results, sets, strict=True):
        assert status == 0, said
        assert line in printed(out)
        assert line not in printed(path)
        assert all(map(has_colour, images(out)))
        assert len(images(out)) == len(images(path))


@pytest.mark.heavy
@pytest.mark.parametrize("name", [pytest.param(name, marks=campaign(name, WRONGLY)) for name in WRONG])
def test_a_wrong_parameter_stops_with_its_name(name: str, tmp_path: Path) -> None:
    """The last line says which parameter it is, and the run ends there; the notebook shows that line and no frames."""
    some = [{wrong: value} for wrong, value in WRONG[name]]
    results = papermill(FOLDER / f"{name}.ipynb", tmp_path, some, watched=False)
    for (out, status, said), (wrong, value) in zip(results, WRONG[name], strict=True):
        assert status != 0
        (error,) = [output for output in outputs(out) if output["output_type"] == "error"]
        assert error["traceback"] == [f"UsageError: {error['evalue']}"]
        assert re.match(rf"UsageError: {wrong} is '?{value}'?; it must be ", said.strip().splitlines()[-1])


def spoilt(answer: str, check: str) -> str:
    """Make an answer wrong in the last third of the cases, and right before that: the check has to find it."""
    name = re.findall(r"^def (\w+)", answer, re.MULTILINE)[-1]
    wrong = f"calls = []\nright = {name}\ndef {name}(*a):\n    calls.append(a)\n"
    return f"{answer}\n{wrong}    return right(*a) if len(calls) < 130 else object()\n{check}"


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

    def test_links_stay_in_the_folder(self, path: Path) -> None:
        """Wherever JupyterLab was started, and in copies from a wheel, the folder is all that is there."""
        prose = "\n".join(source(cell) for cell in cells(path, "markdown"))
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
            assert (FOLDER / link).resolve().is_file(), link
            assert (FOLDER / link).resolve().is_relative_to(FOLDER), link

    def test_cells_are_short(self, path: Path) -> None:
        """No code cell is longer or wider than a reader takes in; half of them have 3 lines of code or less."""
        sizes = []
        for cell in cells(path):
            lines = source(cell).splitlines()
            sizes.append(sum(bool(line) for line in lines))
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
        """No widget state, no view without its widget, no cleared output, no error and nothing on stderr.

        What is shown is text, HTML or a picture: no front end needs more for it than it has.
        """
        text = path.read_text("utf-8")
        assert "widgets" not in json.loads(text)["metadata"]
        assert "widget-view" not in text
        assert "clear_output" not in text
        assert "NBVAL" not in text
        assert all(output["output_type"] != "error" and output.get("name") != "stderr" for output in outputs(path))
        assert all(cell["execution_count"] for cell in cells(path))
        assert {kind for output in outputs(path) for kind in output.get("data", ())} <= SHOWN_ANYWHERE

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
            for code, verdict in (
                (exercise, "todo "),
                (f"{answer}\n{check}", "right "),
                (spoilt(answer, check), "not "),
            ):
                exec(code, {"lab": lab})
                assert capsys.readouterr().out.startswith(verdict), code

    def test_the_answers_are_in_the_folder_of_solutions(self, path: Path) -> None:
        """What is folded under an exercise is, to the letter, what `solutions` has."""
        prose = "\n".join(source(cell) for cell in cells(path, "markdown"))
        folded = re.findall(r"<details>.*?```python\n(.*?)```.*?</details>", prose, re.DOTALL)
        kept = (FOLDER / "solutions" / f"{path.stem}.py").read_text("utf-8")
        assert kept.startswith(f'"""Answers to the exercises of {path.stem}."""\n')
        assert [answer.strip() for answer in folded] == [part.strip() for part in kept.split("\n\n\n")[1:]]


def test_a_blank_picture_is_found_out() -> None:
    """The guard itself: axes alone are no picture."""
    from matplotlib.figure import Figure

    from orderkit.lab import Picture

    figure = Figure()
    figure.subplots().set_title("empty")
    assert not has_colour(Picture(figure).png())
