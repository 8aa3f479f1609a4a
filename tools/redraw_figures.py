"""Draw the pictures of stored results again, after a change of the plotting code: no number changes, nothing is trained.

    python tools/redraw_figures.py              # all of data/results
    python tools/redraw_figures.py transfer     # those of one experiment

Pictures of images (`pairs`) are not among them: their results do not hold the pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pplkit import plots
from pplkit.experiments import epsilon, ratio, table1, transfer
from pplkit.experiments.common import save_figure

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"
EXPERIMENTS = {"epsilon": epsilon, "ratio": ratio, "table1": table1, "transfer": transfer}


def main(arguments: list[str] | None = None) -> None:
    """Redraw, and name what was drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(EXPERIMENTS)} (default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.experiments) - set(EXPERIMENTS)):
        parser.error(f"no experiment {', '.join(unknown)}: choose from {', '.join(EXPERIMENTS)}")
    plots.use_style()
    for name in asked.experiments or EXPERIMENTS:
        for path in sorted(asked.results.rglob(f"{name}-*.json")):
            if not path.with_suffix(".png").exists():  # some results have no picture of their own
                continue
            save_figure(path.with_suffix(".png"), EXPERIMENTS[name].figure(json.loads(path.read_text(encoding="utf-8"))))
            print(path.with_suffix(".png").relative_to(asked.results))


if __name__ == "__main__":
    main()
