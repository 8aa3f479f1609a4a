"""How long the ε explorer takes from a move to the new picture, in the kernel.

    python -m tests.benchmarks.bench_explorer [--output FILE]

200 moves over the whole slider, on the images that notebook 10 uses: once while the background thread still computes the curve,
once after it. A move ends when the new picture has been handed to the front end. What the browser adds is measured by
`tests.benchmarks.bench_explorer_browser`.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

from pplkit import data, pretrained
from pplkit.explorer import EpsilonExplorer
from pplkit.storage import provenance, save_json

OUTPUT = Path(__file__).parents[2] / "data" / "results" / "benchmark-explorer.json"
QUERIES, DATABASE = 500, 2_000
MOVES = 200


def moves(explorer: EpsilonExplorer, pause: float) -> dict[str, float]:
    """Milliseconds per move: median, 95th percentile, worst."""
    spent = []
    for move in range(MOVES):
        target = round(0.02 * (17 * (move + 1) % 51), 2)
        start = time.perf_counter()
        explorer.slider.value = target
        spent.append(1000 * (time.perf_counter() - start))
        assert f'data-epsilon="{target:.3f}"' in explorer.picture.value
        time.sleep(pause)
    return {"p50_ms": round(statistics.median(spent), 1), "p95_ms": round(statistics.quantiles(spent, n=20)[-1], 1),
            "worst_ms": round(max(spent), 1)}


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    split = data.load("fashion-mnist-mini")
    start = time.perf_counter()
    explorer = EpsilonExplorer(pretrained.victims(), pretrained.generator(), split, queries=QUERIES, database_size=DATABASE,
                               ask=False)
    opened = time.perf_counter() - start
    computing = moves(explorer, pause=0.02)
    points = explorer.progress.value
    explorer.wait()
    curve = time.perf_counter() - start
    after = moves(explorer, pause=0.0)
    explorer.close()
    result = {**provenance("cpu"), "load_average": os.getloadavg()[0], "queries": QUERIES, "database": DATABASE, "moves": MOVES,
              "while_computing": computing, "after": after, "open_s": round(opened, 2), "curve_complete_s": round(curve, 1),
              "curve_points_when_the_first_moves_ended": points}
    print(f"while computing: {computing}\nafter: {after}\nopen {opened:.2f} s, curve complete after {curve:.1f} s")
    save_json(output, result)


if __name__ == "__main__":
    main()
