"""Fixtures of the browser tests and of the site's tests."""

import build_site
import pytest
import site_frames
from browsing import find_chromium, refuse
from playwright.sync_api import sync_playwright


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The whole site with a small slider: three queries, five ε, a small database."""
    folder = tmp_path_factory.mktemp("site")
    setting = site_frames.Setting(queries=60, database=300, epsilons=(0.0, 0.1, 0.3, 0.5, 1.0), shown=3)
    assert build_site.build(folder / "site", folder / "sources", setting) == []
    return folder / "site"


@pytest.fixture(scope="module")  # closed before other tests: Playwright's loop would disturb theirs
def browser():
    """The system's Chromium, without a window. Missing: the tests are skipped, or fail where CI=true."""
    path = find_chromium()
    if path is None:
        refuse()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--disable-dev-shm-usage"])
        yield chromium
        chromium.close()
