"""What the READMEs and notebook 00 say about the notebooks is what the notebooks say; badges only with an address."""

import re
from pathlib import Path

import course_guide as guide
import nbformat
import notebook_rules as rules
import pytest

TITLE = (
    "# 01 · Tiny\n\n**How?**\n\n| | |\n|---|---|\n| Time | about 45 minutes: 30 + 15 |\n"
    "| You need | 00 |\n| Code | x |"
)
OPEN = (
    "**Exercise 01.1** (difficulty ●●○, ~10 min). Why?\n<!-- ### BEGIN SOLUTION -->\n<details>\n\n"
    "**Marking** (5 points): reason 3 | example\n2.\n\n</details>\n<!-- ### END SOLUTION -->"
)
META = dict(
    grade=True, solution=True, locked=False, task=False, grade_id="01-why", points=5, schema_version=3
)
ADDRESS = "https://github.com/owner/name"


def tiny(title: str = TITLE, task: str = OPEN) -> nbformat.NotebookNode:
    new = nbformat.v4
    notebook = new.new_notebook(
        metadata={"kernelspec": rules.KERNELSPEC, "language_info": rules.LANGUAGE_INFO}
    )
    notebook.cells = [
        new.new_markdown_cell(title),
        new.new_code_cell("1 + 1"),
        new.new_markdown_cell(task, metadata={"nbgrader": META}),
        new.new_markdown_cell("<!-- begin course map -->\nold\n<!-- end course map -->"),
    ]
    return notebook


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one notebook, both READMEs and no address."""
    (tmp_path / "notebooks").mkdir()
    nbformat.write(tiny(), tmp_path / "notebooks" / "01_tiny.ipynb")
    (tmp_path / "README.md").write_text("<!-- begin course map -->\n<!-- end course map -->\n")
    (tmp_path / "notebooks" / "README.md").write_text(
        "<!-- begin course map -->\n<!-- end course map -->\n<!-- begin marking guide --><!-- end marking guide -->\n"
    )
    (tmp_path / "pyproject.toml").write_text('[tool.pplkit]\nrepository = ""\n')
    return tmp_path


def test_the_projects_guide_is_up_to_date():
    assert guide.update(write=False) == [], "run `python tools/course_guide.py`"


def test_entry(project: Path):
    entry = guide.read_entry(project / "notebooks" / "01_tiny.ipynb")
    assert (entry.title, entry.question, entry.minutes, entry.needs) == ("01 · Tiny", "How?", 45, "00")
    assert entry.marking == {"01.1": "(5 points): reason 3 | example 2."}


def test_everything_generated_arrives_once(project: Path):
    changed = guide.update(project)
    assert {path.name for path in changed} == {"README.md", "01_tiny.ipynb"} and len(changed) == 3
    assert "| [01 · Tiny](notebooks/01_tiny.ipynb) | How? | 45 |" in (project / "README.md").read_text()
    inside = (project / "notebooks" / "README.md").read_text()
    assert "| [01 · Tiny](01_tiny.ipynb) | How? | 45 | 00 | 1 (1) | 5 |" in inside
    assert r"| 01.1 | [01 · Tiny](01_tiny.ipynb) | 10 | 5 | (5 points): reason 3 \| example 2. |" in inside
    cell = rules.read(project / "notebooks" / "01_tiny.ipynb").cells[-1].source
    assert "| all | | 45 |" in cell and "old" not in cell
    assert guide.update(project) == []


def test_looking_changes_nothing(project: Path):
    assert len(guide.update(project, write=False)) == 3
    assert "45" not in (project / "README.md").read_text()


def test_no_badge_without_an_address_and_never_a_dead_link(project: Path):
    guide.update(project)
    path = project / "notebooks" / "01_tiny.ipynb"
    without = path.read_text()
    assert "badge" not in without and "colab" not in without.lower()
    (project / "pyproject.toml").write_text(f'[tool.pplkit]\nrepository = "{ADDRESS}"\n')
    guide.update(project)
    first, install, *_ = rules.read(path).cells
    assert re.findall(r"\]\((https://[^)]*ipynb)\)", first.source) == [
        "https://colab.research.google.com/github/owner/name/blob/main/notebooks/01_tiny.ipynb",
        "https://mybinder.org/v2/gh/owner/name/main?labpath=notebooks/01_tiny.ipynb",
    ]
    assert first.source.startswith("# 01 · Tiny\n\n<!-- begin badges -->")
    assert install.metadata.tags == ["install"] and f"git+{ADDRESS}" in install.source
    assert guide.update(project) == []
    (project / "pyproject.toml").write_text('[tool.pplkit]\nrepository = ""\n')
    guide.update(project)
    assert path.read_text() == without


@pytest.mark.parametrize("address", ["https://github.com/owner", "http://github.com/a/b", "owner/name"])
def test_an_address_that_badges_cannot_open_is_refused(address):
    with pytest.raises(ValueError, match="badges need https://github.com/OWNER/NAME"):
        guide.badges(address, "01_tiny")


@pytest.mark.parametrize("address", [ADDRESS, ADDRESS + "/", ADDRESS + ".git"])
def test_spellings_of_one_address(address):
    assert "/github/owner/name/blob/" in guide.badges(address, "01_tiny")


@pytest.mark.parametrize(
    ("title", "words"),
    [
        (TITLE.replace("# 01 ·", "# 02 ·"), "heading '# 01 · Title'"),
        (TITLE.replace("**How?**", "How?"), "a bold question"),
        (TITLE.replace("45 minutes", "an hour"), "Time"),
        (TITLE.replace("| You need |", "| Needs |"), "You need"),
    ],
)
def test_what_a_title_cell_lacks_is_named(title, words, tmp_path: Path):
    nbformat.write(tiny(title), tmp_path / "01_tiny.ipynb")
    with pytest.raises(ValueError, match="01_tiny: the first cell needs .*" + re.escape(words)):
        guide.read_entry(tmp_path / "01_tiny.ipynb")


def test_a_model_answer_without_marking_is_named(tmp_path: Path):
    nbformat.write(tiny(task=OPEN.replace("**Marking**", "Marking")), tmp_path / "01_tiny.ipynb")
    with pytest.raises(ValueError, match="model answer of 01.1 has no"):
        guide.read_entry(tmp_path / "01_tiny.ipynb")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- begin nonsense -->", "no part 'nonsense'; there are course map"),
        ("<!-- begin course map -->", "not followed by"),
    ],
)
def test_wrong_marks_are_named(text, words):
    with pytest.raises(ValueError, match=words):
        guide.fill(text, {"course map": lambda: "x"}, "README.md")


def test_every_notebook_is_in_a_lecture_and_in_the_six_weeks():
    text = (rules.NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    for heading in ("### Which notebook fits which lecture", "### A unit of six weeks"):
        section = re.split(r"^##", text.split(heading)[1], flags=re.MULTILINE)[0]
        named = set(re.findall(r"\b\d\d\b", section))
        for path in rules.course_notebooks():
            assert path.stem[:2] in named | ({"00"} if "lecture" in heading else set()), (heading, path.stem)


def test_numbers_of_the_guide_are_exercises():
    text = (rules.NOTEBOOKS / "README.md").read_text(encoding="utf-8")
    there = {e.number for path in rules.course_notebooks() for e in guide.read_entry(path).exercises}
    mentioned = set(re.findall(r"exercise (\d\d\.\d+)", text))
    assert mentioned <= there
