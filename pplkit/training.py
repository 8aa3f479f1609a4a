"""Algorithm 1: the surrogates' warm-up, then the game (eq. 14), with checkpoints, history and a look-out for collapse."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pplkit import budget, checkpoints, processes
from pplkit import device as devices
from pplkit.config import PPLConfig
from pplkit.data import ImageSet
from pplkit.device import OutOfMemory
from pplkit.game import SERIES, Game
from pplkit.generator import PerturbationGenerator
from pplkit.hashing import CollapseWarning, HashingNetwork
from pplkit.progress import progress_bar

JUDGED = 50  # steps that a collapse must have lasted, or a warm-up must have had

__all__ = ["CollapseWarning", "OutOfMemory", "PPLConfig", "PPLRun", "TrainingDiverged", "train_ppl"]


class TrainingDiverged(ValueError):
    """A loss term became NaN or infinite."""


@dataclass
class PPLRun:
    """What `train_ppl` returns: the players and how they got there.

    Attributes:
        generator: G (its moving average, if the configuration asks for one), in eval mode.
        surrogates: F, one per code length, in eval mode.
        history: {"warmup": [loss per step], "step": [1, 2, …], and per game step the unweighted loss terms "affinity",
            "domain", "similarity", "matching", "clean", the gradient norms "generator_gradient", "surrogate_gradient",
            "perturbation" (mean |δ| in pixel units), "magnitude" (mean |u| of clean codes) and "spread" (their mean standard
            deviation over the batch), both of the surrogate where it is least}.
        config: the configuration.
        collapsed: None, or what the collapse detector said.
    """

    generator: PerturbationGenerator
    surrogates: list[HashingNetwork]
    history: dict[str, list[float]]
    config: PPLConfig
    collapsed: str | None = None

    @property
    def surrogate(self) -> HashingNetwork:
        """The first surrogate."""
        return self.surrogates[0]

    def protect(self, images: Tensor, epsilon: float | None = None, *, cache: str | Path | None = None) -> Tensor:
        """uint8 (N, C, H, W) -> protected uint8, with the training budget or with another ε; `cache` as `budget.protect`."""
        epsilon = self.config.epsilon if epsilon is None else epsilon
        return budget.protect(images, self.generator, epsilon, self.config.norm, cache=cache)


def train_ppl(train: ImageSet, config: PPLConfig, *, device: str | torch.device = "auto",
              checkpoint: str | Path | None = None, resume: bool = False,
              callback: Callable[[int, PPLRun], bool | None] | None = None, progress: bool = True,
              checkpointing: bool = False, accumulation: int = 1, compiled: bool = False) -> PPLRun:
    """Train a generator (Algorithm 1 with eq. 14), after warming up its surrogates on clean pairs.

    Started by `accelerate` in several processes, each with all images, they play one game together: every batch is dealt out,
    the losses see all of it, and the result is the one of a single process (see `pplkit.processes`). The first process writes
    the checkpoints, shows the progress and calls back.

    Args:
        train: images uint8 (N, C, H, W) and labels.
        config: all settings.
        device: "auto", "cpu", "cuda".
        checkpoint: file (safetensors) to write every `config.checkpoint_every` steps and at the end, atomically.
        resume: continue from `checkpoint` if it exists; the result is the one of an uninterrupted run.
        callback: called as callback(step, run) with every checkpoint's state; False ends the game there.
        progress: show a progress bar with ETA.
        checkpointing: keep fewer of the surrogates' activations and compute them again in the backward pass: less memory,
            more time, the same result.
        accumulation: the surrogates take every batch in so many parts and accumulate the gradients: less memory, more time. The
            losses still see the pairs of the whole batch, and the result is the same up to rounding, unless the surrogates have
            batch normalisation, which then sees one part at a time: such a run is resumed with the same number only.
        compiled: let `torch.compile` fuse the networks' passes, see `Game.compile`. It is not part of the configuration: a run
            may be continued with or without it, and then differs by rounding.

    Returns:
        PPLRun. On a CPU two runs with the same configuration and threads give identical weights.

    Raises:
        ValueError: a single image, images that are not square, a bad `accumulation`, `compiled` together with
            `checkpointing` or `accumulation` above 1, a batch that the processes cannot share alike, a checkpoint of another
            configuration or other images, or one that not all processes see.
        FileExistsError: `checkpoint` exists and `resume` is False.
        TrainingDiverged: a loss is NaN or infinite; names term and step, the last good checkpoint stays.
        OutOfMemory: the batch, or the training set, is too large for the device; names what to lower.

    Warns:
        CollapseWarning: all codes near 0 or all equal; says what to change.
    """
    if len(train) < 2:
        raise ValueError(f"training needs at least 2 images, got {len(train)}")
    device = devices.resolve(device)
    together = processes.current(device)
    with devices.memory_help(lambda: "out of memory before the first step: the "
                             f"{len(train)} training images of {tuple(train.images.shape[1:])} and {_players(config)} do not "
                             "fit: take fewer or smaller images, or a smaller backbone"):
        game = Game(config, train.images.to(device), train.labels.to(device), together, checkpointing, accumulation)
    if compiled:
        game.compile()
    history: dict[str, list[float]] = {name: [] for name in ("warmup", "step", *SERIES)}
    collapsed = None
    if checkpoint is not None and Path(checkpoint).exists():
        if not resume:
            raise FileExistsError(f"{checkpoint} exists: pass resume=True to continue from it, or remove it first")
        history, collapsed = checkpoints.restore(checkpoint, game)
    run = PPLRun(game.average or game.generator, game.surrogates, history, config, collapsed)
    done = len(history["warmup"]) + len(history["step"])
    if not together.agree(done, device):
        raise ValueError(f"this process continues from step {done}, another one from another step: checkpoint {checkpoint} "
                         "must lie where all processes see it")
    total = config.warmup_steps + config.steps
    with progress_bar(total=total, initial=done, description="PPL", show=progress and together.main) as bar:
        while done < total:
            warming = done < config.warmup_steps
            until = min(config.warmup_steps if warming else total,
                        (done // config.checkpoint_every + 1) * config.checkpoint_every)
            records = []
            for step in range(done, until):
                with devices.memory_help(lambda: _fewer(config, checkpointing, accumulation, together.count)):
                    records.append(game.warm_up() if warming else game.round(step - config.warmup_steps))
                bar.update()
            _append(history, records, done - config.warmup_steps)
            done = until
            last = "warmup" if warming else "affinity"
            bar.set_postfix({"phase": "warm-up" if warming else "game", last: f"{history[last][-1]:.3f}"})
            if done == config.warmup_steps >= JUDGED:
                run.collapsed = _notice_collapse({name: [size] for name, size in game.sizes().items()}, config, done)
            elif len(history["step"]) >= JUDGED:
                run.collapsed = run.collapsed or _notice_collapse(history, config, done)
            if checkpoint is not None and together.main:
                checkpoints.store(checkpoint, game, history, run.collapsed)
            stop = callback is not None and together.main and callback(done, run) is False
            if together.any(stop, device):
                break
    run.generator.eval()
    for network in run.surrogates:
        network.eval()
    return run


def _fewer(config: PPLConfig, checkpointing: bool, accumulation: int, count: int) -> str:
    """What to say where a step does not fit."""
    fewer = max(2, config.batch_size // 2)
    remedies = [f"batch_size={fewer}"] if fewer < config.batch_size else ["smaller images"]
    if not checkpointing and config.has_deep_surrogates:
        remedies.append("checkpointing=True, which changes no result")
    if 4 * accumulation <= config.batch_size // count:  # two images in each part, for batch normalisation
        remedies.append(f"accumulation={2 * accumulation}")
    return (f"out of memory with batch_size={config.batch_size} and {_players(config)}: try {', or '.join(remedies)}, or "
            "several processes")


def _players(config: PPLConfig) -> str:
    """"4 surrogates (two_conv, dense)"."""
    return f"{len(config.code_lengths)} surrogates ({', '.join(dict.fromkeys(config.per_surrogate('backbone')))})"


def _append(history: dict[str, list[float]], records: list[dict[str, Tensor]], before: int) -> None:
    """Move a stretch of records to the history; all are looked at before any is kept."""
    values = {name: torch.stack([record[name] for record in records]).tolist() for name in records[0]}
    phase = "warm-up step" if "warmup" in values else "step"
    first = len(history["warmup"]) if "warmup" in values else before
    for i in range(len(records)):  # step by step: what follows the first bad value is only its consequence
        for name, series in values.items():
            if not math.isfinite(series[i]):
                raise TrainingDiverged(f"{name} is {series[i]} at {phase} {first + i + 1}: training stopped, the last "
                                       "checkpoint is kept; lower the learning rates or use reduction='mean'")
    for name, series in values.items():
        history[name].extend(series)
    if "warmup" not in values:
        history["step"].extend(range(before + 1, before + len(records) + 1))


def _notice_collapse(sizes: dict[str, list[float]], config: PPLConfig, step: int) -> str | None:
    """What to say if codes are near 0 (mean |u| < 0.05) or all equal (spread < 0.02): after the warm-up, or in all of the last
    steps of the game.
    """
    recent = {name: sizes[name][-JUDGED:] for name in ("magnitude", "spread")}
    if max(recent["magnitude"]) < 0.05:
        what = f"all codes are near 0 (mean |u| = {recent['magnitude'][-1]:.3f})"
    elif max(recent["spread"]) < 0.02:
        what = f"all images get the same code (spread {recent['spread'][-1]:.3f})"
    else:
        return None
    cures = []
    if config.similarity == "literal":
        cures.append("similarity='balanced'")
    if config.warmup_steps < 500:
        cures.append("warmup_steps=1500")
    if step == config.warmup_steps:
        cures.append(f"warmup_learning_rate={config.warmup_learning_rate / 5:g}")
    each = zip(config.per_surrogate("surrogate_learning_rate"), config.per_surrogate("restart_every"), strict=True)
    if max((rate for rate, restart in each if not restart), default=0) > 1e-4:
        cures.append("surrogate_learning_rate=1e-5")
    if config.reduction == "sum":
        cures.append("reduction='mean'")
    message = (f"the surrogate collapsed by step {step}: {what}, so the game teaches the generator nothing. "
               f"Try {', '.join(cures) or 'a lower warmup_learning_rate or surrogate_learning_rate, or clean=1'}")
    warnings.warn(message, CollapseWarning, stacklevel=3)
    return message
