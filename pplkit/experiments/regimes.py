"""Which way to play the game? Regimes compared on validation queries, never on the test queries.

    python -m pplkit.experiments.regimes --seeds 0

One generator per regime and seed; 16-bit ADSH and DSDH victims (short training), clean-trained and trained on protected images;
mAP of the four scenarios with network codes, 1,000 validation queries drawn from the training set. Writes
`data/results/regimes-DATASET.json`, the log of what was tried and what it gave. A regime's "seconds" include the clean-trained
victims where it was the first of its seed.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm.auto import tqdm

from pplkit.config import REFERENCE, SCATTER, SHORTCUT, PPLConfig
from pplkit.data import RetrievalSplit, load
from pplkit.experiments.common import command, fit_victim, once, parse, parser, slug, summary
from pplkit.hashing import ADSH, DSDH, Victim
from pplkit.paper import TRAIN_DOMAINS, in_domain
from pplkit.scenarios import evaluate_scenarios, protect_split
from pplkit.splits import make_split
from pplkit.storage import save_json
from pplkit.training import train_ppl

REGIMES: dict[str, dict] = {
    "slow surrogate": {"surrogate_learning_rate": 1e-5},
    "fast surrogate": {"generator_learning_rate": 1e-4, "surrogate_learning_rate": 1e-3, "steps": 3000},
    "frozen surrogate": {"surrogate_learning_rate": 0.0},
    "frozen, affinity 0": {"surrogate_learning_rate": 0.0, "affinity": 0.0},
    "frozen, affinity 0.3": {"surrogate_learning_rate": 0.0, "affinity": 0.3},
    "frozen, 4 surrogates": {"surrogate_learning_rate": 0.0, "code_lengths": (8, 8, 8, 8)},
    "frozen, 4 surrogates, affinity 0.3": {"surrogate_learning_rate": 0.0, "code_lengths": (8, 8, 8, 8), "affinity": 0.3},
    "refresh 400, 2 surrogates": {"surrogate_learning_rate": 1e-5, "code_lengths": (8, 8), "refresh_every": 400, "steps": 1200},
    "refresh 400, 4 surrogates": {"surrogate_learning_rate": 1e-5, "code_lengths": (8, 8, 8, 8), "refresh_every": 400},
    "refresh 400 at 3e-5, 4 surrogates": {"surrogate_learning_rate": 3e-5, "code_lengths": (8, 8, 8, 8),
                                          "refresh_every": 400},
    "refresh 400 at 6e-5, 4 surrogates": {"surrogate_learning_rate": 6e-5, "code_lengths": (8, 8, 8, 8),
                                          "refresh_every": 400},
    "refresh 400 at 1e-4, 4 surrogates": {"surrogate_learning_rate": 1e-4, "code_lengths": (8, 8, 8, 8),
                                          "refresh_every": 400},
    "reference, cosine": REFERENCE | {"generator_schedule": "cosine"},
    "scatter": REFERENCE | SCATTER,
    "scatter, 800 steps": REFERENCE | SCATTER | {"steps": 800},
    "scatter, constant rate": REFERENCE | SCATTER | {"generator_schedule": None},
    "scatter, no restarts": REFERENCE | SCATTER | {"restart_every": None},
    "scatter, affinity 1": REFERENCE | SCATTER | {"generator_affinity": (1.0,) * 4 + (20.0,) * 2},
    "scatter, learners 40": REFERENCE | SCATTER | {"generator_affinity": (-5.0,) * 4 + (40.0,) * 2},
    "shortcut": REFERENCE | SCATTER | SHORTCUT,  # these three with 5×5 kernels; our table of it has 3×3
    "shortcut, restart 100": REFERENCE | SCATTER | SHORTCUT | {"restart_every": (0,) * 4 + (100,) * 2},
    "shortcut, learners not reversed": REFERENCE | SCATTER | SHORTCUT | {"reverse_scale": (1.0,) * 4 + (0.0,) * 2},
    "slow, domain 0": {"surrogate_learning_rate": 1e-5, "alpha": 0.0},
    "frozen and 1e-4": {"surrogate_learning_rate": (0.0, 1e-4), "code_lengths": (8, 8)},
    "slow 3e-6, 2 surrogates": {"surrogate_learning_rate": 3e-6, "code_lengths": (8, 8)},
    "slow 3e-6, 4 surrogates": {"surrogate_learning_rate": 3e-6, "code_lengths": (8, 8, 8, 8)},
    # every term left out in turn, with the settings of a short game (the defaults of PPLConfig)
    "ablation: complete": {},
    "ablation: without affinity": {"affinity": 0.0},
    "ablation: without domain": {"alpha": 0.0},
    "ablation: without similarity": {"beta": 0.0},
    "ablation: without matching": {"gamma": 0.0},
    "slow, 4 surrogates, clean 1, 1600 steps": {"code_lengths": (8, 8, 8, 8), "clean": 1.0, "steps": 1600},
}


def _victims(seed: int, fast: bool, device: str) -> list[Victim]:
    rounds = {"outer_epochs": 2, "inner_epochs": 1} if fast else {"outer_epochs": 20, "inner_epochs": 2}
    return [ADSH(16, seed=seed, device=device, **rounds), DSDH(16, seed=seed, device=device, epochs=1 if fast else 8)]


def _clean_victims(seed: int, split: RetrievalSplit, fast: bool, device: str) -> list[Victim]:
    return [fit_victim(victim, split, split.train, progress=False) for victim in _victims(seed, fast, device)]


def _short(split: RetrievalSplit, size: int = 20000) -> RetrievalSplit:
    """The split with the training images and the head of the database only: enough to compare regimes."""
    keep = torch.unique(torch.cat([split.train_index, torch.arange(min(size, len(split.database)))]))  # (n,)
    position = torch.searchsorted(keep, split.train_index)  # (N,)
    return make_split(f"{split.name}/short", split.classes, split.manifest["seed"], database=split.database.subset(keep),
                      query=split.query, train_index=position, database_index=split.database_index[keep],
                      query_index=split.query_index, source=split.manifest)


def evaluate(name: str, seed: int, split: RetrievalSplit, clean: Callable[[], list[Victim]], work: Path, fast: bool,
             epsilon: float, device: str) -> dict:
    """Train the regime's generator and the victims of its images; measure these and the clean-trained ones, `clean()`."""
    changes = REGIMES[name] | ({"warmup_steps": 5, "steps": 5} if fast else {})
    config = PPLConfig(seed=seed, epsilon=epsilon, **changes)

    def measure() -> dict:
        run = train_ppl(split.train, config, device=device, progress=False)
        twin = protect_split(split, run.protect)
        adversarial = [fit_victim(victim, split, twin.train, progress=False) for victim in _victims(seed, fast, device)]
        rows = {f"{domain} {type(victim).__name__}": summary(evaluate_scenarios(victim, split, twin, train_domain=domain))
                for domain, victims in zip(TRAIN_DOMAINS, (clean(), adversarial), strict=True) for victim in victims}
        return {"rows": rows, "collapsed": run.collapsed}

    step = re.sub(r"[^a-z0-9.]+", "_", f"{split.name} {name}".lower())
    return once(work / "regimes" / f"{step}-{epsilon}-{seed}.json", measure,
                {"config": dataclasses.asdict(config), "split": split.manifest,
                 "victims": [victim.settings() for victim in _victims(seed, fast, device)]}, device)


