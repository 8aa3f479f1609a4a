"""Trained weights of our own, where torchvision's cannot be had: a classifier of the database's images, never of the queries.

    python -m pplkit.experiments.pretrain --dataset imagenet13 --backbone resnet18@224
    python -m pplkit.experiments.table1 --dataset imagenet13 --backbone NAME_THAT_IT_PRINTS

The paper's networks for colour images come from all of ImageNet; these have only seen one data set's database images and their
labels. Cross-entropy over the classes; the weights without the classifier go to `--weights`, named by the data set and the
content's sha256, so that a result's settings say which weights it started from. A tenth of the images is left out to state the
accuracy. The state after every pass is kept under `--work`, so an interrupted run goes on.
"""

import dataclasses
import hashlib
import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from pplkit import backbones
from pplkit import device as devices
from pplkit.budget import to_float
from pplkit.checkpoints import fill_optimiser, optimiser_tensors
from pplkit.data import ImageSet, RetrievalSplit, load
from pplkit.experiments.common import add_colour, command, home, keep_stored, parse, parser, place
from pplkit.progress import progress_bar
from pplkit.storage import provenance, read_metadata, read_tensors, save_json, save_tensors


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the classifier is trained: AdamW, rate rising for a tenth of the steps and falling to 0 as a cosine.

    Args:
        backbone: name for `pplkit.backbones.create`.
        passes: over the images.
        batch_size: images per step.
        learning_rate: the highest.
        weight_decay: of AdamW.
        smoothing: of the labels in the cross-entropy.
        shift: images are moved by up to this share of their side, in either direction, and mirrored with probability ½.
        held_out: share of the database's images that the accuracy is measured on.
        seed: of weights, batches and shifts.

    Raises:
        ValueError: a number that makes no sense; a backbone that starts from trained weights.
    """

    backbone: str
    passes: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    smoothing: float = 0.1
    shift: float = 0.125
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("passes", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be between 0 and 1, got {self.held_out!r}")
        if backbones.parse(self.backbone)[2]:
            raise ValueError(f"pretraining starts from random weights, got {self.backbone!r}: leave out the colon and the rest")


def moved(images: Tensor, shift: float, random: torch.Generator) -> Tensor:
    """Each image shifted by up to `shift` of its side and mirrored with probability ½; float (B, C, H, W) -> the same.

    What comes in from outside is the image, mirrored at its edge.
    """
    draws = torch.rand(3, len(images), generator=random).to(images.device, non_blocking=True)  # (3, B)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = torch.where(draws[0] < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = 1
    theta[:, :, 2] = (2 * shift * (2 * draws[1:] - 1)).T  # the grid is 2 wide
    grid = functional.affine_grid(theta, images.shape, align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def accuracy(classifier: nn.Module, images: ImageSet, batch_size: int = 256) -> float:
    """Share of the images that the classifier names rightly."""
    classifier.eval()
    with torch.no_grad():
        right = sum((classifier(to_float(some)).argmax(1) == labels).sum()
                    for some, labels in zip(images.images.split(batch_size), images.labels.split(batch_size), strict=True))
    return float(right) / len(images)


def pretrain(split: RetrievalSplit, settings: Settings, state: Path, device: str = "auto") -> tuple[nn.Module, float]:
    """Train a feature network as part of a classifier of `split.database`.

    Args:
        split: its queries are not looked at.
        settings: see `Settings`.
        state: file that every pass writes, and that an interrupted run goes on from.
        device: "auto", "cpu", "cuda".

    Returns:
        (the feature network, accuracy on the images that were left out).

    Raises:
        ValueError: `state` belongs to other settings or images.
    """
    device = devices.resolve(device)
    order = torch.randperm(len(split.database), generator=torch.Generator().manual_seed(settings.seed))
    left_out = max(1, round(settings.held_out * len(order)))
    test, train = (split.database.subset(order[rows]).to(device) for rows in (slice(left_out), slice(left_out, None)))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        features = backbones.create(settings.backbone, train.images.shape[1], train.images.shape[-1])
        classifier = nn.Sequential(features, nn.Linear(features.features, len(split.classes)))
    classifier.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(classifier.parameters(), settings.learning_rate, weight_decay=settings.weight_decay,
                                  fused=True)
    key = json.dumps({"settings": dataclasses.asdict(settings), "split": split.manifest})
    done = 0
    if state.exists():
        tensors, header = read_tensors(state)
        if header.get("key") != key:
            raise ValueError(f"{state} was trained with other settings or data: give another --work folder, or remove the file")
        classifier.load_state_dict({name: tensors[name] for name in classifier.state_dict()})
        fill_optimiser(optimiser, tensors, "optimiser/")
        done = int(header["passes"])
    steps = max(1, len(train) // settings.batch_size)  # what is left over comes in another pass
    with progress_bar(total=settings.passes * steps, initial=done * steps, description=f"{settings.backbone}") as bar:
        for number in range(done, settings.passes):
            random = torch.Generator().manual_seed(1000 * settings.seed + number + 1)
            classifier.train()
            total = torch.zeros((), device=device)
            batches = torch.randperm(len(train), generator=random).to(device).split(settings.batch_size)[:steps]
            for i, index in enumerate(batches):
                progress = (number * steps + i + 1) / (settings.passes * steps)
                optimiser.param_groups[0]["lr"] = settings.learning_rate * _rate(progress)
                with devices.memory_help(lambda: devices.try_fewer(f"pretraining {settings.backbone}", settings.batch_size)):
                    images = moved(to_float(train.images[index]), settings.shift, random).contiguous(
                        memory_format=torch.channels_last)
                    with devices.autocast(device, None):
                        scores = classifier(images)  # (b, classes)
                    loss = functional.cross_entropy(scores.float(), train.labels[index], label_smoothing=settings.smoothing)
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                total += loss.detach()
                bar.update()
            bar.set_postfix(loss=f"{float(total) / steps:.3f}")
            save_tensors(state, {**classifier.state_dict(), **optimiser_tensors(optimiser, "optimiser/")},
                         {"key": key, "passes": str(number + 1), "run": json.dumps(provenance(device))})
    return features, accuracy(classifier, test)


def _rate(progress: float, rising: float = 0.1) -> float:
    return progress / rising if progress < rising else (1 + math.cos(math.pi * (progress - rising) / (1 - rising))) / 2


def main(arguments: list[str] | None = None) -> None:
    """Train, write the weights, print the backbone's name with them."""
    options = parser(__doc__.splitlines()[0])
    add_colour(options, of="the classifier")
    options.add_argument("--passes", type=int, default=Settings.passes, help="over the database's images")
    options.add_argument("--batch-size", type=int, default=Settings.batch_size, help="images per step")
    options.add_argument("--weights", type=Path, default=Path("build/pretrained"), help="folder for the weights")
    asked = parse(options, arguments)
    for seed in asked.seeds:
        split = load(asked.dataset, asked.root, seed=seed, **dict(asked.load))
        network, stem, weights = backbones.parse(asked.backbone)
        name = f"{network}@{stem or split.train.images.shape[-1]}" if network in backbones.TORCHVISION else network
        settings = Settings(backbone=asked.backbone if weights else name, passes=1 if asked.fast else asked.passes,
                            batch_size=asked.batch_size, seed=seed)
        result = asked.out / f"pretrain-{place(asked.dataset, name)}-{seed}{'-fast' if asked.fast else ''}.json"
        keep_stored(options, result, [seed], parts=(), same={"settings": dataclasses.asdict(settings), "split": split.manifest})
        state = asked.work / f"pretrain-{home(asked.dataset, name, dict(asked.load))}" / f"seed{seed}.safetensors"
        features, right = pretrain(split, settings, state, asked.device)
        weights = features.state_dict()
        digest = hashlib.sha256(b"".join(w.cpu().contiguous().numpy().tobytes() for w in weights.values())).hexdigest()[:8]
        path = asked.weights / name / f"{place(asked.dataset)}-{digest}.safetensors"
        what = f"{name} as a classifier of {asked.dataset}'s database images"
        note = {"what": what, "weights": str(path), "accuracy": round(right, 4), "settings": dataclasses.asdict(settings),
                "split": split.manifest, "run": json.loads(read_metadata(state)["run"])}
        save_tensors(path, weights, {"backbone": name, "pretrained": what, "how": json.dumps(note)})
        save_json(result, note)
        print(f"{right:.3f} of the images left out are named rightly\n--backbone {shlex.quote(f'{name}:{path}')}")


if __name__ == "__main__":
    command(main)
