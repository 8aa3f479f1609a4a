"""The built site holds together: pages, links, frames of the slider, and nothing that looks alive without being so."""

import html
import json
import re
from pathlib import Path

import browsing
import build_site
import nbformat
import notebook_rules as rules
import pytest
import site_frames
import site_links
import site_pages
import yaml

from pplkit import budget, data, pretrained, retrieval
from pplkit.explorer import SHAPES
from pplkit.scenarios import SCENARIOS, evaluate_scenarios


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


class TestPages:
    def test_every_notebook_has_its_page_and_its_figures(self, site: Path):
        for path in rules.course_notebooks():
            page = text_of(site / "notebooks" / f"{path.stem}.html")
            stored = [output for _, cell in rules.code_cells(rules.read(path)) for output in cell.outputs]
            figures = sum("image/png" in output.get("data", {}) for output in stored)
            assert len(re.findall(r'<img alt="[^"]+" src="[^"]*\.png"|<img alt="[^"]+"[^>]*_images/', page)) >= figures > 0

    def test_front_page_leads_to_everything(self, site: Path):
        page = site_links.read(site / "index.html")
        for path in rules.course_notebooks():
            assert f"notebooks/{path.stem}.html" in page.links
        assert {"explorer.html", "notebooks/README.html", "pplkit/index.html", "results.html"} <= set(page.links)

    def test_results_are_those_of_the_readme_and_of_the_page_with_all_of_them(self, site: Path):
        def rows(path: Path) -> list[str]:  # without the heads
            tables = re.findall(r"(?:^\|.*\n)+", text_of(path), re.MULTILINE)
            return [row for table in tables for row in table.splitlines()[2:]]

        first, everything = rules.ROOT / "README.md", rules.ROOT / "data" / "results" / "README.md"
        victims = [row for row in rows(everything) if row.startswith(("| ADSH |", "| DSDH |"))]
        figures = [row for row in rows(everything) if re.match(r"\| \[\d\]\(", row)]
        assert len(victims) == 11 * 16 and len(figures) == 17  # CIFAR-10 six times, Fashion-MNIST thrice, ImageNet-13 twice
        page, results = text_of(site / "data" / "results" / "README.html"), text_of(site / "results.html")
        heads = text_of(everything).count("\n|---|")
        assert page.count("<tr") == len(rows(everything)) + heads and heads == 17
        of_section = text_of(first).split("## Results\n")[1].split("\n## ")[0]
        lines = len(re.findall(r"^\|", of_section, re.MULTILINE)) - of_section.count("\n|---|")
        assert results.count("<tr") == lines == 10 + 16 + 2
        assert 'href="data/results/README.html"' in results

    def test_search_knows_the_notebooks(self, site: Path):
        index = text_of(site / "searchindex.js")
        assert index.startswith("Search.setIndex(")
        for path in rules.course_notebooks():
            assert f"notebooks/{path.stem}" in index

    def test_solutions_are_folded(self, site: Path):
        page = text_of(site / "notebooks" / "01_hashing_basics.html")
        folds = re.findall(r"<details class=\"[^\"]*hide[^\"]*\".*?</details>", page, re.DOTALL)
        assert sum("BEGIN SOLUTION" in fold for fold in folds) == page.count("BEGIN SOLUTION") > 0

    def test_no_page_needs_a_kernel(self, site: Path):
        for page in site.rglob("*.html"):
            text = text_of(page)
            assert "widget-view+json" not in text and "widget-state+json" not in text and "require.min.js" not in text, page
        for page in (site / "notebooks").glob("*.html"):
            text = text_of(page)
            assert "Answer here, or by assignment:" not in text, page
            assert not re.search(r"<pre>[^<]*(?:VBox|HBox|FloatSlider)\(", text), page

    def test_only_the_explorer_offers_controls(self, site: Path):
        """A slider is on a page only together with the script that moves it."""
        for page in site.rglob("*.html"):
            text = text_of(page)
            assert ('type="range"' in text) == ("epsilon.js" in text), page

    def test_size(self, site: Path):
        assert build_site.size(site) < build_site.MAX_BYTES


