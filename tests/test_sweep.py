"""A sweep runs every cell, keeps what failed, does nothing twice, and gives one tidy frame."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("joblib", reason='sweeps need the extra: pip install "orderkit[lab]"')

from orderkit.cli import main
from orderkit.errors import OrderkitError, UsageError
from orderkit.sweep import grid, picture, sweep, varied
from orderkit.sweep.shelf import Shelf

GRID: dict[str, list[Any]] = {"failure_rate": [0.0, 0.5, 1.0], "max_attempts": [1, 3]}
SMALL = {"orders": 40, "partitions": 1}
GIVEN = "orders = 30\nseed = 1"
NOTEBOOK = """from orderkit.brokers import EmbeddedBroker
from orderkit.lab import experiment
if seed == 2:
    raise ValueError("two")
with EmbeddedBroker({}) as broker:
    print(experiment(broker, orders=orders, seed=seed).start().wait(60).report())
"""


def write_notebook(path: Path) -> Path:
    """Write a notebook that runs so many orders, and fails with seed 2."""
    given = {"cell_type": "code", "id": "given", "metadata": {"tags": ["parameters"]}, "source": GIVEN}
    run = {"cell_type": "code", "id": "run", "metadata": {}, "source": NOTEBOOK}
    cells = [{**cell, "execution_count": None, "outputs": []} for cell in (given, run)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(whole))
    return path


def test_every_cell_is_run_and_its_account_is_in_the_frame(tmp_path: Path) -> None:
    """A row for each combination in the order of the grid, conserved, and dead as the extremes demand."""
    frame = sweep(GRID, SMALL, folder=tmp_path, workers=2)
    assert list(frame["failure_rate"]) == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    assert list(frame["max_attempts"]) == [1, 3] * 3
    assert frame["error"].isna().all()
    assert (frame["averaged"] + frame["dead"] == frame["produced"]).all()
    dead = list(frame["dead"])
    assert dead[:2] == [0, 0]
    assert dead[4:] == [40, 40]
    assert 40 > dead[2] > dead[3] > 0
    assert frame["seconds"].dtype == float
    assert dict(frame.dtypes.astype(str))["dead"].startswith("int")
    table = varied(frame, GRID, "dead")
    assert list(table.columns) == ["failure_rate", "max_attempts", "dead"]
    (drawn,) = picture(frame, GRID).figure.axes[0].images
    assert float(np.max(np.asarray(drawn.get_array()))) == 40


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    """A second sweep over a larger grid runs only the new cells; a cell that was cut short is run again."""
    sweep({"seed": [1, 2]}, SMALL, folder=tmp_path, workers=2)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert len(kept) == 2
    frame = sweep({"seed": [1, 2, 3]}, SMALL, folder=tmp_path, workers=2)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert list(frame["seed"]) == [1, 2, 3]
    cut = next(iter(kept))
    cut.write_text(cut.read_text()[:20])
    assert sweep({"seed": [1, 2]}, SMALL, folder=tmp_path, workers=2)["error"].isna().all()
    assert json.loads(cut.read_text())["error"] is None


def test_a_failed_cell_is_kept_and_the_rest_goes_on(tmp_path: Path) -> None:
    """A value that cannot be fails its own cells, with the reason in the frame; the next sweep tries them again."""
    frame = sweep({"failure_rate": [0.1, 7.0]}, SMALL, folder=tmp_path, workers=2)
    assert list(frame["error"].isna()) == [True, False]
    assert "failure_rate is 7.0" in frame["error"][1]
    assert frame["dead"].isna()[1]
    assert list(varied(frame, {"failure_rate": [0.1, 7.0]}, "dead")["failure_rate"]) == [0.1]


def test_a_notebook_is_swept_by_its_parameters(tmp_path: Path) -> None:
    """Each cell is the notebook with other parameters, kept as it ended; one that raises does not stop the others."""
    path = write_notebook(tmp_path / "small.ipynb")
    frame = sweep({"seed": [1, 2, 3]}, notebook=path, folder=tmp_path / "out", workers=2)
    assert list(frame["error"].isna()) == [True, False, True]
    assert "ValueError: two" in frame["error"][1]
    assert list(frame["produced"].dropna()) == [30, 30]
    assert len(list((tmp_path / "out").glob("*.ipynb"))) == 2


@pytest.mark.filterwarnings("default")  # what the cluster says of its own ports and ends is not ours
def test_a_dask_cluster_does_the_same_work() -> None:
    """The same grid on a scheduler's workers gives the same figures as on this machine's processes."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:  # type: ignore[no-untyped-call]
        away = sweep(GRID, SMALL, dask=cluster.scheduler_address)
    here = sweep(GRID, SMALL, workers=2)
    figures = ["failure_rate", "max_attempts", "averaged", "dead", "retries", "average", "error"]
    assert away[figures].equals(here[figures])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("failure_rat=0.1", "There is no parameter 'failure_rat'"),
        ("failure_rate", "write NAME=VALUES"),
        ("seed=5:1", "a range goes upwards"),
        ("seed=1 --figure deaf", "There is no figure 'deaf'"),
        ("seed=1 --notebook nowhere.ipynb", "Notebook nowhere.ipynb: No such file"),
        ("seed=1 --workers 0", "--workers"),
        ("seed=1 --chart chart.xyz", "chart.xyz"),
        ("seed=1 --dask tcp://127.0.0.1:1", "No Dask scheduler answers at tcp://127.0.0.1:1"),
    ],
)
@pytest.mark.filterwarnings("default")
def test_a_mistake_is_one_line(
    words: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is said before anything runs, and the status is not 0."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["sweep", *words.split()])
    said = capsys.readouterr().err.strip()
    assert end.value.code in {1, 2}
    assert told in said
    assert "Traceback" not in said


def test_no_values_are_no_sweep() -> None:
    """A parameter without a value is an error, not an empty frame."""
    with pytest.raises(UsageError, match="seed has no values"):
        sweep({"seed": []})


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results have nowhere to go: that is one line, before the first cell runs."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(grid, "results", lambda *_: pytest.fail("a cell was run"))
    with pytest.raises(OrderkitError, match="file cannot be written"):
        sweep({"seed": [1, 2]}, SMALL, folder=tmp_path / "file", workers=2)


def test_a_folder_that_goes_while_cells_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and no warning of the cells that are still being run."""
    monkeypatch.setattr(Shelf, "try_out", lambda _: None)
    with pytest.raises(OrderkitError, match="cannot be written"):
        sweep({"seed": [1, 2, 3, 4, 5]}, SMALL, folder=tmp_path / "gone", workers=2)


def test_a_sweep_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its processes are told about warnings is not told to those that start afterwards."""
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert sweep({"seed": [1]}, SMALL, workers=2)["error"].isna().all()
    assert os.environ["PYTHONWARNINGS"] == "error"
    monkeypatch.delenv("PYTHONWARNINGS")
    assert sweep({"seed": [2]}, SMALL, workers=2)["error"].isna().all()
    assert "PYTHONWARNINGS" not in os.environ


def test_the_command_saves_a_table_and_a_heat_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`orderkit sweep` prints the figure, and saves everything as CSV and as a picture."""
    import pandas as pd

    words = f"sweep failure_rate=0.2,0.6 max_attempts=1:2 orders=40 --out {tmp_path} --chart {tmp_path}/map.png"
    with pytest.raises(SystemExit) as end:
        main([*words.split(), "--workers", "2"])
    assert end.value.code == 0
    assert "4 cells, 0 failed" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table["max_attempts"]) == [1, 2, 1, 2]
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent in another way there")
def test_ctrl_c_ends_a_sweep_and_keeps_what_is_done(tmp_path: Path) -> None:
    """One line, status 130, finished cells kept, and no process left behind."""
    words = f"sweep seed=1:500 orders=40 rate=40 --workers 2 --out {tmp_path}"
    with subprocess.Popen(
        [sys.executable, "-m", "orderkit", *words.split()], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    kept = f"What is done is kept in {tmp_path}; the same command goes on with the rest."
    assert said.strip().splitlines()[-1] == f"orderkit: interrupted. {kept}"
    assert list(tmp_path.glob("*.json"))
    group = process.pid
    while _alive(group) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(group)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
