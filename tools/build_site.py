"""Build the course as a static site (`make site`): build/site/index.html opens from the file system, without a network.

The pages are the stored, executed notebooks; nothing is executed again. Only the pictures of the ε slider are computed,
from the trained networks that come with the project.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

import notebook_rules as rules
import site_frames
import site_links
import site_pages

BUILD = rules.ROOT / "build"
MAX_BYTES = 40_000_000


def build(target: Path, sources: Path, setting: site_frames.Setting | None = None) -> list[str]:
    """Build the site; what is wrong with it, empty when all is well. An earlier site in the same folder is replaced.

    Args:
        target: folder of the site.
        sources: folder for Sphinx' sources and its memory, kept to make the next build faster.
        setting: what the slider's pictures are computed from; the default unless a test wants less.
    """
    if target.is_dir() and any(target.iterdir()) and not (target / "searchindex.js").is_file():
        return [f"{target} is not empty and holds no site: choose another folder"]
    frames = sources / "frames"
    shutil.rmtree(frames, ignore_errors=True)
    slider = site_frames.write(frames, setting or site_frames.Setting())
    try:
        site_pages.stage(rules.ROOT, sources / "pages", rules.course_notebooks(), slider)
    except (FileNotFoundError, ValueError) as error:
        return [str(error)]
    fresh = target.with_name(f".{target.name}.new")  # the earlier site stays until this one is whole
    shutil.rmtree(fresh, ignore_errors=True)
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "--fail-on-warning", "--keep-going", "--conf-dir",
               str(rules.ROOT / "docs"), "--doctree-dir", str(sources / "doctrees"), str(sources / "pages"), str(fresh)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return [line for line in done.stderr.splitlines() if line.strip()]
    shutil.copytree(frames, fresh / "_static" / "epsilon")
    (fresh / ".nojekyll").touch()  # GitHub Pages would drop folders that begin with an underscore
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    found = site_links.problems(target)
    if size(target) > MAX_BYTES:
        found.append(f"the site has {size(target):,} bytes, at most {MAX_BYTES:,} are allowed")
    return found


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit status 0 when the site is whole, 1 when something is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=BUILD / "site", help="folder of the site; its content is replaced")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    problems = build(options.output.resolve(), BUILD / "site-sources")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    pages = len(list(options.output.rglob("*.html")))
    print(f"{pages} pages, {size(options.output) / 1e6:.1f} MB, {time.perf_counter() - start:.0f} s\n"
          f"Open {options.output / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
