"""Where an experiment's generator comes from: which game is played, where it is kept, or a file that it is taken from."""

import argparse
import dataclasses
import hashlib
import json
from pathlib import Path

import torch

from pplkit import device as devices
from pplkit.checkpoints import OtherCheckpoint
from pplkit.config import OF_SEVERAL_NETWORKS, REGIMES, PPLConfig
from pplkit.data import RetrievalSplit
from pplkit.experiments.common import given, home, label, setting
from pplkit.generator import PerturbationGenerator
from pplkit.training import PPLRun, train_ppl

USUAL = {"fashion-mnist": ("several", "two_conv_3x3")}  # data set -> game and network of its table; others: OTHERWISE
OTHERWISE = ("reference", "two_conv")


def usual(dataset: str) -> tuple[str, str]:
    """The game (of `REGIMES`) and the network that a data set's table is made with unless others are asked for."""
    return USUAL.get(dataset.removesuffix("-mini"), OTHERWISE)


def configuration(dataset: str, seed: int, epsilon: float | None = None, fast: bool = False,
                  backbone: str = "two_conv", regime: str = "reference", game: dict[str, object] | None = None) -> PPLConfig:
    """The generator's settings: `PPLConfig.reference` or another of `REGIMES`, with another ε and other fields if given.

    `backbone` is every surrogate's network unless `game` has a tuple of one each, or the regime does.
    """
    fields = [field.name for field in dataclasses.fields(PPLConfig) if field.name not in ("epsilon", "seed")]
    unknown = sorted(set(game or {}) - set(fields))
    if unknown:
        raise ValueError(f"the game cannot be given {', '.join(unknown)}: its fields are {', '.join(fields)} (epsilon and seed "
                         "are arguments of their own)")
    if isinstance((game or {}).get("backbone"), str):
        raise ValueError(f"the game's backbone must be one network per surrogate, got {game['backbone']!r}: --backbone names "
                         "one for surrogates and victims")
    changes = {} if regime in OF_SEVERAL_NETWORKS else {"backbone": backbone}
    changes |= dict(game or {}) | ({"warmup_steps": 10, "steps": 10} if fast else {})
    if epsilon is not None:
        changes["epsilon"] = epsilon
    return REGIMES[regime](dataset, seed=seed, **changes)


def game_title(regime: str, game: dict[str, object]) -> str:
    """What a result says of its game: "scatter, steps=900"."""
    shown = game | ({"backbone": list(map(label, game["backbone"]))} if "backbone" in game else {})  # without folders
    return ", ".join([regime, *(f"{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
                                for name, value in shown.items())])


def other_game(regime: str, game: dict[str, object]) -> str:
    """What a result that usually has the reference's game says of another one: ", scatter", or nothing."""
    return f", {game_title(regime, game)}" if game or regime != "reference" else ""


def game_suffix(regime: str, game: dict[str, object] | None = None) -> str:
    """Part of a file name: the regime if it is not the reference, and what `digest` says."""
    return ("" if regime == "reference" else f"-{regime}") + digest(game)


def digest(game: dict[str, object] | None) -> str:
    """Part of a file name: a digest of the fields that differ from the regime's, if any do."""
    return f"-game{hashlib.sha256(repr(sorted(game.items())).encode()).hexdigest()[:6]}" if game else ""


def game_folder(work: Path, dataset: str, seed: int, epsilon: float, backbone: str = "two_conv",
                options: dict[str, object] | None = None, regime: str = "reference",
                game: dict[str, object] | None = None, taken: str | None = None) -> Path:
    """Where a seed's game is kept, and what was made with its generator; the experiments share it. A generator that was taken
    from a file, of this sha256, has a folder of its own in there.
    """
    folder = work / f"table1-{home(dataset, backbone, options)}-{epsilon:g}{game_suffix(regime, game)}" / f"seed{seed}"
    return folder / f"taken-{taken[:6]}" if taken else folder


def parts_that_count(config: PPLConfig, memory: dict[str, object] | None) -> int | None:
    """`accumulation` where it makes another game: batch normalisation sees one part at a time; None where it does not."""
    parts = (memory or {}).get("accumulation", 1)
    return parts if parts > 1 and config.has_deep_surrogates else None


def train_generator(split: RetrievalSplit, config: PPLConfig, work: Path, device: str, **memory: object) -> PPLRun:
    """Train the generator of one seed, or continue, or take it from `work` if it is done.

    `memory`: the arguments `checkpointing`, `accumulation` and `compiled` of `train_ppl`.
    """
    try:
        return train_ppl(split.train, config, device=device, checkpoint=work / "ppl.safetensors", resume=True, **memory)
    except OtherCheckpoint as error:
        raise OtherCheckpoint(error.found, "give another --work folder, or remove the file") from error


