"""Speed of one round of the game beside a straightforward two-optimiser loop.

    python -m tests.benchmarks.bench_training [--device cpu] [--steps 20] [--rounds 7] [--compile] [--output FILE]

Both train the same generator against the same 8-bit surrogate with the same losses, batches of 128 images of
28 x 28. The plain loop is what one writes first: a float32 dataset, the default memory layout, no autocast,
a step of G, then a step of F, each with its own forward passes of everything. Ours is `Game.step`. They take
turns in blocks of `--steps`, so that a busy moment hits both; the figures are medians over `--rounds` blocks.
With `--compile` a third one takes its turn: ours after `Game.compile`.
The losses of the first step, from the same weights and batch, are checked against each other.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import torch

from pplkit import device as devices
from pplkit import losses
from pplkit.budget import adversarial
from pplkit.config import PPLConfig
from pplkit.data import load
from pplkit.game import Game
from pplkit.generator import PerturbationGenerator
from pplkit.hashing.network import build
from pplkit.storage import provenance, save_json

OUTPUT = Path(__file__).parents[2] / "data" / "results" / "benchmark-training.json"
TOLERANCE = 0.03  # of each loss, relative; in bfloat16 the smallest differed by 0.018


class PlainLoop:
    """The game in float32 with one optimiser and one set of forward passes per player."""

    def __init__(self, game: Game):
        config, device = game.config, game.images.device
        self.config = config
        self.images = game.images.cpu().float().div(255).contiguous().to(device)  # (N, C, H, W)
        self.labels = game.labels
        self.random = torch.Generator().manual_seed(config.seed)
        channels, size = self.images.shape[1], self.images.shape[-1]
        self.generator = PerturbationGenerator(channels, config.widths).to(device)
        self.generator.load_state_dict(game.generator.state_dict())
        self.surrogate = build(config.code_lengths[0], config.backbone, channels, size, config.seed).to(device)
        self.surrogate.load_state_dict(game.surrogates[0].state_dict())
        self.privacy = losses.PrivacyLoss(config.alpha, config.beta, config.gamma)
        self.generator_optimiser = torch.optim.Adam(self.generator.parameters(), config.generator_learning_rate)
        self.surrogate_optimiser = torch.optim.Adam(self.surrogate.parameters(), config.surrogate_learning_rate)

    def losses(self, images: torch.Tensor, z: torch.Tensor, similarity: torch.Tensor) -> dict[str, torch.Tensor]:
        """The terms on fresh forward passes of F."""
        clean, protected = self.surrogate(images), self.surrogate(z)
        terms = self.privacy.terms(clean, protected, similarity)
        return terms | {"affinity": losses.affinity_loss(protected, similarity)}

    def step(self) -> dict[str, torch.Tensor]:
        """One step of G, then one of F; the terms before G's step."""
        index = torch.randperm(len(self.images), generator=self.random)[: self.config.batch_size]
        index = index.to(self.images.device)
        images, labels = self.images[index], self.labels[index]
        similarity = losses.similarity_matrix(labels, balanced=True)

        z = adversarial(images, self.generator(images), self.config.epsilon)
        first = self.losses(images, z, similarity)
        self.generator_optimiser.zero_grad()
        (first["affinity"] - self.weigh(first)).backward()
        self.generator_optimiser.step()

        z = adversarial(images, self.generator(images), self.config.epsilon).detach()
        second = self.losses(images, z, similarity)
        self.surrogate_optimiser.zero_grad()
        (second["affinity"] + self.weigh(second)).backward()
        self.surrogate_optimiser.step()
        return {name: value.detach() for name, value in first.items()}

    def weigh(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """J_p, eq. (11)."""
        config = self.config
        return config.alpha * terms["domain"] + config.beta * terms["similarity"] + config.gamma * terms["matching"]


def compare_first_step(plain: PlainLoop, game: Game) -> dict[str, tuple[float, float]]:
    """Both take their first step; the terms of both, which must agree."""
    theirs, ours = plain.step(), game.step()
    pairs = {name: (value.item(), ours[name].item()) for name, value in theirs.items()}
    for name, (a, b) in pairs.items():
        if abs(a - b) > TOLERANCE * abs(a):
            raise AssertionError(f"first step: {name} is {a} in the plain loop and {b} in ours")
    return pairs


def block(player: PlainLoop | Game, steps: int, device: torch.device) -> tuple[float, float]:
    """(wall, processor) milliseconds per step of a block."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        player.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - wall) * 1e3 / steps, (time.process_time() - processor) * 1e3 / steps


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=20, help="per block")
    parser.add_argument("--rounds", type=int, default=7, help="blocks of each")
    parser.add_argument("--compile", action="store_true", help="measure ours under torch.compile, too")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()

    device = devices.resolve(arguments.device)
    train = load("fashion-mnist-mini").train.to(device)
    game = Game(PPLConfig(), train.images, train.labels)
    plain = PlainLoop(game)
    first = compare_first_step(plain, game)
    players = {"plain": plain, "ours": game}
    if arguments.compile:
        players["compiled"] = Game(game.config, train.images, train.labels)
        players["compiled"].compile()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in players}
    for player in players.values():
        block(player, arguments.steps, device)  # warm caches
    for _ in range(arguments.rounds):
        for name, player in players.items():
            times[name].append(block(player, arguments.steps, device))

    wall = {name: statistics.median(pair[0] for pair in pairs) for name, pairs in times.items()}
    processor = {name: statistics.median(pair[1] for pair in pairs) for name, pairs in times.items()}
    print(f"batch {game.config.batch_size}, 28 x 28, {device}, {torch.get_num_threads()} threads; ms per step")
    for name in times:
        print(f"{name:>6}: {wall[name]:7.2f} wall, {processor[name]:7.2f} processor")
    print(f"ratio: {wall['plain'] / wall['ours']:.2f} (processor {processor['plain'] / processor['ours']:.2f})")
    compiled = {}
    if arguments.compile:
        compiled = {"compiled_ms": wall["compiled"], "compiled_ratio": wall["plain"] / wall["compiled"]}
        print(f"ratio under torch.compile: {compiled['compiled_ratio']:.2f}")
    with devices.autocast(device):
        bfloat16 = torch.is_autocast_enabled(device.type)
    save_json(
        arguments.output,
        {
            **provenance(device),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "run_on": str(device),
            "bfloat16": bfloat16,
            "batch_size": game.config.batch_size,
            "images": list(train.images.shape[1:]),
            "timing": f"median of {arguments.rounds} blocks of {arguments.steps} steps, taken in turns",
            "plain_ms": wall["plain"],
            "ours_ms": wall["ours"],
            "ratio": wall["plain"] / wall["ours"],
            "plain_processor_ms": processor["plain"],
            "ours_processor_ms": processor["ours"],
            "processor_ratio": processor["plain"] / processor["ours"],
            **compiled,
            "first_step_plain_and_ours": first,
        },
    )
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
