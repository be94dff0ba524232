"""A real browser: JupyterLab opens 00_start_here and runs it, sliders and buttons work while orders flow, and all ends.

It needs Chromium and the package `playwright`. `ORDERKIT_REQUIRE_BROWSER=1` makes it a failure that one is missing.
`ORDERKIT_SCREENSHOTS` names a folder that keeps the screenshots.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from helpers import PATIENCE, Late, crowd, soon

from orderkit.brokers._ports import Ports

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NAME = "00_start_here.ipynb"
LONG = "long.ipynb"  # a copy that ends with the live cell, in which orders flow for longer, and a cell that tells of it
UNCUT = "uncut.ipynb"  # a copy with all its cells, in which orders flow quicker
TOKEN = "secret"
PAGE_PATIENCE = 60_000 * PATIENCE  # ms
SOON = 15.0  # seconds from the address of the notebook to its live chart, at the most
QUIET = (
    "--ServerApp.port_retries=0",
    f"--IdentityProvider.token={TOKEN}",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)
# What a learner would look up in a cell of his own, after the run: the share of failed attempts early and late.
PROBE = """
import json, threading
from orderkit.account.tally import AVERAGED
run = live.run
(fates,), _, _ = run.ledger.rows("fate")
def failed(some):
    return sum(fate != AVERAGED for fate in some) / max(1, len(some))
left = [one.name for one in threading.enumerate() if run.name in one.name]
print("PROBE", json.dumps([failed(fates[:40]), failed(fates[-20:]), len(fates), left]), "END")
"""
DARK = "() => getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor === 'rgb(17, 17, 17)'"
ERROR = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']"
# JavaScript: the notebook's cells of code, and how many pictures have come out that a browser can show.
# What is whole on the screen: all sliders and the chart lie inside the notebook's part of the window.
WHOLE = """() => {
    const panel = document.querySelector('.jp-NotebookPanel-notebook').getBoundingClientRect();
    const parts = [...document.querySelectorAll('.widget-hslider, .jp-OutputArea-output img')];
    return parts.length === 6 && parts.map(one => one.getBoundingClientRect()).every(one =>
        one.width > 0 && one.top >= panel.top && one.bottom <= panel.bottom
        && one.left >= panel.left && one.right <= panel.right);
}"""
CODE_CELLS = "jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code')"
SEEN = "[...document.querySelectorAll('.jp-OutputArea img')].filter(one => one.naturalWidth > 0).length"


def missing(what: str) -> None:
    """Skip for want of something, or fail where it is required."""
    if os.environ.get("ORDERKIT_REQUIRE_BROWSER") == "1":
        pytest.fail(f"There is no {what}, and ORDERKIT_REQUIRE_BROWSER=1.")
    pytest.skip(f"There is no {what}.")


def fresh(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give cells without their outputs: what is on the page later has come out there."""
    return [{**cell, "outputs": [], "execution_count": None} if "outputs" in cell else cell for cell in cells]


