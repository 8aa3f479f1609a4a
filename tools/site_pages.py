"""The pages of the course's site, written as sources for Sphinx: `stage` (part of `make site`, see build_site.py).

The stored, executed notebooks become pages as they are; only what would mislead without a kernel is replaced: a
prediction's widget by its question, a control by a note that says where it is alive. Every file that a page links to
gets a page (text) or a copy (data) at the same place, so that links work as in the repository.
"""

from __future__ import annotations

import ast
import html
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import course_guide
import nbformat
import notebook_rules as rules
import student_edition as editions
from nbformat import NotebookNode

ORPHAN = "---\norphan: true\n---\n\n"  # reached by links, not listed at the side
TEXT_PAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".cfg": "ini"}  # suffix -> language; shown as a page
HIDE = "hide-input"
WITH_SLIDER = "10_epsilon_slider"  # the notebook whose explorer works on the site, with stored pictures
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s]+)(\))")
_BADGE = re.compile(r"\[!\[([^\]]+)\]\([^)]*\)\]\(([^)]*)\)")
_DETAILS = re.compile(r"<details>.*?</details>", re.DOTALL)
_MARK = re.compile(r"<!-- ### (?:BEGIN|END) SOLUTION -->\n?")
_ASKED = "Answer here, or by assignment: "
_WIDGET = re.compile(r"^(?:[HV]?Box|GridBox|Tab|Accordion|\w*(?:Slider|Text|Button|Buttons|Dropdown|Select))\(")


@dataclass
class Pages:
    """Where the sources go, and which files of the repository have been linked to and await their page."""

    root: Path  # the repository
    folder: Path  # the sources of the site
    wanted: set[str] = field(default_factory=set)  # paths in the repository
    written: set[str] = field(default_factory=set)  # paths in the folder

    def write(self, name: str, text: str) -> None:
        """Write one source; one that has not changed keeps its time, so that Sphinx need not read it again."""
        target = self.folder / name
        self.written.add(name)
        if target.is_file() and target.read_text(encoding="utf-8") == text:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def link(self, target: str, source: str) -> str:
        """What a link of the file `source` becomes on the site.

        Args:
            target: as written there, relative to it, perhaps with an anchor.
            source: path of the file in the repository, "notebooks/00_start_here.ipynb".

        Raises:
            FileNotFoundError: it leads nowhere.
        """
        path, _, anchor = target.partition("#")
        place = os.path.normpath(os.path.join(os.path.dirname(source), path)).replace(os.sep, "/")
        if not (self.root / place).exists() or place.startswith(".."):
            raise FileNotFoundError(f"{source} links to {target!r}, which is not in the repository")
        if (place, anchor) == ("README.md", "results"):  # the section has a page of its own
            place, anchor = "docs/results.md", ""
        self.wanted.add(place)
        folder = os.path.dirname(page_of(source, self.root)) or "."
        page = os.path.relpath(page_of(place, self.root), folder).replace(os.sep, "/")
        return page + ("#" + anchor if anchor else "")

    def relink(self, text: str, source: str) -> str:
        """Markdown with its links as they are on the site."""
        return _LINK.sub(lambda m: m[1] + self.link(m[2], source) + m[3], text)


def page_of(place: str, root: Path) -> str:
    """The source page (or copy) that shows a file or folder of the repository; both are paths from the root."""
    if place in ("README.md", "."):
        return "index.md"
    if place.startswith("docs/") and place.endswith(".md"):
        return place.removeprefix("docs/")
    if (root / place).is_dir():
        return f"{place}/index.md"
    return place + ".md" if Path(place).suffix in TEXT_PAGES or place == "Makefile" else place


