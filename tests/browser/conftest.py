"""A headless Chromium from the system, and a real JupyterLab."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install 'mlkd[dev]'")

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")  # not longer: while it is open, asyncio sees Playwright's event loop as running
def browser() -> Iterator:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with playwright.sync_playwright() as session:
        chromium = session.chromium.launch(executable_path=path)
        yield chromium
        chromium.close()


class Visit(NamedTuple):
    """A page and its problems: errors in the console, failed requests, and requests to other hosts."""

    page: playwright.Page
    problems: list[str]


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Visit]]:
    """A function that opens an address in a window of the given width in pixels."""
    contexts = []

    def open_page(address: str, width: int = 1200, scheme: str = "light") -> Visit:
        contexts.append(browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme))
        page, problems = contexts[-1].new_page(), []
        home = address.rsplit("/", 1)[0] if address.startswith("file:") else "/".join(address.split("/")[:3])
        allowed = (home, home.replace("http:", "ws:"), "data:", "blob:")
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(f"{request.url}: {request.failure}"))
        page.on(
            "request",
            lambda request: None if request.url.startswith(allowed) else problems.append(f"requested {request.url}"),
        )
        page.goto(address)
        return Visit(page, problems)

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """The folder of screenshots: `$MLKD_SCREENSHOTS`, else the test's temporary folder."""
    folder = Path(os.environ.get("MLKD_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Lab(NamedTuple):
    """A running JupyterLab: its folder of notebooks, and a function that returns the address of a notebook."""

    folder: Path
    address: Callable[[str], str]


SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # both use the network
    "notebook-extension/tracker": {"windowingMode": "none"},  # otherwise cells outside the window are not in the page
}


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Lab]:
    """JupyterLab on a copy of the notebooks, with separate settings and token; it is stopped after the tests."""
    pytest.importorskip("jupyterlab", reason="no JupyterLab: pip install 'mlkd[notebooks]'")
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(NOTEBOOKS, root / "notebooks")
    for name, values in SETTINGS.items():
        path = root / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    folders = {
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = {**os.environ, **{name: str(root / folder) for name, folder in folders.items()}}
    environment |= {"MLKD_CACHE": str(cache), "OMP_NUM_THREADS": "1", "JUPYTER_PREFER_ENV_PATH": "1"}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
    with (root / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, f"--ServerApp.root_dir={root / 'notebooks'}"], env=environment, stdout=log, stderr=log
        )
    try:
        yield Lab(root / "notebooks", _address(server, root))
    finally:
        server.terminate()  # its kernels end with it
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: subprocess.Popen, root: Path) -> Callable[[str], str]:
    """Waits until the server has written its URL and token, and returns a function to the notebooks' addresses."""
    deadline = time.monotonic() + 60
    while not (files := list((root / "runtime").glob("jpserver-*.json"))):
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"JupyterLab did not start:\n{(root / 'log').read_text()}")
        time.sleep(0.1)
    server_info = json.loads(files[0].read_text())
    # One workspace per notebook; otherwise notebooks that were opened before are opened again.
    return lambda stem: f"{server_info['url']}lab/workspaces/{stem}/tree/{stem}.ipynb?token={server_info['token']}"