def shortened(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let all orders flow within seconds."""
    text = json.dumps(cells)
    for slow, quick in (("rate = 50 ", "rate = 500 "), ("backoff_base = 0.05 ", "backoff_base = 0 ")):
        assert slow in text
        text = text.replace(slow, quick)
    return list(json.loads(text))


def lengthened(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cut cells behind the live one, let orders flow for longer in it, and add one that tells what happened."""
    cells = cells[: 1 + next(i for i, cell in enumerate(cells) if cell["id"] == "live")]
    (given,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
    longer = {**given, "source": "".join(given["source"]).replace("orders = 1500", "orders = 20_000")}
    probe: dict[str, Any] = {
        "cell_type": "code",
        "id": "probe",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": PROBE,
    }
    return [longer if cell is given else cell for cell in cells] + [probe]


@pytest.fixture(scope="module")
def lab_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab on copies of the notebook, `LONG` and `UNCUT`."""
    folder = tmp_path_factory.mktemp("browser")
    whole = json.loads((NOTEBOOKS / NAME).read_text("utf-8"))
    cells = fresh(whole["cells"])
    for name, some in {LONG: lengthened(cells), UNCUT: shortened(cells)}.items():
        (folder / name).write_text(json.dumps({**whole, "cells": some}), "utf-8")
    settings = folder / "settings"  # not the reader's own
    news = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}', "utf-8")  # or a question lies over the chart
    environment = {**os.environ, "JUPYTERLAB_SETTINGS_DIR": str(settings)}
    with Ports(["lab"]) as ports, (folder / "log").open("w") as log:
        port = ports.numbers["lab"]
        command = [sys.executable, "-m", "orderkit", "notebook", str(folder), "--no-browser", "--port", str(port)]
        address = f"http://127.0.0.1:{port}"
        more = ["--", "--allow-root", *QUIET]
        server = subprocess.Popen([*command, *more], cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            wait_until(lambda: answers(f"{address}/api?token={TOKEN}"), server)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def answers(address: str) -> bool:
    """Say whether a server is there."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def wait_until(condition: Callable[[], object], server: subprocess.Popen[bytes] | None = None) -> None:
    """Wait for a condition, a minute at most."""
    met = soon(condition, 60)
    while not met():
        assert server is None or server.poll() is None
        time.sleep(0.2)


@pytest.fixture
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """Open a page of a real Chromium; all that its console complained of is in `page.complaints`."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        missing("Chromium")
    shots = Path(os.environ.get("ORDERKIT_SCREENSHOTS") or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page: Any = browser.new_page(viewport={"width": 1280, "height": 720}, device_scale_factor=2)
        page.set_default_timeout(PAGE_PATIENCE)
        page.complaints = []
        page.on("console", partial(note, page.complaints))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        yield page
        page.screenshot(path=shots / f"{request.node.name}.png")
        browser.close()


def note(complaints: list[str], told: Any) -> None:
    """Note what the console calls an error, but not that the machine's network has changed: nothing here needs it."""
    if told.type == "error" and "ERR_NETWORK_CHANGED" not in told.text:
        complaints.append(told.text)


def do(page: Any, command: str) -> None:
    """Carry out one of JupyterLab's commands, as its menus do; without waiting for what it starts."""
    page.evaluate(f"() => {{ window.jupyterapp.commands.execute('{command}'); }}")


def start(page: Any, address: str, name: str = LONG, guess: str = "") -> float:
    """Open a notebook, run all its cells, wait for the live view and press Run; give the seconds until it was there."""
    began = time.monotonic()
    page.goto(f"{address}/lab/tree/{name}?reset&token={TOKEN}")  # without what was open before
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function("() => /\\| Idle/.test(document.body.innerText)")  # a cell run earlier asks for a kernel
    do(page, "notebook:run-all-cells")
    page.wait_for_selector(".noUi-handle")
    page.wait_for_selector(".jp-OutputArea img")
    took = time.monotonic() - began
    page.wait_for_function(WHOLE)  # without a hand at the wheel
    page.get_by_placeholder("your number").fill(guess)
    press(page, "Run")
    return took


def failure_rate(page: Any) -> Any:
    """Find the handle of the slider of the failure rate."""
    box = page.locator(".widget-hslider", has_text="failure rate")
    return box.locator(".noUi-handle")


def picture(page: Any) -> bytes:
    """Give the chart that is on the page now."""
    address = page.locator(".jp-OutputArea-output img").first.get_attribute("src")
    return b64decode(address.partition("base64,")[2])


def probe(page: Any) -> list[Any]:
    """Wait for the word of the last cell: failed early, failed late, attempts, threads that are left."""
    page.wait_for_function("() => /PROBE .* END/.test(document.body.innerText)")
    (told,) = re.findall(r"PROBE (.*?) END", page.locator(".jp-Notebook").inner_text().replace('"PROBE"', ""))[-1:]
    found: list[Any] = json.loads(told)
    return found


def wait_for_more_orders(page: Any, times: int) -> None:
    """Wait until the chart has changed so often."""
    for _ in range(times):
        wait_until(partial(changed, page, picture(page)))


def changed(page: Any, before: bytes) -> bool:
    """Say whether the chart is another one."""
    return picture(page) != before


def press(page: Any, text: str) -> None:
    """Press one of the run's buttons."""
    page.get_by_role("button", name=text, exact=True).click()


def state(page: Any) -> str:
    """Give the line above the chart."""
    return str(page.locator(".orderkit-state").first.inner_text())


def contrast(one: Any, other: Any) -> float:
    """Give the contrast of two colours from 0 to 1, as WCAG 2 defines it."""

    def light(colour: Any) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
        return float(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])

    dark, bright = sorted((light(one), light(other)))
    return (bright + 0.05) / (dark + 0.05)


def readable(chart: Any) -> bool:
    """Say whether the chart's ground is the page's, a dark one, and its title stands out from it."""
    from matplotlib.image import imread

    pixels = imread(BytesIO(chart.screenshot()), format="png")[..., :3]
    ground, words = pixels[4, 4], pixels[: len(pixels) // 10].reshape(-1, 3)  # the title is in the uppermost tenth
    return bool(ground.max() < 0.1 and contrast(ground, words[words.sum(axis=1).argmax()]) > 4)


@pytest.mark.timeout(300)
def test_a_live_run_is_tuned_paused_stopped_and_run_again(page: Any, lab_address: str) -> None:
    """The failure rate goes to 0, then to 1: all attempts fail from then on, and not before; each button does its work.

    On a screen of 1280x720 sliders and chart are whole, from Run All on, though the notebook goes on below.
    """
    from matplotlib.image import imread

    start(page, lab_address)
    wait_for_more_orders(page, 6)
    pixels = imread(BytesIO(picture(page)), format="png")[..., :3]
    assert (pixels.max(axis=2) - pixels.min(axis=2) > 0.3).sum() > 200
    assert page.evaluate(WHOLE)
    failure_rate(page).focus()
    page.keyboard.press("Home")
    wait_for_more_orders(page, 3)
    press(page, "Pause")
    press(page, "Go on")
    failure_rate(page).focus()
    page.keyboard.press("End")
    wait_for_more_orders(page, 12)
    assert page.evaluate(WHOLE)
    if folder := os.environ.get("ORDERKIT_SCREENSHOTS"):
        page.locator(".jp-CodeCell", has=page.locator(".widget-hslider")).screenshot(
            path=Path(folder) / "start_here.png"
        )
    press(page, "Stop")
    early, late, attempts, left = probe(page)
    assert early < 0.6
    assert late == 1.0
    assert attempts < 20_000
    assert left == []
    assert state(page).startswith("stopped. theory ")
    ended = picture(page)
    press(page, "Run again")  # long after its cell has ended
    wait_until(lambda: state(page).startswith("running") and picture(page) != ended)
    wait_for_more_orders(page, 4)
    press(page, "Stop")
    wait_until(lambda: state(page).startswith("stopped. theory "))
    assert page.complaints == []


@pytest.mark.timeout(300)
def test_an_interrupt_is_one_line_and_leaves_no_thread(page: Any, lab_address: str) -> None:
    """The kernel is interrupted while orders flow: the cell ends with one line, and the run's threads with it."""
    start(page, lab_address)
    wait_for_more_orders(page, 4)
    do(page, "notebook:interrupt-kernel")
    page.wait_for_selector(ERROR)
    told = page.locator(ERROR).first.inner_text().strip()
    assert re.fullmatch(r"Interrupted: \d+ of \d+ orders are done with, and committed\. A new run .*\.", told), told
    page.locator(".jp-Cell").last.click()
    do(page, "notebook:run-cell")
    assert probe(page)[3] == []
    assert page.complaints == []


@pytest.mark.timeout(300)
def test_the_whole_notebook_runs_on_dark_ground_too(page: Any, lab_address: str) -> None:
    """Run All goes to the last cell with all pictures and no error; they are sharp, and can be read on a dark theme."""
    took = start(page, lab_address, UNCUT, guess="55")
    page.wait_for_function(f"() => {CODE_CELLS}.every(cell => cell.model.executionCount)", timeout=2 * PAGE_PATIENCE)
    pictures = (NOTEBOOKS / NAME).read_text("utf-8").count('"image/png": "')
    page.wait_for_function(f"pictures => {SEEN} === pictures", arg=pictures)
    outputs = page.evaluate(f"() => {CODE_CELLS}.flatMap(cell => cell.model.outputs.toJSON())")
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert json.dumps(outputs).count("Every order is accounted for.") == 2
    assert state(page) == "finished. you 55, theory 55.1 ± 14.6, measured 50: within chance"
    chart = page.locator(".jp-OutputArea-output img").first
    assert chart.evaluate("one => one.naturalWidth / one.clientWidth") == 2
    assert all(handle.is_disabled() for handle in page.get_by_role("button", name="Stop", exact=True).all())
    page.evaluate("() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    page.wait_for_function(DARK)
    wait_until(partial(readable, chart))  # behind the curtain that JupyterLab draws over a change of its theme
    assert page.complaints == []
    if took >= SOON * PATIENCE * crowd():  # on a crowded machine a second is longer
        raise Late(f"the chart was there after {took:.1f} s, not {SOON * PATIENCE * crowd():.1f}")