def tidy(text: str) -> str:
    """Markdown of a cell with what Sphinx reads differently from JupyterLab made the same.

    Badges are pictures of another server and become words. A fold without blank lines is raw HTML: its mathematics and
    code are marked as HTML.
    """
    def fold(match: re.Match) -> str:
        if "\n\n" in match[0]:  # Markdown inside
            return match[0]
        inside = re.sub(r"`([^`]+)`", lambda m: f"<code>{html.escape(html.unescape(m[1]))}</code>", match[0])
        return re.sub(r"\$([^$]+)\$", lambda m: rf'<span class="math notranslate nohighlight">\({html.escape(m[1])}\)</span>',
                      inside)

    return _DETAILS.sub(fold, _BADGE.sub(r"[\1](\2)", _MARK.sub("", text)))


def note(title: str, body: str) -> NotebookNode:
    """An output that stands where the notebook shows a widget; body is HTML."""
    content = f'<div class="ppl-note"><p><strong>{html.escape(title)}</strong></p>{body}</div>'
    return nbformat.v4.new_output("display_data", {"text/html": content})


def asked(text: str) -> NotebookNode:
    """The question of a `pplkit.widgets.Predict` for a reader who cannot answer it here."""
    question, *lines = text.split(_ASKED)[0].strip().splitlines()
    choices = "".join(f"<li>{html.escape(line.strip().removeprefix('- '))}</li>" for line in lines)
    body = f"<p>{html.escape(question)}</p>" + (f"<ul>{choices}</ul>" if choices else "")
    return note("Predict before you read on", body + "<p><small>In the running notebook you answer here, and your answer is "
                "compared with the result.</small></p>")


def still(output: NotebookNode, depth: str, slider: str = "") -> list[NotebookNode]:
    """A stored output as the site shows it: live controls replaced, all else as it is.

    Args:
        output: the stored output.
        depth: "../" for every folder between the page and the site's root.
        slider: HTML of the site's slider, to stand where the notebook shows its explorer; "" for a still picture there.
    """
    text = output.get("data", {}).get("text/plain", "")
    if _ASKED in text:
        return [asked(text)]
    if {"image/png", "image/svg+xml"} & set(output.get("data", {})) and text.startswith("ε = "):
        if slider:
            return [nbformat.v4.new_output("display_data", {"text/html": slider + script_tag(depth)})]
        where = f'<p>The controls need a running notebook. On this site <a href="{depth}explorer.html">the ε explorer</a> ' \
                "moves without one. The picture shows: " + html.escape(text) + "</p>"
        return [note("A still picture", where), output]
    if _WIDGET.match(text):
        return [note("Controls that need a running notebook", "<p>Start it with <code>make lab</code>. The text around says "
                     "what they do, and shows results that were computed with them.</p>")]
    return [output]


def script_tag(depth: str) -> str:
    """HTML that loads the slider's script."""
    return f'<script src="{depth}_static/epsilon.js"></script>'


def alternative(cells: list[NotebookNode], number: int) -> str:
    """Words for the pictures of a cell: the heading it stands under; the text behind it says what they show."""
    for cell in reversed(cells[:number]):
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
            if headings:
                return f"Figure of section “{re.sub(r'[`*$]', '', headings[-1])}”; the text below says what it shows"
    return "Figure; the text below says what it shows"


def notebook_page(notebook: NotebookNode, source: str, pages: Pages, slider: str = "") -> NotebookNode:
    """A stored notebook as a page of the site, with the slider in place of its first explorer; it is changed and returned."""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = pages.relink(tidy(cell.source), source)
            continue
        if cell.cell_type != "code":
            continue
        shown = {}
        if editions.is_solution(cell):
            shown = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}
        if shown or cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), HIDE]
        if any(key.startswith("image/") for output in cell.outputs for key in output.get("data", {})):
            shown["image"] = {"alt": alternative(notebook.cells, number)}
        if shown:
            cell.metadata["mystnb"] = shown
        before, cell.outputs = cell.outputs, []
        for output in before:
            cell.outputs += still(output, "../" * source.count("/"), slider)
            if slider and any(slider in kept.get("data", {}).get("text/html", "") for kept in cell.outputs):
                slider = ""  # one on a page: its controls have names
    return notebook


