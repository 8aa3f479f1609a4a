"""The ε slider of the site: every picture that it can show, computed here, and the HTML of its controls.

The pictures are those of the live explorer (`pplkit.picture`), from the trained networks that come with the project. A file
per searcher and query holds all its ε; equal pieces of the pictures are stored once.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pplkit import data, picture, pretrained
from pplkit.budget import format_epsilon
from pplkit.explorer import QUESTION, SHAPES
from pplkit.sweep import EpsilonSweep, Patterns

EPSILONS = tuple(n / 50 for n in range(16)) + (0.35, 0.4, 0.5, 0.6, 0.8, 1.0)  # denser where codes break
START = 0.3  # what the generator was trained with
METHODS = {"adsh": "ADSH", "dsdh": "DSDH"}
TRAIN_DOMAIN = "clean"


@dataclass(frozen=True)
class Setting:
    """What the pictures are computed from; the page says so."""

    dataset: str = "fashion-mnist-mini"
    seed: int = 0
    queries: int = 500
    database: int = 2000
    epsilons: Sequence[float] = EPSILONS
    shown: int | None = None  # queries with pictures; None: one of each class


def pack(pictures: Sequence[str]) -> dict:
    """Pictures as lists of numbers of their pieces: {"pieces": [...], "pictures": [[...], ...]}.

    A picture is its pieces one after the other.
    """
    numbers: dict[str, int] = {}
    listed = []
    for svg in pictures:
        pieces = svg.replace("><", ">\0<").split("\0")
        listed.append([numbers.setdefault(piece, len(numbers)) for piece in pieces])
    return {"pieces": list(numbers), "pictures": listed}


def unpack(packed: dict, number: int) -> str:
    """One picture of `pack`, as the page's script puts it together."""
    return "".join(packed["pieces"][piece] for piece in packed["pictures"][number])


def script(name: str, content: object) -> str:
    """JavaScript that hands over data: browsers refuse to fetch JSON from the file system, but they run scripts."""
    return f"pplFrames({json.dumps(name)},{json.dumps(content, ensure_ascii=False, separators=(',', ':'))});\n"


def sweeps(setting: Setting) -> dict[str, EpsilonSweep]:
    """Method -> its sweep over the queries and the database of the setting."""
    split = data.load(setting.dataset, seed=setting.seed)
    random = torch.Generator().manual_seed(setting.seed)
    query = split.query.subset(torch.randperm(len(split.query), generator=random)[:setting.queries])
    database = split.database.subset(torch.randperm(len(split.database), generator=random)[:setting.database])
    patterns = Patterns(pretrained.generator(), query, database)
    return {method: EpsilonSweep(pretrained.victim(method, TRAIN_DOMAIN), patterns) for method in METHODS}


def write(folder: Path, setting: Setting) -> str:
    """Write the files of all pictures; the HTML of the slider that shows them.

    Args:
        folder: where the files go.
        setting: what they are computed from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classes = data.load(setting.dataset, seed=setting.seed).classes
    found = sweeps(setting)
    some = found["adsh"]
    labels, bits = some.query.labels, some.clean_query.shape[1]
    chosen = [int((labels == label).nonzero()[0, 0]) for label in range(len(classes))][:setting.shown]
    chance = float((labels[:, None] == some.database.labels).float().mean())
    for method, sweep in found.items():
        for epsilon in setting.epsilons:
            sweep.evaluate(epsilon)
        name = f"{METHODS[method]} {TRAIN_DOMAIN} {bits}"
        for query in chosen:
            views = [picture.view_svg(sweep.look(query, epsilon), classes=classes, victim=name) for epsilon in setting.epsilons]
            (folder / f"{method}-{query}.js").write_text(script(f"{method}-{query}", pack(views)), encoding="utf-8")
        curves = [picture.curve_svg(sweep.curve, epsilon, prediction=shape, chance=chance)
                  for shape in (None, *SHAPES.values()) for epsilon in setting.epsilons]
        (folder / f"{method}-curve.js").write_text(script(f"{method}-curve", pack(curves)), encoding="utf-8")
    return controls(setting, [(query, classes[int(labels[query])]) for query in chosen], bits)


def controls(setting: Setting, queries: list[tuple[int, str]], bits: int) -> str:
    """HTML of the slider. It is locked until the reader has predicted or skipped, as in the notebook."""
    labels = [format_epsilon(epsilon) for epsilon in setting.epsilons]
    start = list(setting.epsilons).index(START)
    answers = "".join(f'<label><input type="radio" name="ppl-shape" value="{number}"> {html.escape(name)}</label>'
                      for number, name in enumerate(SHAPES))
    options = "".join(f'<option value="{query}">{query}: {html.escape(name)}</option>' for query, name in queries)
    methods = "".join(f'<option value="{method}">{name}</option>' for method, name in METHODS.items())
    return f"""<div class="ppl-static" data-labels="{html.escape(json.dumps(labels))}">
<p class="ppl-precomputed">Computed when this site was built, and only shown here: {len(queries)} queries, {len(labels)} values
of ε, two searchers. Data: {setting.dataset}, {setting.queries} queries and {setting.database:,} database images, drawn with
seed {setting.seed}. The generator was trained at ε = {format_epsilon(START)}; the searchers ({" and ".join(METHODS.values())},
{bits} bits, seed 0) were trained on clean images. For any other ε, query or searcher run notebook 10.</p>
<noscript><p><strong>This slider needs JavaScript. Without it nothing is shown here.</strong></p></noscript>
<fieldset class="ppl-predict"><legend>First predict. {html.escape(QUESTION)}</legend>
{picture.shapes_svg(SHAPES)}
<div class="ppl-answers">{answers}</div>
<button type="button" class="ppl-take">Predict</button> <button type="button" class="ppl-skip">Skip</button>
</fieldset>
<div class="ppl-controls">
<label for="ppl-epsilon">ε</label>
<input type="range" id="ppl-epsilon" min="0" max="{len(labels) - 1}" step="1" value="{start}"
 aria-valuetext="{labels[start]}" disabled>
<output class="ppl-label" for="ppl-epsilon">{labels[start]}</output>
<label>Query <select class="ppl-query" disabled>{options}</select></label>
<button type="button" class="ppl-next" disabled>Next</button>
<label>Searcher <select class="ppl-method" disabled>{methods}</select></label>
</div>
<p class="ppl-message" role="status" aria-live="polite">Predict or skip: then the slider moves.</p>
<div class="ppl-pictures" hidden><div class="ppl-picture"></div><div class="ppl-curve"></div></div>
</div>"""
