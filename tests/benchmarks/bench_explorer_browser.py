"""How long the ε explorer takes from a key to the new picture on the screen, in JupyterLab in Chromium.

    python -m tests.benchmarks.bench_explorer_browser [--output FILE]

100 arrow keys while the background thread still computes the curve, 100 after it. The clock starts with the key in the browser
and stops after the frame in which the new picture was drawn: it counts browser, server, kernel and the way back. The images are
those of `tests.benchmarks.bench_explorer`, which measures the kernel alone.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import nbformat
from playwright.sync_api import Page, expect, sync_playwright

from pplkit.storage import provenance, save_json
from tests.benchmarks.bench_explorer import DATABASE, QUERIES

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests" / "browser")]

import notebook_rules as rules  # noqa: E402
from browsing import MISSING, find_chromium, watched  # noqa: E402
from live import SECONDS, Explorer, open_notebook, run_all, serving_jupyterlab  # noqa: E402

OUTPUT = ROOT / "data" / "results" / "benchmark-explorer-browser.json"
MOVES = 100
CELL = f"""from pplkit import data, pretrained, widgets
explorer = widgets.EpsilonExplorer(pretrained.victims(), pretrained.generator(), data.load("fashion-mnist-mini"),
                                   queries={QUERIES}, database_size={DATABASE}, ask=False)
explorer"""
CLOCK = """root => {
  const shown = () => root.querySelector(".ppl-picture svg").dataset.epsilon;
  let start = null, before = null;
  window.pplMoves = [];
  root.querySelector(".noUi-handle").addEventListener("keydown", () => { start = performance.now(); before = shown(); }, true);
  new MutationObserver(() => {
    if (start === null || shown() === before) return;
    const begun = start;
    start = null;
    requestAnimationFrame(() => setTimeout(() => window.pplMoves.push(performance.now() - begun)));
  }).observe(root, {childList: true, subtree: true});
}"""


def moves(page: Page, explorer: Explorer) -> dict[str, float]:
    """Milliseconds per move: median, 95th percentile, worst."""
    page.evaluate("window.pplMoves = []")
    explorer.handle.focus()
    for move in range(MOVES):
        page.keyboard.press("ArrowRight" if move % 50 < 25 else "ArrowLeft")
        page.wait_for_function(f"window.pplMoves.length === {move + 1}", timeout=20 * SECONDS, polling=5)
    spent = page.evaluate("window.pplMoves")
    return {"p50_ms": round(statistics.median(spent), 1), "p95_ms": round(statistics.quantiles(spent, n=20)[-1], 1),
            "worst_ms": round(max(spent), 1)}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    if find_chromium() is None:
        parser.error(MISSING)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata={"kernelspec": rules.KERNELSPEC})
        nbformat.write(notebook, folder / "bench.ipynb")
        chromium = playwright.chromium.launch(executable_path=find_chromium())
        with serving_jupyterlab(folder) as address, watched(chromium) as seen:
            open_notebook(seen.page, address, "bench.ipynb")
            run_all(seen.page)
            explorer = Explorer(seen.page)
            explorer.root.evaluate(CLOCK)
            computing = moves(seen.page, explorer)
            points = int(explorer.root.locator(".ppl-chart svg").get_attribute("data-points"))
            expect(explorer.root).to_contain_text("curve done", timeout=300 * SECONDS)
            after = moves(seen.page, explorer)
            version = chromium.version
        chromium.close()
    result = {**provenance("cpu"), "load_average": os.getloadavg()[0], "chromium": version, "queries": QUERIES,
              "database": DATABASE, "moves": MOVES,
              "while_computing": computing, "after": after, "curve_points_when_the_first_moves_ended": points}
    print(f"while computing: {computing} ({points} points of the curve known at the end)\nafter: {after}")
    save_json(output, result)


if __name__ == "__main__":
    main()
