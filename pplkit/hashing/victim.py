"""What all victims share: settings, data checks, the training loop, encoding, checkpoints."""

import dataclasses
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pplkit import device as devices
from pplkit.budget import to_float
from pplkit.hashing.network import HashingNetwork, build, image_form
from pplkit.preconditions import check_whole, is_number
from pplkit.progress import progress_bar
from pplkit.storage import read_tensors, save_tensors


class CollapseWarning(UserWarning):
    """A network gives every image the same code, or codes near 0: what it is asked next means nothing."""


def check_labels(labels: Tensor, name: str = "labels", count: int | None = None) -> None:
    """ValueError unless labels are class numbers (N,) or multi-hot (N, L), N > 0 and equal to `count` if given."""
    fits = isinstance(labels, Tensor) and labels.ndim in (1, 2) and labels.numel() > 0 and not labels.is_floating_point()
    if not fits or count not in (None, len(labels)):
        known = "N > 0" if count is None else f"N = {count} > 0 as the images"
        raise ValueError(f"{name} must be integers (N,) or multi-hot (N, L) with {known}, got {form(labels)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (labels.ndim == 2 and high > 1):
        raise ValueError(f"{name} must be class numbers of at least 0, or multi-hot in 0 and 1; got {low}..{high}")


def form(value: object) -> str:
    """What an error says of a value: dtype and shape of a tensor, else its type."""
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


@dataclass(eq=False)
class Victim:
    """A hashing method: settings at construction, `fit` trains, `encode` gives codes. Subclasses define `_fit`.

    Args:
        bits: code length c ≥ 1.
        backbone: name for `pplkit.backbones.create`, as "two_conv", "resnet18" or "resnet50:IMAGENET1K_V2".
        batch_size: images per step.
        learning_rate: of Adam.
        weight_decay: of Adam (L2).
        schedule: of the learning rate over the epochs: "cosine" (down to 0) or "constant".
        flip: mirror each training image with probability ½ (augmentation).
        seed: initial weights, order of the batches, and whatever else the method draws.
        device: "auto", "cpu", "cuda".
        autocast: bfloat16 in the network's training passes; None: where the processor is faster with it.
    """

    bits: int
    backbone: str = field(default="two_conv", kw_only=True)
    batch_size: int = field(default=128, kw_only=True)
    learning_rate: float = field(default=1e-3, kw_only=True)
    weight_decay: float = field(default=0.0, kw_only=True)
    schedule: str = field(default="cosine", kw_only=True)
    flip: bool = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    device: str = field(default="auto", kw_only=True)
    autocast: bool | None = field(default=None, kw_only=True)
    network: HashingNetwork | None = field(default=None, init=False, repr=False)
    database_codes: Tensor | None = field(default=None, init=False, repr=False)
    history: list[float] = field(default_factory=list, init=False, repr=False)
    metadata: dict[str, object] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("bits", "batch_size", "epochs", "outer_epochs", "inner_epochs", "sample_size", "sweeps", "seed"):
            check_whole(getattr(self, name, 1), name, 0 if name == "seed" else 1)
        for name in ("weight_decay", "gamma", "alpha", "eta", "mu", "nu"):
            if not is_number(value := getattr(self, name, 0)):
                raise ValueError(f"{name} must be at least 0 and finite, got {value!r}")
        for name, choices in {"flip": (True, False), "balanced": (True, False), "autocast": (None, True, False)}.items():
            value = getattr(self, name, False)
            if not any(value is choice for choice in choices):
                raise ValueError(f"{name} must be one of {list(choices)}, got {value!r}")
        if self.schedule not in ("cosine", "constant"):
            raise ValueError(f"schedule must be 'cosine' or 'constant', got {self.schedule!r}")
        if not is_number(self.learning_rate) or self.learning_rate == 0:
            raise ValueError(f"learning_rate must be positive and finite, got {self.learning_rate!r}")

    def fit(self, images: Tensor, labels: Tensor, *, progress: bool = True) -> "Victim":
        """Train on labelled images.

        Args:
            images: uint8 (N, C, H, W).
            labels: int (N,) class indices, or multi-hot (N, L).
            progress: show a progress bar.

        Returns:
            self.

        Raises:
            ValueError: wrong shapes or dtypes; negative labels; a loss that is not finite.
            OutOfMemory: names what to lower.

        Warns:
            CollapseWarning: all images get the same code, or codes near 0; says what to change.
        """
        self._check(images, labels)
        images, labels = self._start(images, labels)
        self._fit(images, labels, progress)
        return self._finish(images, labels)

    def _fit(self, images: Tensor, labels: Tensor, progress: bool) -> None:
        raise NotImplementedError

    @property
    def _epochs(self) -> int:
        return self.epochs

    def _check(self, images: Tensor, labels: Tensor) -> None:
        image_form(images)
        check_labels(labels, count=len(images))

    def _start(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Move the data to the device, build the seeded network and its optimiser."""
        channels, size = images.shape[1:3]
        device = devices.resolve(self.device)
        self.network = build(self.bits, self.backbone, channels, size, self.seed)
        self.network = self.network.to(device, memory_format=torch.channels_last).train()
        self._optimiser = torch.optim.Adam(self.network.parameters(), self.learning_rate,
                                           weight_decay=self.weight_decay, fused=True)
        self._random = torch.Generator().manual_seed(self.seed)
        self.database_codes, self.history = None, []
        with devices.memory_help(lambda: f"out of memory: {len(images)} training images of {tuple(images.shape[1:])} do not "
                                 f"fit on {device}: take fewer or smaller images"):
            return images.to(device), labels.to(device)

    def _finish(self, images: Tensor, labels: Tensor) -> "Victim":
        """Put the network in eval mode; warn if the images of several classes do not differ in their relaxed codes."""
        self.network.eval()
        if len(labels.unique(dim=0)) > 1:
            shown = torch.linspace(0, len(images) - 1, min(len(images), 256)).long().to(images.device)  # (n,)
            with torch.no_grad():
                spread = float(self.network(to_float(images[shown])).std(0).mean())
            if spread < 0.02:
                warnings.warn(f"{type(self).__name__} with {self.bits} bits collapsed: all images get the same code, or codes "
                              f"near 0 (spread {spread:.3f}), so every search returns chance. Try a lower learning_rate (now "
                              f"{self.learning_rate:g}), or more epochs", CollapseWarning, stacklevel=3)
        return self

    def _train_epoch(self, images: Tensor, order: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
        """One pass over `images[order]`: minimise `loss(index of the batch, relaxed codes u (b, c))`; mean loss."""
        total = torch.zeros((), device=images.device)
        if self.schedule == "cosine":
            done = len(self.history) / self._epochs
            self._optimiser.param_groups[0]["lr"] = self.learning_rate * (1 + math.cos(math.pi * done)) / 2
        batches = list(order.to(images.device).split(self.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1:  # batch normalisation of a 1 × 1 feature map needs two images
            batches[-2:] = [torch.cat(batches[-2:])]
        for index in batches:
            batch = to_float(images[index]).contiguous(memory_format=torch.channels_last)  # (b, C, H, W)
            if self.flip:
                mirror = torch.rand(len(index), generator=self._random) < 0.5  # (b,)
                batch = torch.where(mirror.to(images.device)[:, None, None, None], batch.flip(-1), batch)
            with devices.memory_help(lambda: devices.try_fewer(f"{type(self).__name__} ({self.backbone})", self.batch_size)):
                with devices.autocast(images.device, self.autocast):
                    relaxed = self.network(batch)  # (b, c)
                value = loss(index, relaxed.float())
                self._optimiser.zero_grad(set_to_none=True)
                value.backward()
                self._optimiser.step()
            total += value.detach()
        mean = float(total / len(batches))
        if mean != mean or abs(mean) == float("inf"):
            raise ValueError(f"{type(self).__name__}: the loss became {mean} in epoch {len(self.history) + 1}; "
                             f"lower learning_rate (now {self.learning_rate})")
        self.history.append(mean)
        return mean

    def _permutation(self, n: int) -> Tensor:
        return torch.randperm(n, generator=self._random)  # (n,)

    def _bar(self, epochs: int, progress: bool) -> tqdm:
        description = f"{type(self).__name__} {self.bits} bits"
        return progress_bar(range(epochs), show=progress, description=description, unit="epoch")

    def encode(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Binary codes of uint8 images (N, C, H, W): int8 (N, bits) in {−1, +1}.

        Args:
            images: uint8 (N, C, H, W), of the form that the victim was trained on.
            batch_size: images per forward pass, at least 1.

        Returns:
            int8 (N, bits), on the device of `images`.

        Raises:
            RuntimeError: the victim was not trained.
            ValueError: images of another form, or a batch size below 1.
        """
        if self.network is None:
            raise RuntimeError(f"this {type(self).__name__} is not trained: call fit(images, labels) or load a checkpoint")
        return self.network.encode(images, batch_size)

    def settings(self) -> dict[str, object]:
        """The constructor's arguments, JSON-able."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}

    def save(self, path: str | Path, *, include_database: bool = True, **metadata: object) -> None:
        """Write a checkpoint (safetensors, atomic): weights, settings, image form, database codes, JSON-able `metadata`.

        Args:
            path: of the file; missing folders are made.
            include_database: store `database_codes`, int8 (n, bits), where the method has learned them.
            metadata: comes back as `.metadata` of what `load` reads.

        Raises:
            RuntimeError: the victim was not trained.
            TypeError: metadata that JSON cannot hold.
        """
        if self.network is None:
            raise RuntimeError(f"this {type(self).__name__} is not trained: there is nothing to save")
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.database_codes is not None and include_database:
            tensors["database_codes"] = self.database_codes
        image = self.network.image_form
        header = {"method": type(self).__name__, "settings": self.settings(), "image": image, "metadata": metadata}
        save_tensors(path, tensors, {"victim": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device | None = None) -> "Victim":
        """Read a checkpoint of this class, its metadata in `.metadata`; `pplkit.hashing.load` finds the method itself.

        The `history` of the training is not stored: it is empty.

        Args:
            path: of the file.
            device: where the network goes; None: the device that it was trained on, "auto" where that is not there.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a victim's checkpoint, or another method's.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no victim checkpoint at {path}; `python -m pplkit.experiments.table1` trains them")
        tensors, header = read_tensors(path)
        if "victim" not in header:
            raise ValueError(f"{path} is not a victim's checkpoint: it has no 'victim' entry in its header")
        header = json.loads(header["victim"])
        if header["method"] != cls.__name__:
            raise ValueError(f"{path} holds a {header['method']}, not a {cls.__name__}; use pplkit.hashing.load")
        victim = cls(**header["settings"])
        victim.network = build(victim.bits, victim.backbone, *header["image"], victim.seed, fetch=False)
        victim.metadata = header["metadata"]
        victim.database_codes = tensors.pop("database_codes", None)
        victim.network.load_state_dict({name.removeprefix("network."): value for name, value in tensors.items()})
        if device is None:
            device = victim.device if devices.is_there(victim.device) else "auto"
        victim.network.to(devices.resolve(device), memory_format=torch.channels_last).eval()
        return victim
