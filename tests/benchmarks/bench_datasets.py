"""Steps per second and peak memory of the game, per data set of the paper.

    python -m tests.benchmarks.bench_datasets [--device cpu] [--steps 10] [--datasets cifar10 ...] [--backbone two_conv]
                                              [--output FILE]

`PPLConfig.reference` (surrogates with the two-convolution network, or `--backbone`) on as many images of that size as the
paper trains with. The images are noise: what a step costs does not depend on what they show. Each data set has a process of its
own, so that the peak (resident memory of the process, or memory allocated on the GPU) is its own; the first steps are not
counted.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from pplkit import device as devices
from pplkit.config import PPLConfig
from pplkit.game import Game
from pplkit.storage import provenance, save_json

OUTPUT = Path(__file__).parents[2] / "data" / "results" / "benchmark-datasets.json"
FORMS = {"fashion-mnist": (10000, 1, 28), "cifar10": (10000, 3, 32), "imagenet13": (10000, 3, 64)}  # images, channels, pixels
UNCOUNTED = 3  # steps


def peak_bytes(device: torch.device) -> int:
    """Most memory so far: allocated on the GPU, or resident in this process, Python and torch included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def alone(module: str, device: torch.device, steps: int, one: str, *more: str) -> dict[str, object]:
    """What `python -m MODULE --one ONE` prints: a measurement in a process of its own."""
    command = [sys.executable, "-m", module, "--device", str(device), "--steps", str(steps), "--one", one, *more]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def circumstances(device: torch.device, steps: int) -> dict[str, object]:
    """What a result file says about the machine and the code."""
    return {**provenance(device), "load_average": os.getloadavg()[0], "run_on": str(device), "timing": f"{steps} steps"}


def measure(dataset: str, device: torch.device, steps: int, backbone: str) -> dict[str, object]:
    """Rates and peak memory of one data set, in this process."""
    count, channels, size = FORMS[dataset]
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, size, size), generator=random).to(torch.uint8)  # (N, C, H, W)
    labels = torch.randint(0, 10, (count,), generator=random)  # (N,)
    config = PPLConfig.reference(dataset, backbone=backbone)
    game = Game(config, images.to(device), labels.to(device))
    rates = {}
    for name, step in (("warm_up", game.warm_up), ("game", game.step)):
        for number in range(UNCOUNTED + steps):
            if number == UNCOUNTED:
                if device.type == "cuda":
                    torch.cuda.synchronize()
                begun = time.perf_counter()
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        rates[f"{name}_steps_per_second"] = round(steps / (time.perf_counter() - begun), 2)
    return {"dataset": dataset, "images": [count, channels, size, size], "batch_size": config.batch_size,
            "surrogates": len(config.code_lengths), **rates, "peak_megabytes": round(peak_bytes(device) / 1e6),
            "peak_is": "allocated on the GPU" if device.type == "cuda"
            else "resident memory of the process, Python and torch included"}


def main() -> None:
    """Measure each data set in a process of its own, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=10, help="that are counted")
    parser.add_argument("--backbone", default="two_conv",
                        help="network of the surrogates, a name for pplkit.backbones; another one's results need --output")
    parser.add_argument("--datasets", nargs="+", choices=list(FORMS), default=list(FORMS))
    parser.add_argument("--output", type=Path, help=f"result file (default: {OUTPUT.name} among the results)")
    parser.add_argument("--one", choices=list(FORMS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    device = devices.resolve(asked.device)
    if asked.one:
        print(json.dumps(measure(asked.one, device, asked.steps, asked.backbone)))
        return
    if asked.output is None and asked.backbone != "two_conv":
        parser.error("--backbone: the stored result is of two_conv; name another file with --output")
    rows, output = [], asked.output or OUTPUT
    for dataset in asked.datasets:
        rows.append(alone("tests.benchmarks.bench_datasets", device, asked.steps, dataset, "--backbone", asked.backbone))
        print(f"{dataset:14} warm-up {rows[-1]['warm_up_steps_per_second']:6.2f} steps/s, game "
              f"{rows[-1]['game_steps_per_second']:6.2f} steps/s, peak {rows[-1]['peak_megabytes']} MB")
    save_json(output, {**circumstances(device, asked.steps), "backbone": asked.backbone, "rows": rows})
    print(f"written: {output}")


if __name__ == "__main__":
    main()
