"""What `checkpointing` and `accumulation` save in memory, and what they cost in time.

    python -m tests.benchmarks.bench_memory [--device cpu] [--steps 3] [--output FILE]

One game step with one 8-bit ResNet-18 surrogate (first layers for 64 pixels) on 64 colour images of 64 × 64 pixels: as it is,
with `checkpointing`, with the batch in 4 parts, and with both. Each has a process of its own, so that the peak (resident memory
of the process, or memory allocated on the GPU) is its own; the first step is not counted. The images are noise.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from pplkit import device as devices
from pplkit.config import PPLConfig
from pplkit.game import Game
from pplkit.storage import save_json
from tests.benchmarks.bench_datasets import alone, circumstances, peak_bytes

OUTPUT = Path(__file__).parents[2] / "data" / "results" / "benchmark-memory.json"
BACKBONE, BATCH, SIZE = "resnet18@64", 64, 64
WAYS = {"plain": (False, 1), "checkpointing": (True, 1), "accumulation 4": (False, 4), "both": (True, 4)}


def measure(way: str, device: torch.device, steps: int) -> dict[str, object]:
    """Seconds per step and peak memory of one way, in this process; `game_megabytes` is what the steps added to the start."""
    checkpointing, accumulation = WAYS[way]
    images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    config = PPLConfig(backbone=BACKBONE, batch_size=BATCH)
    game = Game(config, images.to(device), torch.arange(BATCH, device=device) % 10, checkpointing=checkpointing,
                accumulation=accumulation)
    before = peak_bytes(device)
    game.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(steps):
        game.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {"way": way, "seconds_per_step": round((time.perf_counter() - begun) / steps, 3),
            "peak_megabytes": round(peak_bytes(device) / 1e6), "game_megabytes": round((peak_bytes(device) - before) / 1e6)}


def main() -> None:
    """Measure each way in a process of its own, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=3, help="that are counted")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    device = devices.resolve(asked.device)
    if asked.one:
        print(json.dumps(measure(asked.one, device, asked.steps)))
        return
    rows = []
    for way in WAYS:
        rows.append(alone("tests.benchmarks.bench_memory", device, asked.steps, way))
        print(f"{way:15} {rows[-1]['seconds_per_step']:7.2f} s/step, peak {rows[-1]['peak_megabytes']:6} MB, of which the game "
              f"{rows[-1]['game_megabytes']:6} MB")
    save_json(asked.output, {**circumstances(device, asked.steps), "backbone": BACKBONE, "batch": [BATCH, 3, SIZE, SIZE],
                             "rows": rows})
    print(f"written: {asked.output}")


if __name__ == "__main__":
    main()
