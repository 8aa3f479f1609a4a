"""Images per second of the generator beside a projected gradient attack (PGD) on every image, at the same ε.

    python -m tests.benchmarks.bench_protect [--device cpu] [--rounds 5] [--steps 10] [--output FILE]

Both turn the same 28 x 28 images (uint8) into protected ones (uint8), one image at a time and 128 at a time. The generator
is the one that comes with pplkit; PGD pushes each image's relaxed code away from its clean one, through the network of the
16-bit DSDH victim that comes with pplkit: a random start, then `--steps` steps of ε/4 along the sign of the gradient,
projected after each. They take turns, so that a busy moment hits both; the figures are medians over `--rounds`. The last
lines are `pplkit protect` on a folder: reading, protecting, writing PNG and measuring l_inf, PSNR and SSIM, per picture.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from pplkit import budget, pretrained
from pplkit import device as devices
from pplkit.data import load
from pplkit.folders import protect_folder
from pplkit.generator import PerturbationGenerator
from pplkit.hashing import HashingNetwork
from pplkit.storage import provenance, save_json

OUTPUT = Path(__file__).parents[2] / "data" / "results" / "benchmark-protect.json"
EPSILON = 0.3
BATCHES = (1, 128)
SIDE = 512  # of the large pictures


def pgd(network: HashingNetwork, images: torch.Tensor, epsilon: float, steps: int, random: torch.Generator) -> torch.Tensor:
    """uint8 (B, C, H, W) -> protected uint8: maximise ‖u(x + δ) − u(x)‖² over ‖δ‖∞ ≤ ε."""
    clean = budget.to_float(images)  # (B, C, H, W)
    with torch.no_grad():
        codes = network(clean)  # (B, c)
    start = torch.rand(clean.shape, generator=random) * 2 - 1
    z = (clean + epsilon * start.to(clean.device)).clamp(0, 1)
    for _ in range(steps):
        z.requires_grad_()
        gradient, = torch.autograd.grad((network(z) - codes).square().sum(), z)
        z = (z.detach() + epsilon / 4 * gradient.sign()).clamp(clean - epsilon, clean + epsilon).clamp(0, 1)
    return budget.enforce(images, z.detach(), epsilon)


def rate(function, images: torch.Tensor, batch: int) -> float:
    """Images per second of `function(batch of images)` over all images."""
    start = time.perf_counter()
    for part in images.split(batch):
        function(part)
    if images.device.type == "cuda":
        torch.cuda.synchronize()
    return len(images) / (time.perf_counter() - start)


def folder_rate(pictures: list[Image.Image], workers: int, generator: PerturbationGenerator) -> float:
    """Pictures per second of `protect_folder`, files on disk to files on disk."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "in").mkdir()
        for i, picture in enumerate(pictures):
            picture.save(Path(place) / "in" / f"{i}.png")
        start = time.perf_counter()
        result = protect_folder(Path(place) / "in", Path(place) / "out", generator, EPSILON, workers=workers, progress=False)
        seconds = time.perf_counter() - start
    if result.protected != len(pictures):
        raise AssertionError(f"{len(pictures) - result.protected} pictures were not protected: {result.failed}")
    return len(pictures) / seconds


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of PGD")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of the folder run")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    asked = parser.parse_args()

    device = devices.resolve(asked.device)
    images = load("fashion-mnist-mini").query.images.to(device)
    generator = pretrained.generator().to(device)
    network = pretrained.victim("dsdh").network.to(device)
    random = torch.Generator().manual_seed(0)
    contenders = {
        "generator": lambda part: budget.protect(part, generator, EPSILON, batch_size=len(part)),
        "pgd": lambda part: pgd(network, part, EPSILON, asked.steps, random),
    }
    for function in contenders.values():  # both obey the budget, and both have warm caches
        part = images[:128]
        change = budget.perturbation_norm(part, function(part))
        assert float(change.max()) <= EPSILON + 1e-6 and float(change.min()) > 0.1
    print(f"28 x 28, epsilon {budget.format_epsilon(EPSILON)}, {device}, {torch.get_num_threads()} threads; images per second")
    rows = []
    for batch in BATCHES:
        count = 128 * (1 if batch == 1 else 4)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(asked.rounds):
            for name, function in contenders.items():
                rates[name].append(rate(function, images[:count], batch))
        median = {name: statistics.median(values) for name, values in rates.items()}
        ratio = statistics.median(a / b for a, b in zip(rates["generator"], rates["pgd"], strict=True))
        rows.append({"batch": batch, **{f"{name}_images_per_s": value for name, value in median.items()}, "ratio": ratio})
        print(f"batch {batch:3d}: generator {median['generator']:8.0f}, PGD of {asked.steps} steps {median['pgd']:8.0f}, "
              f"ratio {ratio:.1f}")

    arrays = images[:200, 0].cpu().numpy()
    folders = []
    for name, pictures in {
        "28 x 28 grey": [Image.fromarray(array) for array in arrays],
        f"{SIDE} x {SIDE} colour": [Image.fromarray(array).resize((SIDE, SIDE)).convert("RGB") for array in arrays[:12]],
    }.items():
        for workers in asked.workers:
            speed = folder_rate(pictures, workers, generator)
            folders.append({"pictures": name, "workers": workers, "pictures_per_s": speed})
            print(f"pplkit protect, {name}, {workers} workers: {speed:.1f} pictures per second")
    save_json(
        asked.output,
        {
            **provenance(device),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            "run_on": str(device),
            "epsilon": EPSILON,
            "pgd_steps": asked.steps,
            "timing": f"median of {asked.rounds} rounds, generator and PGD in turns; ratio: median of the rounds' ratios",
            "rows": rows,
            "folders": folders,
        },
    )
    print(f"written: {asked.output}")


if __name__ == "__main__":
    main()
