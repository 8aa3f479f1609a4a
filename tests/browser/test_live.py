"""Notebook 10 in a real browser with a real kernel: in JupyterLab as a learner uses it, in Voilà as a class sees it."""

import re

import pytest
import serve_explorer
from browsing import free_port, serving, watched
from live import SECONDS, Explorer, open_notebook, run_all, serving_jupyterlab, small_copy
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """Address of a JupyterLab that serves the copy."""
    folder = tmp_path_factory.mktemp("lab")
    small_copy(folder)
    with serving_jupyterlab(folder) as address:
        yield address


@pytest.fixture(scope="module")
def voila(tmp_path_factory):
    """Address of the Voilà that `make explorer` starts, with the copy."""
    folder = tmp_path_factory.mktemp("voila")
    copy = small_copy(folder)
    port = free_port()
    arguments = serve_explorer.command(copy, port, browser=False)[3:]
    with serving("voila", arguments, folder, f"http://127.0.0.1:{port}/voila/static/", serve_explorer.environment(folder)):
        yield f"http://127.0.0.1:{port}/"


def test_jupyterlab(browser, jupyterlab):
    with watched(browser) as seen:
        page = seen.page
        open_notebook(page, jupyterlab, "10_epsilon_slider.ipynb")
        run_all(page)
        assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0

        explorer = Explorer(page)
        expect(explorer.handle).to_have_attribute("aria-valuenow", "0.3")
        expect(explorer.control("ε typed")).to_be_disabled()
        seen.screenshot("lab-locked")
        explorer.control("B: holds, falls off a cliff, stays down").check()
        expect(explorer.control("ε typed")).to_be_enabled()
        explorer.shows(epsilon="0.300", victim="ADSH clean 16", state="exact")
        expect(explorer.root.locator("path.prediction")).to_have_count(1)
        seen.screenshot("lab-predicted")

        before = explorer.content()
        explorer.handle.focus()
        page.keyboard.press("ArrowLeft")
        explorer.shows(epsilon="0.280", state="exact")
        expect(explorer.label).to_have_text("0.280 (71/255)")
        assert explorer.content() != before

        typed = explorer.control("ε typed")
        typed.fill("0.123")
        typed.press("Enter")
        explorer.shows(epsilon="0.123", state="exact")
        expect(explorer.label).to_have_text("0.123 (31/255)")
        assert re.search(r"mAP 0\.\d\d", explorer.picture.text_content())
        seen.screenshot("lab-typed")

        typed.fill("1.5")
        typed.press("Enter")
        expect(explorer.message).to_contain_text("1.5")
        expect(explorer.root.locator("svg[data-epsilon]")).to_have_count(0)  # no picture of another ε beside an error
        seen.screenshot("lab-error")
        typed.fill("0.2")
        typed.press("Enter")
        explorer.shows(epsilon="0.200", state="exact")
        expect(explorer.message).to_have_text("")

        before = explorer.content()
        explorer.control("Method").select_option("DSDH")
        explorer.shows(victim="DSDH clean 16", epsilon="0.200", state="exact")
        assert explorer.content() != before
        first = explorer.picture.get_attribute("data-query")
        explorer.root.get_by_role("button", name="Next").click()
        expect(explorer.picture).not_to_have_attribute("data-query", first)
        explorer.shows(query=explorer.control("Query").input_value(), state="exact")
        seen.screenshot("lab-dsdh")
        assert seen.errors == [] and seen.refused == []


def test_voila(browser, voila):
    with watched(browser) as seen:
        page = seen.page
        page.goto(voila, timeout=90 * SECONDS)
        explorer = Explorer(page)
        expect(explorer.control("ε typed")).to_be_disabled()
        explorer.root.get_by_role("button", name="Skip").click()
        expect(explorer.control("ε typed")).to_be_enabled()
        explorer.shows(epsilon="0.300", state="exact")
        before = explorer.content()
        explorer.handle.focus()
        page.keyboard.press("ArrowRight")
        explorer.shows(epsilon="0.320", state="exact")
        expect(explorer.label).to_have_text("0.320 (82/255)")
        assert explorer.content() != before
        assert page.locator(".jp-InputArea-editor").count() == 0  # an app: no code
        seen.screenshot("voila")
        page.locator("h1").first.scroll_into_view_if_needed()
        seen.screenshot("voila-top")
        assert seen.errors == [] and seen.refused == []
