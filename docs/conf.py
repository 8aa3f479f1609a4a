"""Sphinx settings of the course's site; `make site` runs Sphinx with them on the sources that tools/site_pages.py writes.

Everything the pages need is in the site: it opens from the file system, without a network.
"""

import importlib.util
import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
# One script with the shapes of all glyphs: browsers are strict about font files on the file system.
MATHJAX_FILES = ("tex-svg.js", *(f"input/tex/extensions/{name}.js" for name in ("boldsymbol", "bbox", "cancel", "color")))

project = "pplkit"
author = "the pplkit authors"
html_title = "Proactive privacy for image retrieval"
language = "en"
extensions = ["myst_nb", "sphinx.ext.mathjax"]
mathjax_path = "mathjax/tex-svg.js"
html_theme = "sphinx_book_theme"
html_static_path = [str(HERE / "_static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_show_search_summary = False  # it would be fetched, which browsers refuse on the file system
html_last_updated_fmt = None
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system has it
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_repository_button": False,
    "use_issues_button": False,
    "home_page_in_toc": False,
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "navigation_with_keys": False,  # arrow keys belong to the slider
    "search_bar_text": "Search the course",
    "article_header_start": ["toggle-primary-sidebar.html"],
}

nb_execution_mode = "off"  # stored outputs are shown
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_number_source_lines = False
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a cell may begin with a heading of any level
pygments_style = "friendly"


def add_mathjax(app, error):
    """Copy the parts of MathJax that the pages use, and leave out what the theme meant for Sphinx only."""
    static = Path(app.outdir) / "_static"
    if error is None and app.builder.format == "html":
        for name in MATHJAX_FILES:
            (static / "mathjax" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(MATHJAX / name, static / "mathjax" / name)
        for template in static.glob("*webpack-macros.html"):
            template.unlink()


def setup(app):
    """Called by Sphinx."""
    app.connect("build-finished", add_mathjax)