class TestLinks:
    def test_every_link_and_anchor_leads_somewhere_and_nothing_is_loaded_from_outside(self, site: Path):
        assert site_links.problems(site) == []

    def test_links_out_of_the_notebooks_lead_to_what_they_name(self, site: Path):
        page = site_links.read(site / "notebooks" / "10_epsilon_slider.html")
        assert "../pplkit/budget.py.html" in page.links and "../tests/test_budget.py.html" in page.links
        shown = html.unescape(re.sub(r"<[^>]+>", "", text_of(site / "pplkit" / "budget.py.html")))
        assert "def format_epsilon" in shown

    @pytest.mark.parametrize(("body", "problem"), [
        ('<a href="gone.html">x</a>', "links to gone.html, which does not exist"),
        ('<a href="#nowhere">x</a>', "links to #nowhere, an anchor that the page does not have"),
        ('<a href="/a.html">x</a>', "an absolute path does not work"),
        ('<a href="../../etc/passwd">x</a>', "outside of the site"),
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js from the network"),
        ('<script src="//cdn.example/x.js"></script>', "from the network"),
        ('<link rel="stylesheet" href="http://x.example/a.css">', "from the network"),
        ('<link rel="preconnect" href="https://fonts.example">', "from the network"),
        ('<img srcset="a.png 1x">', "loads a.png, which does not exist"),
        ('<p style="background:url(https://x.example/a.png)">', "from the network"),
        ('<svg><image href="http://x.example/a.png"/></svg>', "from the network"),
    ])
    def test_a_broken_page_is_found(self, tmp_path: Path, body: str, problem: str):
        (tmp_path / "a.html").write_text(f"<h1 id=top>x</h1><a href='#top'></a><a href='https://x.example'></a>{body}")
        found = site_links.problems(tmp_path)
        assert len(found) == 1 and problem in found[0]

    def test_style_sheets_are_read(self, tmp_path: Path):
        (tmp_path / "a.html").write_text("<p>x</p>")
        (tmp_path / "a.css").write_text("@import 'https://fonts.example/x.css'; p { background: url(\"gone.png\") }")
        assert len(site_links.problems(tmp_path)) == 2

    def test_an_empty_site_is_none(self, tmp_path: Path):
        assert "holds no page" in site_links.problems(tmp_path)[0]