def generator_file(folder: Path, seed: int) -> Path:
    """Where `--ship-generators` puts a seed's generator, and `--generators` looks for it."""
    return folder / f"generator-{seed}.safetensors"


def file_digest(folder: Path | None, seed: int) -> str | None:
    """sha256 of the file of a seed's generator in `folder`; None without a folder: the game is played."""
    return None if folder is None else hashlib.sha256(generator_file(folder, seed).read_bytes()).hexdigest()


def shipped_generator(folder: Path, seed: int, config: PPLConfig, split: RetrievalSplit) -> PerturbationGenerator:
    """The generator of a seed as `--ship-generators` wrote it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it was trained with other settings or on another split.
    """
    path = generator_file(folder, seed)
    generator = PerturbationGenerator.load(path)
    asked = json.loads(json.dumps({"config": dataclasses.asdict(config), "split": split.manifest}))
    for what, value in asked.items():
        found = generator.metadata.get(what) or {}
        if given(found) != given(value):
            different = sorted(name for name in found.keys() | value.keys() if found.get(name) != value.get(name))
            raise ValueError(f"{path} was made with another {what} ({', '.join(different)} differ): ask for the same --regime, "
                             "--game, --epsilon and data, or leave out --generators to play the game")
    return generator


def generator_of(dataset: str, split: RetrievalSplit, seed: int, epsilon: float | None, work: Path, device: str, fast: bool,
                 backbone: str = "two_conv", options: dict[str, object] | None = None, regime: str = "reference",
                 game: dict[str, object] | None = None, memory: dict[str, object] | None = None,
                 generators: Path | None = None) -> tuple[PPLRun, Path, str | None]:
    """For the other experiments: a seed's generator as `table1` makes it or takes it from `generators`.

    Returns:
        (run, folder, taken): of a generator that was taken the run has no surrogates; `game_folder`; `file_digest`.
    """
    config, taken = configuration(dataset, seed, epsilon, fast, backbone, regime, game), file_digest(generators, seed)
    folder = game_folder(work, dataset, seed, config.epsilon, backbone, options, regime, game, taken)
    if generators is None:
        return train_generator(split, config, folder, device, **(memory or {})), folder, None
    generator = shipped_generator(generators, seed, config, split)
    return PPLRun(generator.to(devices.resolve(device), memory_format=torch.channels_last), [], {}, config), folder, taken


def add_game(options: argparse.ArgumentParser, regime: str = "") -> None:
    """Arguments that say how the game is played, or where its generators are taken from.

    `regime`: what the help says of the default if it is not always the reference; without `--regime` there is no entry of that
    name then.
    """
    default, shown = (argparse.SUPPRESS, f" (default: {regime})") if regime else ("reference", "")
    options.add_argument("--regime", choices=list(REGIMES), default=default, help=f"how the game is played{shown}")
    options.add_argument("--game", type=setting, nargs="+", default=[], metavar="NAME=VALUE",
                         help="fields of PPLConfig that differ from the regime's, as batch_size=32 code_lengths=8, or "
                              "backbone=two_conv,two_conv,dense,dense for surrogates of several networks")
    options.add_argument("--checkpointing", action="store_true", help="keep fewer of the surrogates' activations: less memory")
    options.add_argument("--accumulation", type=int, default=1, help="parts that a surrogate takes a batch in: less memory")
    options.add_argument("--compile", action="store_true",
                         help="let torch.compile fuse the game's passes: slower on the CPU where it was measured")
    options.add_argument("--generators", type=Path, metavar="FOLDER",
                         help="take the generators from this folder, as table1 --ship-generators left them, and play no game")


def asked_game(options: argparse.ArgumentParser, asked: argparse.Namespace) -> dict[str, object]:
    """What `add_game` was given, as `generator_of` and `run_seed` take it; ends here if a generator is not there."""
    for seed in asked.seeds if asked.generators else ():  # before hours go into the first seed
        if not (file := generator_file(asked.generators, seed)).is_file():
            options.error(f"no generator at {file}: table1 --ship-generators writes them; without --generators the game is "
                          "played")
    return {"regime": asked.regime, "game": dict(asked.game), "generators": asked.generators,
            "memory": {"checkpointing": asked.checkpointing, "accumulation": asked.accumulation, "compiled": asked.compile}}
