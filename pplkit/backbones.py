"""Feature networks by name. Input normalisation lives here: everything outside sees pixels in [0, 1]."""

import pickle
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pplkit import device as devices
from pplkit.storage import read_tensors

if TYPE_CHECKING:  # loading it takes seconds, and most work needs none of its networks
    from torchvision import models

# Per-channel mean and standard deviation of the training images, in pixel units.
STATISTICS = {1: ((0.286,), (0.353,)), 3: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))}
# Of the images that torchvision's weights were trained on; grey: the mean over the channels.
IMAGENET_STATISTICS = {1: ((0.449,), (0.226,)), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
GOOGLENET_STATISTICS = {1: ((0.5,), (0.5,)), 3: ((0.5,) * 3, (0.5,) * 3)}  # its weights come from TensorFlow


class Normalise(nn.Module):
    """(x − mean) / std per channel; x float (B, C, H, W) in [0, 1]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class TwoConv(nn.Module):
    """The paper's network for grey images: two convolutions (20 and 50 channels), each with ReLU and 2×2 max-pooling.

    The paper prints the channels only. Kernels and padding are one of two readings: 5×5 without padding, where
    h = ((H − 4)/2 − 4)/2, or 3×3 with padding, where h = H/4; both rounded down at each division.

    float (B, C, H, W) in [0, 1] -> features (B, 50·h·w).
    """

    def __init__(self, channels: int = 1, size: int = 28, kernel: int = 5, padding: int = 0):
        super().__init__()
        lost = kernel - 1 - 2 * padding  # pixels that a convolution takes off the side
        side = ((size - lost) // 2 - lost) // 2
        if side < 1:
            raise ValueError(f"the two-convolution network needs images of at least {4 + 3 * lost} pixels, got {size}")
        self.normalise = Normalise(*STATISTICS[channels])
        self.conv1 = nn.Conv2d(channels, 20, kernel, padding=padding)
        self.conv2 = nn.Conv2d(20, 50, kernel, padding=padding)
        self.features = 50 * side * side

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalise(images)  # (B, C, H, W)
        # max-pooling before ReLU gives the same values and rectifies a quarter of the entries
        x = nn.functional.max_pool2d(self.conv1(x), 2).relu()  # (B, 20, h1, w1)
        x = nn.functional.max_pool2d(self.conv2(x), 2).relu()  # (B, 50, h, w)
        return x.flatten(1)  # (B, 50*h*w)


class Dense(nn.Module):
    """Two fully connected layers (512 and 256 units) with ReLU: nothing in it knows which pixels are neighbours.

    float (B, C, H, W) in [0, 1] -> features (B, 256).
    """

    def __init__(self, channels: int = 1, size: int = 28):
        super().__init__()
        self.normalise = Normalise(*STATISTICS[channels])
        self.fc1 = nn.Linear(channels * size * size, 512)
        self.fc2 = nn.Linear(512, 256)
        self.features = 256

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalise(images).flatten(1)  # (B, C*H*W)
        return self.fc2(self.fc1(x).relu()).relu()  # (B, 256)


class Torchvision(nn.Module):
    """One of torchvision's classifiers without its last layers, behind a normalisation.

    float (B, C, H, W) in [0, 1] -> features (B, features).

    Args:
        body: the classifier, ending in its pooled features.
        stages: the body's steps in order, each a callable; what `checkpointing` keeps the ends of.
        features: width of the output.
        statistics: (mean, std) per channel of the normalisation.
        checkpointing: keep only the stages' ends in the forward pass and compute the rest again in the backward pass: less
            memory, a third more time, the same gradients and running statistics.
    """

    def __init__(self, body: nn.Module, stages: Callable[[nn.Module], list[Callable[[Tensor], Tensor]]], features: int,
                 statistics: tuple[tuple[float, ...], tuple[float, ...]], checkpointing: bool = False):
        super().__init__()
        self.normalise = Normalise(*statistics)
        self.body = body
        self.stages = stages
        self.features = features
        self.checkpointing = checkpointing

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalise(images)  # (B, C, H, W)
        if not (self.checkpointing and self.training and torch.is_grad_enabled()):
            return self.body(x)  # (B, features)
        for stage in self.stages(self.body):
            x = checkpoint(stage, x, use_reentrant=False,
                           context_fn=lambda: (nullcontext(), RunningStatisticsKept(self.body)))
        return x  # (B, features)


class RunningStatisticsKept:
    """A context, to be entered any number of times, in which batch normalisation leaves its running statistics alone.

    For a forward pass that is made again: they saw this batch before.
    """

    def __init__(self, body: nn.Module):
        self.layers = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d)]

    def __enter__(self) -> None:
        self.before = [(layer.momentum, layer.num_batches_tracked.clone()) for layer in self.layers]
        for layer in self.layers:
            layer.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for layer, (momentum, tracked) in zip(self.layers, self.before, strict=True):
            layer.momentum = momentum
            layer.num_batches_tracked.copy_(tracked)


def _pooled(body: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: body.avgpool(x).flatten(1)


def _resnet_stages(body: "models.ResNet") -> list[Callable[[Tensor], Tensor]]:
    return [lambda x: body.maxpool(body.relu(body.bn1(body.conv1(x)))), body.layer1, body.layer2, body.layer3, body.layer4,
            _pooled(body)]


def _mobilenet_stages(body: "models.MobileNetV2 | models.MobileNetV3") -> list[Callable[[Tensor], Tensor]]:
    pool = nn.functional.adaptive_avg_pool2d
    return [*body.features, lambda x: pool(x, 1).flatten(1)]


def _googlenet_stages(body: "models.GoogLeNet") -> list[Callable[[Tensor], Tensor]]:
    def third(x: Tensor) -> Tensor:
        return body.maxpool3(body.inception3b(body.inception3a(x)))

    def fourth(x: Tensor) -> Tensor:
        return body.inception4c(body.inception4b(body.inception4a(x)))

    def fourth_too(x: Tensor) -> Tensor:
        return body.maxpool4(body.inception4e(body.inception4d(x)))

    return [lambda x: body.maxpool1(body.conv1(x)), lambda x: body.maxpool2(body.conv3(body.conv2(x))), third, fourth,
            fourth_too, lambda x: body.inception5b(body.inception5a(x)), _pooled(body)]


SMALLEST, SMALL = 32, 64  # pixels; made for 224 pixels, the first layers would leave 1 × 1 of smaller images


@dataclass(frozen=True)
class Family:
    """How to turn one kind of torchvision classifier into a feature network.

    Attributes:
        stages: see `Torchvision`.
        first: name of its first convolution's module.
        pool: name of the max-pooling behind it, or "".
        last: names of the layers to leave out (the classifier and its dropout).
        options: of the constructor.
        statistics: of the images that pretrained weights expect.
    """

    stages: Callable
    first: str
    pool: str = ""
    last: tuple[str, ...] = ("classifier",)
    options: tuple[tuple[str, object], ...] = ()
    statistics: dict = None


RESNET = Family(_resnet_stages, "conv1", "maxpool", ("fc",), (), IMAGENET_STATISTICS)
MOBILENET = Family(_mobilenet_stages, "features.0.0", statistics=IMAGENET_STATISTICS)
GOOGLENET = Family(_googlenet_stages, "conv1.conv", "maxpool1", ("fc", "dropout"),
                   (("aux_logits", False), ("transform_input", False), ("init_weights", True)), GOOGLENET_STATISTICS)
# name: (family, width of the features)
TORCHVISION = {
    "resnet18": (RESNET, 512),  # He et al. 2016; 11 million weights
    "resnet50": (RESNET, 2048),  # 24 million; the paper's network for colour images
    "wide_resnet50_2": (RESNET, 2048),  # Zagoruyko & Komodakis 2016; 67 million
    "mobilenet_v2": (MOBILENET, 1280),  # Sandler et al. 2018; 2 million
    "mobilenet_v3_small": (MOBILENET, 576),  # Howard et al. 2019; 1 million
    "mobilenet_v3_large": (MOBILENET, 960),  # 3 million
    "googlenet": (GOOGLENET, 1024),  # Szegedy et al. 2015; 6 million
}
SMALL_NETWORKS = {"dense": Dense, "two_conv": TwoConv, "two_conv_3x3": partial(TwoConv, kernel=3, padding=1)}
BACKBONES = (*SMALL_NETWORKS, *TORCHVISION)


def _torchvision(name: str, channels: int, stem: int, weights: str, fetch: bool, checkpointing: bool) -> Torchvision:
    from torchvision import models

    family, features = TORCHVISION[name]
    body = getattr(models, name)(weights=None, **dict(family.options))
    old = body.get_submodule(family.first)
    small = stem <= SMALL
    kernel = (3, 3) if small else old.kernel_size
    new = nn.Conv2d(channels, old.out_channels, kernel, stride=1 if small else 2, padding=kernel[0] // 2, bias=False)
    body.set_submodule(family.first, new)
    if family.pool and stem <= SMALLEST:
        body.set_submodule(family.pool, nn.Identity())
    for layer in family.last:
        body.set_submodule(layer, nn.Identity())
    theirs = weights and not _is_file(weights)
    if theirs and fetch:
        _load_weights(body, name, weights, f"{family.first}.weight")
    statistics = family.statistics if theirs else STATISTICS
    return Torchvision(body, family.stages, features, statistics[channels], checkpointing)


def _load_weights(body: nn.Module, name: str, weights: str, first: str) -> None:
    """Fill `body` with torchvision's trained weights; the first kernel is cut to its centre, and summed for grey images."""
    from torchvision import models

    choice = models.get_model_weights(name)[weights]
    try:
        state = choice.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(choice.url).name
        if cache.is_file() and not isinstance(error, PermissionError) and not devices.is_out_of_memory(error):
            raise ValueError(f"the weights {weights} of {name} at {cache} are damaged ({error}): delete the file, and they are "
                             "fetched again") from error
        raise FileNotFoundError(
            f"the weights {weights} of {name} are not at {cache} and could not be fetched from {choice.url} ({error}): put "
            f"the file there, or start from random weights with weights=None (backbone {name!r} without {':' + weights!r})"
        ) from error
    own = body.state_dict()
    kernel, (channels, side) = state[first], own[first].shape[1:3]
    cut = (kernel.shape[-1] - side) // 2
    kernel = kernel[..., cut:cut + side, cut:cut + side]  # (O, 3, side, side)
    state[first] = kernel.sum(1, keepdim=True) if channels == 1 else kernel
    body.load_state_dict({key: value for key, value in state.items() if key in own}, strict=True)


def _is_file(weights: str) -> bool:
    return weights.endswith(".safetensors")


def _read_weights(network: nn.Module, name: str, path: str) -> None:
    """Fill a feature network with what `pplkit.experiments.pretrain` wrote; `name` says its first layers, "resnet18@64"."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no weights at {path}; `python -m pplkit.experiments.pretrain --dataset ... --backbone {name}`"
                                " makes such files")
    tensors, header = read_tensors(path)
    try:
        if header.get("backbone", name) != name:  # pooling has no weights: other first layers may fit, and be wrong
            raise RuntimeError(f"its weights are of {header['backbone']}")
        network.load_state_dict(tensors)
    except RuntimeError as error:
        holds = header.get("pretrained", "nothing that pplkit.experiments.pretrain wrote")
        raise ValueError(f"{path} does not fit {name!r} for these images: it holds {holds}") from error


def parse(name: str, weights: str | None = None) -> tuple[str, int | None, str]:
    """Split "resnet50@64:IMAGENET1K_V2" into network, size of the images that its first layers are made for (None: of those
    it gets), and weights ("" for random ones): a name that torchvision has for them, or a file that
    `pplkit.experiments.pretrain` wrote, as in "resnet18:build/pretrained/resnet18/imagenet13-1a2b3c4d.safetensors".

    Raises:
        ValueError: unknown network, size or weights; lists what there is.
    """
    form, _, inside = str(name).partition(":")
    network, at, stem = form.partition("@")
    if network not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose one of {sorted(BACKBONES)}")
    if at and (network not in TORCHVISION or not stem.isdecimal() or int(stem) < 1):
        raise ValueError(f"backbone {name!r}: behind @ stands the size in pixels that the first layers of a torchvision "
                         f"network ({', '.join(TORCHVISION)}) are made for, as in 'resnet18@{SMALL}'")
    if inside and weights:
        raise ValueError(f"backbone {name!r} names weights already: leave weights={weights!r} out")
    chosen = inside or weights or ""
    if chosen and not _is_file(chosen):
        from torchvision import models

        known = list(models.get_model_weights(network).__members__) if network in TORCHVISION else []
        if chosen not in known:
            raise ValueError(f"there are no weights {chosen!r} for {network!r}: {' or '.join(known) or 'it has none'}, "
                             "a file that ends in .safetensors, or None")
    return network, int(stem) if at else None, chosen


def create(name: str = "two_conv", channels: int = 1, size: int = 28, *, weights: str | None = None, fetch: bool = True,
           checkpointing: bool = False) -> nn.Module:
    """Build a feature network with an attribute `features` (its output width).

    Torchvision's networks get first layers for small images: up to 64 pixels a 3×3 convolution without stride, up to 32 pixels
    also no max-pooling behind it. "resnet18@64" has those for 64 pixels whatever the images' size: for images up to 32
    pixels about a quarter of the multiplications, on feature maps of half the side.

    Args:
        name: "two_conv" (5×5) and "two_conv_3x3", two readings of the paper's network for grey images; "dense", two fully
            connected layers; "resnet50", the paper's for colour images; "resnet18", "wide_resnet50_2", "mobilenet_v2",
            "mobilenet_v3_small", "mobilenet_v3_large", "googlenet". "resnet50:IMAGENET1K_V2" is short for these `weights`,
            where only a name can be given.
        channels: 1 or 3.
        size: image height and width in pixels.
        weights: None: random; the name of torchvision's trained weights ("DEFAULT" is its best), from its cache or the
            network (they were trained on ImageNet, so the normalisation is ImageNet's); or a file that
            `pplkit.experiments.pretrain` wrote for the same first layers and channels.
        fetch: False builds the form of a network with `weights` only, to be filled from a checkpoint.
        checkpointing: see `Torchvision`; the small networks have nothing to save and ignore it.

    Raises:
        ValueError: unknown name or weights, channels other than 1 and 3, images too small, a file of another network.
        FileNotFoundError: weights that are neither in torchvision's cache nor to be fetched; says where to put them.
    """
    name, stem, weights = parse(name, weights)
    if channels not in STATISTICS:
        raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels!r}")
    if name in TORCHVISION:
        network = _torchvision(name, channels, stem or size, weights, fetch, checkpointing)
    else:
        network = SMALL_NETWORKS[name](channels, size)
    if fetch and _is_file(weights):
        _read_weights(network, f"{name}@{stem or size}" if name in TORCHVISION else name, weights)
    return network
