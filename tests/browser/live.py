"""Notebook 10 in a front end: a copy with small parameters, and what a person does with the explorer in it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import notebook_rules as rules
from playwright.sync_api import Locator, Page, expect

NOTEBOOK = "10_epsilon_slider"
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
