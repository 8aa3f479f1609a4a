"""Notebook 10 in a front end: a copy with small parameters, and what a person does with the explorer in it."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import notebook_rules as rules
from browsing import free_port, serving
from playwright.sync_api import Locator, Page, expect

SECONDS = 1000  # Playwright counts in milliseconds


def small_copy(folder: Path) -> Path:
    """The notebook with the parameters of the fast runs, without outputs."""
    path = rules.course_notebooks(names=["10"])[0]
    notebook = rules.read(path)
    declared, problems = rules.parameters(notebook)
    assert problems == []
    chosen = rules.select_parameters(rules.read_parameter_table(rules.FAST_PARAMETERS), path.stem, declared)[0]
    for _, cell in rules.code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
        if "parameters" in rules.tags(cell):
            cell.source += "\n" + "\n".join(f"{name} = {value!r}" for name, value in chosen.items())
    target = folder / path.name
    nbformat.write(notebook, target)
    return target


@contextlib.contextmanager
def serving_jupyterlab(folder: Path) -> Iterator[str]:
    """A JupyterLab on loopback for the notebooks of a folder; settings and workspaces are its own. Gives its address."""
    settings = folder / "settings" / "@jupyterlab"
    for plugin, chosen in {"notebook-extension/tracker": {"windowingMode": "none", "kernelShutdown": True},
                           "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}.items():
        (settings / plugin).parent.mkdir(parents=True, exist_ok=True)
        (settings / f"{plugin}.jupyterlab-settings").write_text(json.dumps(chosen), encoding="utf-8")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    environment = {**rules.notebook_environment(folder), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
                   "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"), "JUPYTER_CONFIG_DIR": str(folder / "config"),
                   "JUPYTER_DATA_DIR": str(folder / "data")}
    arguments = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
                 "--allow-root", f"--ServerApp.root_dir={folder}", "--LabApp.extension_manager=readonly"]
    with serving("jupyterlab", arguments, folder, address + "/api", environment):
        yield address


def open_notebook(page: Page, address: str, name: str) -> None:
    """Open a notebook and wait until it has a kernel."""
    page.goto(f"{address}/lab/tree/{name}")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60 * SECONDS)
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60 * SECONDS)


def run_all(page: Page) -> None:
    """Run all cells from the menu and wait until the last has run."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    last = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").last
    expect(last).to_have_text(re.compile(r"\[\d+\]:"), timeout=90 * SECONDS)


class Explorer:
    """The first explorer on a page."""

    def __init__(self, page: Page, timeout: float = 60 * SECONDS):
        self.page = page
        self.root = page.locator(".ppl-explorer").first
        self.root.wait_for(state="attached", timeout=timeout)
        self.root.scroll_into_view_if_needed()
        self.picture = self.root.locator(".ppl-picture svg")
        self.handle = self.root.locator(".noUi-handle").first
        self.label = self.root.locator(".ppl-label")
        self.message = self.root.locator(".ppl-message")

    def control(self, name: str) -> Locator:
        """The field or menu behind a description."""
        return self.root.get_by_label(name, exact=True)

    def shows(self, **expected: str) -> None:
        """Wait until the picture says epsilon=..., query=..., victim=..., state=...."""
        for name, value in expected.items():
            expect(self.picture).to_have_attribute(f"data-{name}", value, timeout=20 * SECONDS)

    def content(self) -> str:
        """The picture as it is."""
        return self.picture.evaluate("svg => svg.outerHTML")
