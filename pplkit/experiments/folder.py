"""The four scenarios on a folder of your own: class folders of images, victims trained on them, mAP with intervals."""

import dataclasses
import warnings
from pathlib import Path

from pplkit import budget, photos, sources
from pplkit.data import RetrievalSplit, load
from pplkit.experiments.common import check_pretraining, check_queries, fit_victim, make_victim, summary
from pplkit.generator import PerturbationGenerator
from pplkit.hashing import CollapseWarning
from pplkit.paper import METHODS, TRAIN_DOMAINS, in_domain
from pplkit.scenarios import evaluate_scenarios, protect_split
from pplkit.storage import provenance


def published_twin(split: RetrievalSplit, folder: Path, protected: Path, **options: object) -> RetrievalSplit:
    """The split of images that were protected at their own size (`pplkit protect`), shrunk afterwards as a searcher does.

    Args:
        split: of the clean `folder`.
        folder, protected: class folders with the same files, but for their suffix.
        options: those that `split` was loaded with.

    Raises:
        ValueError: the folders do not hold the same images.
    """
    names = []
    for path in (folder, protected):
        files = sources.list_folder(path)[1]
        names.append([file.relative_to(path).with_suffix("").as_posix() for file in files])
    if names[0] != names[1]:
        differing = sorted(set(names[0]) ^ set(names[1])) or ["(another order)"]
        raise ValueError(f"{protected} is not the protected copy of {folder}: {len(differing)} names differ, "
                         f"the first is {differing[0]!r}")
    twin = load(f"folder:{protected}", seed=split.manifest["seed"], **options)
    return dataclasses.replace(twin, manifest={**twin.manifest, "protected": True})


def check_generator(generator: PerturbationGenerator, split: RetrievalSplit) -> None:
    """ValueError if the generator was trained on these very files with other queries left out: it would know some of them. A
    warning if it was trained on other files of a folder of this name.
    """
    trained = generator.metadata.get("split")
    if trained and trained["source"].get("files") == split.manifest["source"]["files"]:
        check_queries("the generator", trained, split, "evaluate with the seed and the shares that it was trained with")
    elif trained and trained["dataset"] == split.name:
        warnings.warn(f"the generator was trained on other files of {split.name}: if this is that folder, with pictures added, "
                      "removed or renamed since, it may have learned from some of the queries, and protects them too well",
                      stacklevel=3)


def evaluate_folder(folder: Path, generator: PerturbationGenerator | None, epsilon: float | None, norm: str = "inf", *,
                    protected: Path | None = None, methods: tuple[str, ...] = METHODS, bits: int = 16,
                    backbone: str = "two_conv", learning_rate: float | None = None,
                    batch_size: int = 128, seed: int = 0, device: str = "auto",
                    fast: bool = False, progress: bool = True, **options: object) -> dict:
    """Train each victim on clean and on protected images, and search in all four scenarios.

    Args:
        folder: class folders of images.
        generator, epsilon, norm: how the images, shrunk to `size`, are protected; not needed with `protected`.
        protected: the same images as published, see `published_twin`.
        methods, bits, backbone: of the victims.
        learning_rate: of the victims; None: their own, 1e-3. Images of 64 pixels want 2e-4.
        batch_size: images per step of the victims.
        seed: of the split and the victims.
        device: "auto", "cpu", "cuda".
        fast: a few training steps only; the figures mean nothing.
        progress: show progress bars.
        options: for `data.load`: size, channels, query_share, train_share, workers, cache.

    Returns:
        JSON-able: "split" (manifest), "victims" (settings), "rows" (network codes): {"adsh clean": {scenario: {"mAP", "low",
        "high", "worst", "best"}}}, "run".

    Raises:
        FileNotFoundError, ValueError: as `data.load`; neither generator nor protected images; a generator (if its
            file says its split) or a backbone that was trained with other queries left out; a bad learning rate or batch size.

    Warns:
        CollapseWarning: a victim's codes are all the same, or near 0; names the victim, says what to change.
        UserWarning: the generator was trained on other files of a folder of this name.
    """
    split = load(f"folder:{folder}", seed=seed, **options)
    check_pretraining([backbone], split)
    if protected is not None:
        twin = published_twin(split, folder, protected, **options)
    elif generator is not None and epsilon is not None:
        check_generator(generator, split)
        generator.eval()
        twin = protect_split(split, lambda images: budget.protect(
            images, lambda x: photos.channel_pattern(generator, x), epsilon, norm,
            device=next(generator.parameters()).device, cache=options.get("cache")))
    else:
        raise ValueError("give a generator and an epsilon, or the folder of protected images")
    rows, victims = {}, {}
    for method in methods:
        for domain, train in (("clean", split.train), ("adversarial", twin.train)):
            changes = {"batch_size": batch_size} | ({} if learning_rate is None else {"learning_rate": learning_rate})
            victim = dataclasses.replace(make_victim(method, bits, seed, device, fast, backbone), **changes)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", CollapseWarning)
                fit_victim(victim, split, train, progress)
            for warning in caught:  # again, with the name of the victim: there are two of each method
                warnings.warn(f"{method} trained on {domain} images: {warning.message}", warning.category, stacklevel=2)
            rows[f"{method} {domain}"] = summary(evaluate_scenarios(victim, split, twin, train_domain=domain))
            victims[method] = victim.settings()
    return {"split": split.manifest, "victims": victims, "codes": "network", "rows": rows, "run": provenance(device)}


def table(rows: dict[str, dict]) -> str:
    """One line per victim and scenario, with the 95 % interval; in-domain lines say so."""
    lines = ["victim  trained on   scenario  mAP    95 % interval"]
    for name, scenarios in rows.items():
        method, domain = name.split()
        for scenario in TRAIN_DOMAINS[domain]:
            value = scenarios[scenario]
            mark = "  in-domain" if in_domain(domain, scenario) else ""
            lines.append(f"{method:6s}  {domain:11s}  {scenario}      {value['mAP']:.3f}  "
                         f"{value['low']:.3f}-{value['high']:.3f}{mark}")
    return "\n".join(lines)