def score(row: dict) -> dict[str, float]:
    """Mean cross-domain and mean in-domain mAP over both victims and train domains (lower and higher is better)."""
    cells = [(in_domain(key.split()[0], scenario), value["mAP"])
             for key, scenarios in row["rows"].items() for scenario, value in scenarios.items()]
    within, across = ([value for inside, value in cells if inside is which] for which in (True, False))
    return {"cross_domain": round(sum(across) / len(across), 4), "in_domain": round(sum(within) / len(within), 4)}


def main(arguments: list[str] | None = None) -> None:
    """Compare the regimes asked for and add them to the log."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--only", nargs="+", choices=list(REGIMES), help="regimes to run (default: all)")
    options.add_argument("--epsilon", type=float, default=0.3)
    asked = parse(options, arguments)
    log = []
    for seed in asked.seeds:
        split = _short(load(asked.dataset, asked.root, seed=seed).validation(6 if asked.fast else 1000, seed))
        clean = functools.cache(functools.partial(_clean_victims, seed, split, asked.fast, asked.device))
        for name in tqdm(asked.only or list(REGIMES), desc=f"regimes, seed {seed}"):
            row = evaluate(name, seed, split, clean, asked.work, asked.fast, asked.epsilon, asked.device)
            entry = {"regime": name, "seed": seed, "epsilon": asked.epsilon, **score(row), **row}
            log.append(entry)
            tqdm.write(f"{name:36s} seed {seed}  " + "  ".join(f"{k} {v:.3f}" for k, v in score(row).items()))
            tqdm.write(json.dumps({k: {s: round(v["mAP"], 3) for s, v in r.items()} for k, r in row["rows"].items()}))
    path = asked.out / f"regimes-{slug(asked.dataset)}{'-fast' if asked.fast else ''}.json"
    known = json.loads(path.read_text()) if path.exists() else []
    fresh = {(e["regime"], e["seed"], e["epsilon"]) for e in log}
    save_json(path, [e for e in known if (e["regime"], e["seed"], e["epsilon"]) not in fresh] + log)


if __name__ == "__main__":
    command(main)