class TestSources:
    def pages(self, tmp_path: Path) -> site_pages.Pages:
        return site_pages.Pages(rules.ROOT, tmp_path)

    @pytest.mark.parametrize(("link", "source", "page"), [
        ("../pplkit/budget.py", "notebooks/10_epsilon_slider.ipynb", "../pplkit/budget.py.md"),
        ("../pplkit/hashing", "notebooks/10_epsilon_slider.ipynb", "../pplkit/hashing/index.md"),
        ("01_hashing_basics.ipynb#ties", "notebooks/00_start_here.ipynb", "01_hashing_basics.ipynb#ties"),
        ("../README.md", "notebooks/README.md", "../index.md"),
        ("../../README.md#results", "data/results/README.md", "../../results.md"),
        ("../notebooks/README.md", "docs/index.md", "notebooks/README.md"),
        ("explorer.md", "docs/index.md", "explorer.md"),
        ("data/results/table1-fashion-mnist.json", "README.md", "data/results/table1-fashion-mnist.json"),
    ])
    def test_link(self, tmp_path: Path, link: str, source: str, page: str):
        assert self.pages(tmp_path).link(link, source) == page

    @pytest.mark.parametrize("link", ["../pplkit/no_such_file.py", "../../outside.md"])
    def test_a_link_to_nothing_stops_the_build(self, tmp_path: Path, link: str):
        with pytest.raises(FileNotFoundError, match=re.escape(link)):
            self.pages(tmp_path).link(link, "notebooks/00_start_here.ipynb")

    def test_an_interrupted_build_leaves_the_earlier_site(self, tmp_path: Path, monkeypatch):
        def stop(*arguments: object, **options: object) -> None:
            raise KeyboardInterrupt

        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "searchindex.js").write_text("the earlier one")
        monkeypatch.setattr(build_site.site_frames, "write", lambda folder, setting: None)
        monkeypatch.setattr(build_site.site_pages, "stage", lambda *_: None)
        monkeypatch.setattr(build_site.subprocess, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            build_site.build(tmp_path / "site", tmp_path / "sources")
        assert (tmp_path / "site" / "searchindex.js").read_text() == "the earlier one"

    def test_markdown(self):
        assert site_pages.tidy("[![Open](https://x.example/b.svg)](https://y.example)") == "[Open](https://y.example)"
        fold = site_pages.tidy("<details><summary>Hint</summary>$a < b$ and `x < y`</details>")
        assert r'\(a &lt; b\)</span>' in fold and "<code>x &lt; y</code>" in fold
        inside = "<details><summary>Hint</summary>\n\n$a$ `x`\n</details>"
        assert site_pages.tidy(inside) == inside

    def test_widgets_become_notes(self):
        asked = nbformat.v4.new_output("execute_result", {"text/plain": "How < many?\n  - one\n  - two\nAnswer here, or by "
                                                          "assignment: guess.value = 'one'\n(no prediction yet)"})
        box = nbformat.v4.new_output("execute_result", {"text/plain": "VBox(children=(FloatSlider(value=0.3),))"})
        number = nbformat.v4.new_output("execute_result", {"text/plain": "0.3"})
        (question,), (controls,), same = (site_pages.still(output, "../") for output in (asked, box, number))
        assert "<p>How &lt; many?</p><ul><li>one</li><li>two</li></ul>" in question.data["text/html"]
        assert "running notebook" in controls.data["text/html"] and same == [number]


class TestFrames:
    def test_packing_loses_nothing(self):
        pictures = ["<svg><g>a > < b</g><g/></svg>", "<svg><g>c</g><g/></svg>", ""]
        packed = site_frames.pack(pictures)
        assert [site_frames.unpack(packed, number) for number in range(3)] == pictures
        assert len(packed["pieces"]) == len(set(packed["pieces"]))

    def test_pictures_show_what_the_package_computes(self, site: Path):
        """One ε of one query, with the package's own functions instead of the sweep."""
        random = data.torch.Generator().manual_seed(0)
        split = data.load("fashion-mnist-mini")
        query = split.query.subset(data.torch.randperm(1000, generator=random)[:60])
        database = split.database.subset(data.torch.randperm(10_000, generator=random)[:300])
        generator, victim = pretrained.generator(), pretrained.victim("dsdh")
        (name, packed), = frames(site, "dsdh-*[0-9].js")[:1]
        number = int(name.split("-")[1])
        svg = site_frames.unpack(packed, 2)  # ε = 0.3
        assert 'data-epsilon="0.300"' in svg and f'data-query="{number}"' in svg and 'data-state="exact"' in svg

        def protect(images):
            return budget.protect(images, generator, 0.3)

        small = data.RetrievalSplit(split.name, split.classes, database, query, database,
                                    data.torch.arange(len(database)), split.manifest)
        found = evaluate_scenarios(victim, small, protect)
        shown = re.findall(r">mAP (0\.\d\d)<", svg)
        assert shown == [f"{found[scenario].expected:.2f}" for scenario in SCENARIOS]
        one = query.subset(data.torch.tensor([number]))
        top, _ = retrieval.top_k(victim.encode(protect(one.images)), victim.encode(database.images), 10)
        right = int((database.labels[top[0]] == one.labels).sum())
        assert f"A-&gt;C {right}" in svg or f"A->C {right}" in svg

    def test_all_pictures_are_there(self, site: Path):
        page = text_of(site / "explorer.html")
        labels = json.loads(html.unescape(re.search(r'data-labels="([^"]*)"', page)[1]))
        assert labels[2] == "0.300 (77/255)"
        for method in site_frames.METHODS:
            for _, packed in frames(site, f"{method}-*[0-9].js"):
                assert len(packed["pictures"]) == len(labels)
            (_, curve), = frames(site, f"{method}-curve.js")
            assert len(curve["pictures"]) == len(labels) * (1 + len(SHAPES))
        assert len(frames(site, "*-*[0-9].js")) == 6


def frames(site: Path, pattern: str) -> list[tuple[str, dict]]:
    """(name, content) of the frame files."""
    found = []
    for path in sorted((site / "_static" / "epsilon").glob(pattern)):
        match = re.fullmatch(r'pplFrames\("([^"]+)",(.*)\);\n', text_of(path), re.DOTALL)
        found.append((match[1], json.loads(match[2])))
    return found


def test_publishing_builds_what_a_user_builds():
    steps = yaml.safe_load(text_of(rules.ROOT / ".github/workflows/pages.yml"))["jobs"]["publish"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["make site"]
    assert any(step.get("with", {}).get("path") == "build/site" for step in steps)


class TestMissingBrowser:
    """What the browser tests do on a machine without Chromium."""

    @pytest.mark.parametrize(("setting", "outcome"), [("true", "failed"), ("", "skipped")])
    def test_skipped_with_a_reason_but_required_in_continuous_integration(self, tmp_path, monkeypatch, setting, outcome):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setenv("CI", setting)
        monkeypatch.delenv("PPLKIT_CHROMIUM", raising=False)
        assert browsing.find_chromium() is None and browsing.required() == (setting == "true")
        with pytest.raises((pytest.fail.Exception, pytest.skip.Exception), match="apt-get install chromium") as caught:
            browsing.refuse()
        assert caught.typename.lower().startswith(outcome[:4])
