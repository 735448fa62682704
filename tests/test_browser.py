"""The notebook as a person runs it: JupyterLab in a real browser, Run All Cells, quick profile.
Networks and chips are those of the quick run, which `make run` has left: the test of what a kernel
computes is `test_anywhere`'s, and that of all cells from nothing `test_quick_run`'s."""

import os
import secrets
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
from conftest import free_port
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.ui import WebDriverWait

from tools.files import ROOT, copy_project, read_json
from tools.reproduce import differences

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1400,1000"
).split()
# JupyterLab shows only the cells in view, so what all of them are is asked of its model.
CELLS = """
const panel = jupyterapp.shell.currentWidget;
return {
    kernel: panel.sessionContext.kernelDisplayStatus,
    cells: panel.content.widgets.filter(cell => cell.model.type === "code").map(cell => ({
        count: cell.model.executionCount,
        outputs: cell.model.outputs.toJSON().map(output => output.output_type),
    })),
};
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
    ),
]


@pytest.fixture
def project(quick, tmp_path):
    """A copy of what the notebook needs, and of what a run by `make` has computed."""
    copy_project(ROOT, tmp_path)
    for name in ("ColoredMNIST", "checkpoints", "results"):
        shutil.copytree(quick / "data" / name, tmp_path / "data" / name, copy_function=os.link)
    return tmp_path


@pytest.fixture
def lab(project, tmp_path_factory):
    """The address of the notebook in a JupyterLab of its own."""
    port, token, home = free_port(), secrets.token_hex(8), tmp_path_factory.mktemp("jupyter")
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "IdentityProvider.token": token,
        "ServerApp.root_dir": project,
        "LabApp.expose_app_in_browser": True,
    }
    places = {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *(f"--{k}={v}" for k, v in options.items())],
            cwd=project,
            env=os.environ | places,
            stdout=log,
            stderr=log,
        )
        yield f"http://127.0.0.1:{port}/lab/tree/coloredmnist.ipynb?token={token}"
        server.terminate()
        server.wait()


@pytest.fixture
def browser(tmp_path_factory):
    """A headless Chromium with an empty profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def open_notebook(browser, address):
    """Open it, wait until its kernel is idle, and dismiss what JupyterLab asks newcomers."""
    deadline = time.monotonic() + 120
    while True:  # until the server answers
        try:
            browser.get(address)
            break
        except Exception:
            assert time.monotonic() < deadline, "JupyterLab did not start"
            time.sleep(1)
    ready = "return !!window.jupyterapp && !!jupyterapp.shell.currentWidget?.content?.widgets"
    WebDriverWait(browser, 120).until(lambda b: b.execute_script(ready))
    WebDriverWait(browser, 120).until(lambda b: b.execute_script(CELLS)["kernel"] == "idle")


def set_profile(browser, name):
    """Type another profile into the cell that sets it."""
    find = """
    const content = jupyterapp.shell.currentWidget.content;
    const index = content.widgets.findIndex(
        cell => cell.model.sharedModel.source.startsWith("PROFILE = "));
    content.scrollToItem(index);
    content.activeCellIndex = index;
    """
    browser.execute_script(find)
    line = WebDriverWait(browser, 30).until(
        element_to_be_clickable(
            (By.XPATH, "//div[contains(@class,'jp-mod-active')]//div[contains(@class,'cm-line')]")
        )
    )
    line.click()
    keys = ActionChains(browser)
    keys.key_down(Keys.CONTROL).send_keys(Keys.HOME).key_up(Keys.CONTROL)
    keys.key_down(Keys.SHIFT).send_keys(Keys.END).key_up(Keys.SHIFT)
    keys.send_keys(f"PROFILE = '{name}'").perform()


def run_all_cells(browser):
    """Run > Run All Cells."""
    for label in ("Run", "Run All Cells"):
        path = f"//*[contains(@class,'lm-Menu')]//div[normalize-space(text())='{label}']"
        WebDriverWait(browser, 30).until(element_to_be_clickable((By.XPATH, path))).click()


def wait_until_done(browser, seconds):
    """Wait until every code cell has run, one has failed, or time is up; return the cells."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = browser.execute_script(CELLS)
        cells = state["cells"]
        failed = any("error" in cell["outputs"] for cell in cells)
        if failed or (state["kernel"] == "idle" and all(cell["count"] for cell in cells)):
            return cells
        time.sleep(2)
    raise AssertionError(f"not finished after {seconds} s")


def test_run_all_cells_in_jupyterlab(browser, lab, project, quick):
    """Quick profile, Run All Cells: no error, every cell in order, the last figure is visible, and
    the results are those of the run by `make`, which it goes on from."""
    open_notebook(browser, lab)
    set_profile(browser, "quick")
    run_all_cells(browser)
    cells = wait_until_done(browser, 1500)
    assert not [number for number, cell in enumerate(cells) if "error" in cell["outputs"]]
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))

    show_last = """
    const content = jupyterapp.shell.currentWidget.content;
    const drawn = content.widgets.findLastIndex(cell => cell.model.type === "code"
        && cell.model.outputs.toJSON().some(output => output.data && output.data["image/png"]));
    content.scrollToItem(drawn);
    content.activeCellIndex = drawn;
    """
    browser.execute_script(show_last)
    width = """
    const image = document.querySelector(".jp-mod-active .jp-OutputArea img");
    return image && image.complete && image.isConnected ? image.naturalWidth : 0;
    """
    WebDriverWait(browser, 30).until(lambda b: b.execute_script(width) > 500)
    browser.execute_script("return jupyterapp.commands.execute('docmanager:save')")
    saved = nbformat.read(project / "coloredmnist.ipynb", as_version=4)
    (parameters,) = [c for c in saved.cells if c.source.startswith("PROFILE = ")]
    assert parameters.source.startswith("PROFILE = 'quick'")
    names = [{path.stem for path in root.glob("figures/*.png")} for root in (ROOT, project)]
    assert names[0] == names[1]
    found, before = (read_json(root / "figures/results.json") for root in (project, quick))
    assert found["resumed"] and all(row["kept"] for row in found["ledger"])
    for results in (found, before):
        del results["ledger"]
    assert differences(before, found) == {}