def text_page(place: str, root: Path) -> str:
    """A page that shows a text file of the repository."""
    path = root / place
    text = path.read_text(encoding="utf-8").rstrip("\n")
    language = TEXT_PAGES.get(path.suffix, "make")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{ORPHAN}# {place}\n\n{fence}{language}\n{text}\n{fence}\n"


def first_line(path: Path) -> str:
    """First line of a Python file's docstring, as Markdown text."""
    line = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return re.sub(r"([$*_<\[\]|])", r"\\\1", line)


def folder_page(place: str, pages: Pages) -> str:
    """A page that lists a folder: Python files with their first line, other files with their size."""
    rows = ["| File | What |", "|---|---|"]
    for path in sorted((pages.root / place).iterdir()):
        name = path.relative_to(pages.root).as_posix()
        if path.name.startswith((".", "__pycache__")) or (path.is_dir() and not any(path.glob("*.*"))):
            continue
        what = "folder" if path.is_dir() else f"{path.stat().st_size:,} bytes"
        if path.suffix == ".py":
            what = first_line(path)
        pages.wanted.add(name)
        page = os.path.relpath(page_of(name, pages.root), place).replace(os.sep, "/")
        rows.append(f"| [`{path.name}`]({page}) | {what} |")
    title = "The code: pplkit/" if place == "pplkit" else f"{place}/"
    return f"{ORPHAN}# {title}\n\n" + "\n".join(rows) + "\n"


def write_wanted(pages: Pages) -> None:
    """Write a page or a copy of every file that is linked to, and of those that these link to."""
    done: set[str] = {"README.md", "."}
    while pages.wanted - done:
        place = min(pages.wanted - done)
        done.add(place)
        page = page_of(place, pages.root)
        if page in pages.written:
            continue
        path = pages.root / place
        if path.is_dir():
            pages.write(page, folder_page(place, pages))
        elif path.suffix == ".md":
            pages.write(page, ORPHAN + pages.relink(path.read_text(encoding="utf-8"), place))
        elif page != place:
            pages.write(page, text_page(place, pages.root))
        else:
            pages.written.add(page)
            (pages.folder / page).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, pages.folder / page)


def section(text: str, heading: str) -> str:
    """The part of a Markdown text under a heading of the second level."""
    match = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"README.md has no section '## {heading}', which the site shows")
    return match[1].strip()


def stage(root: Path, folder: Path, notebooks: list[Path], slider: str) -> Pages:
    """Write the sources of the site.

    Args:
        root: the repository; its docs/ has the hand-written pages.
        folder: where the sources go; files of an earlier call that are no longer needed are removed.
        notebooks: the stored notebooks that become pages.
        slider: HTML of the ε slider.

    Raises:
        FileNotFoundError: a link leads nowhere.
    """
    pages = Pages(root, folder)
    readme = (root / "README.md").read_text(encoding="utf-8")
    entries = [course_guide.read_entry(path) for path in notebooks]
    parts: dict[str, Callable[[], str]] = {
        "course map": lambda: course_guide.short_map(entries).replace("](", "](../notebooks/"),
        "notebooks": lambda: "\n".join(f"notebooks/{entry.stem}" for entry in entries),
        "slider": lambda: f"{slider}\n{script_tag('')}",
        "results": lambda: _LINK.sub(r"\1../\2\3", section(readme, "Results")),
    }
    for path in sorted((root / "docs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for name, part in parts.items():
            if f"<!-- {name} -->" in text:
                text = text.replace(f"<!-- {name} -->", part())
        pages.write(path.name, pages.relink(text, f"docs/{path.name}"))
    for path in notebooks:
        source = path.relative_to(root).as_posix()
        shown = slider if path.stem == WITH_SLIDER else ""
        pages.write(source, nbformat.writes(notebook_page(rules.read(path), source, pages, shown)))
    pages.wanted |= {"notebooks/README.md", "pplkit"}
    write_wanted(pages)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in pages.written:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    return pages
