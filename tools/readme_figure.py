"""Draw the README's figure, data/results/readme.png, from the shipped generator and the stored Table 1."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from pplkit import budget, data, plots, pretrained
from pplkit.experiments import table1
from pplkit.paper import TRAIN_DOMAINS

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Four clean images above their protected versions; the four scenarios of 16-bit ADSH, ours and the paper's."""
    plots.use_style()
    split = data.load("fashion-mnist-mini")
    chosen = torch.tensor([int((split.query.labels == label).nonzero()[3]) for label in (0, 5, 8, 9)])
    clean = split.query.images[chosen]
    protected = budget.protect(clean, pretrained.generator("several"), 0.3)
    stored = json.loads((ROOT / "data" / "results" / "table1-fashion-mnist.json").read_text())
    rows = table1.compared(stored["cells"])

    figure = plt.figure(figsize=(11, 3.2))
    left, *right = figure.subfigures(1, 3, width_ratios=(1.2, 1, 1))
    for ax, image in zip(left.subplots(2, 4).flat, torch.cat([clean, protected]), strict=True):
        ax.imshow(image[0], cmap="gray", vmin=0, vmax=255)
        ax.set_axis_off()
    left.suptitle("clean (top), protected (bottom)", fontsize=12)
    for part, domain in zip(right, TRAIN_DOMAINS, strict=True):
        cells = {row["task"]: row for row in rows if (row["method"], row["train"], row["bits"]) == ("adsh", domain, 16)}
        searcher = "clean" if domain == "clean" else "protected"
        ax = plots.scenario_bars({task: row["mAP"] for task, row in cells.items()},
                                 {task: row["paper"] for task, row in cells.items()},
                                 {task: (row["low"], row["high"]) for task, row in cells.items()},
                                 ax=part.subplots(), title=f"trained on {searcher} images")
    figure.savefig(ROOT / "data" / "results" / "readme.png", dpi=110)


if __name__ == "__main__":
    main()
