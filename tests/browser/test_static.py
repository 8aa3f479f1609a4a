"""The site in a real browser, opened from the file system with the network cut: the slider moves, pages have no errors."""

import re
from pathlib import Path

import notebook_rules as rules
import pytest
from browsing import DESKTOP, NARROW, watched
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser


def state(page: Page) -> tuple[str | None, ...]:
    """(ε, query, victim, state) of the picture."""
    svg = page.locator(".ppl-picture svg")
    return tuple(svg.get_attribute(f"data-{name}") for name in ("epsilon", "query", "victim", "state"))


def open_explorer(page: Page, site: Path) -> None:
    page.goto((site / "explorer.html").as_uri())
    expect(page.locator("#ppl-epsilon")).to_be_disabled()


def test_slider_by_keyboard(browser: Browser, site: Path):
    with watched(browser, offline=True) as seen:
        page = seen.page
        open_explorer(page, site)
        seen.screenshot("site-explorer-locked", whole=True)
        page.get_by_role("radio", name="B: holds").check()
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".ppl-picture svg")).to_have_attribute("data-epsilon", "0.300")
        expect(page.locator("#ppl-epsilon")).to_be_focused()
        expect(page.locator(".ppl-label")).to_have_text("0.300 (77/255)")
        assert page.locator(".ppl-curve path.prediction").count() == 1
        before = page.locator(".ppl-picture").inner_html()
        seen.screenshot("site-explorer-0.300", whole=True)
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".ppl-label")).to_have_text("0.100 (26/255)")
        expect(page.locator("#ppl-epsilon")).to_have_attribute("aria-valuetext", "0.100 (26/255)")
        expect(page.locator(".ppl-picture svg")).to_have_attribute("data-epsilon", "0.100")
        assert page.locator(".ppl-picture").inner_html() != before
        assert page.locator(".ppl-curve svg").get_attribute("data-epsilon") == "0.100"
        page.keyboard.press("Home")
        expect(page.locator(".ppl-picture svg")).to_have_attribute("data-epsilon", "0.000")
        assert "0 of 16 bits flipped" in page.locator(".ppl-picture").inner_text()
        page.keyboard.press("End")
        expect(page.locator(".ppl-label")).to_have_text("1.000 (255/255)")
        seen.screenshot("site-explorer-1.000", whole=True)
        assert seen.errors == [] and seen.refused == []


def test_query_and_searcher(browser: Browser, site: Path):
    with watched(browser, offline=True) as seen:
        page = seen.page
        open_explorer(page, site)
        page.get_by_role("button", name="Predict").click()
        expect(page.locator(".ppl-message[role]")).to_contain_text("Choose one")
        page.get_by_role("button", name="Skip").click()
        expect(page.locator(".ppl-picture svg")).to_have_attribute("data-state", "exact")
        assert page.locator(".ppl-curve path.prediction").count() == 0
        first = state(page)
        page.get_by_role("button", name="Next").click()
        expect(page.locator(".ppl-picture svg")).not_to_have_attribute("data-query", first[1])
        second = state(page)
        assert page.locator(".ppl-query").input_value() == second[1]
        page.get_by_label("Searcher").select_option("DSDH")
        expect(page.locator(".ppl-picture svg")).to_have_attribute("data-victim", "DSDH clean 16")
        assert state(page) == (second[0], second[1], "DSDH clean 16", "exact")
        seen.screenshot("site-explorer-dsdh", whole=True)
        assert seen.errors == [] and seen.refused == []


def test_slider_in_notebook_10(browser: Browser, site: Path):
    with watched(browser, offline=True) as seen:
        page = seen.page
        page.goto((site / "notebooks" / "10_epsilon_slider.html").as_uri())
        page.get_by_role("button", name="Skip").click()
        expect(page.locator(".ppl-picture svg")).to_have_attribute("data-epsilon", "0.300")
        page.keyboard.press("ArrowLeft")
        expect(page.locator(".ppl-picture svg")).to_have_attribute("data-epsilon", "0.100")
        seen.screenshot("site-notebook-10")
        assert seen.errors == [] and seen.refused == []


def test_a_missing_picture_is_said(browser: Browser, site: Path, tmp_path: Path):
    with watched(browser, offline=True) as seen:
        seen.page.route("**/epsilon/adsh-curve.js", lambda route: route.abort())
        open_explorer(seen.page, site)
        seen.page.get_by_role("button", name="Skip").click()
        expect(seen.page.locator(".ppl-message[role]")).to_contain_text("cannot read")
        assert seen.page.locator(".ppl-picture svg").count() == 0


def test_no_page_has_an_error(browser: Browser, site: Path):
    """Every page of the course: no error on the console, no request, all mathematics set, nothing wider than the window."""
    with watched(browser, DESKTOP, offline=True) as seen:
        for path in sorted(site.glob("*.html")) + [site / "notebooks" / f"{p.stem}.html" for p in rules.course_notebooks()]:
            seen.page.goto(path.as_uri())
            seen.page.wait_for_function("!window.MathJax || !MathJax.startup || "
                                        "MathJax.startup.promise.then(() => true)")
            assert seen.errors == [] and seen.refused == [], path.name
            assert seen.page.locator("merror, mjx-merror, [data-mjx-error]").count() == 0, path.name
            formulas = seen.page.locator(".math").count()
            assert seen.page.locator(".math mjx-container").count() >= formulas, path.name
            left = re.findall(r"(?<!\\)\$\S[^$\n]*\S\$", seen.page.locator("article p, article li").all_inner_texts().__str__())
            assert left == [], path.name


@pytest.mark.parametrize(("name", "viewport"), [("desktop", DESKTOP), ("narrow", NARROW)])
def test_pages_fit_the_window(browser: Browser, site: Path, name: str, viewport: dict[str, int]):
    with watched(browser, viewport, offline=True) as seen:
        for stem in ("index", "explorer", "notebooks/09_four_scenarios"):
            seen.page.goto((site / f"{stem}.html").as_uri())
            wide = seen.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= viewport["width"] + 1, (stem, wide)
            seen.screenshot(f"site-{stem.split('/')[-1]}-{name}")


def test_search(browser: Browser, site: Path):
    with watched(browser, offline=True) as seen:
        seen.page.goto((site / "search.html").as_uri() + "?q=gradient+reversal")
        result = seen.page.locator("#search-results a", has_text="Gradient reversal")
        expect(result.first).to_be_visible()
        seen.screenshot("site-search")
        result.first.click()
        expect(seen.page.locator("h1").first).to_contain_text("Gradient reversal")
        assert seen.errors == [] and seen.refused == []
