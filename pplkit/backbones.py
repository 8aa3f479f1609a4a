"""Feature networks by name. Input normalisation lives here: everything outside sees pixels in [0, 1]."""

import torch
from torch import Tensor, nn
from torchvision import models

# Per-channel mean and standard deviation of the training images, in pixel units.
STATISTICS = {1: ((0.286,), (0.353,)), 3: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))}


class Normalise(nn.Module):
    """(x − mean) / std per channel; x float (B, C, H, W) in [0, 1]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class TwoConv(nn.Module):
    """The paper's network for grey images: two 5×5 convolutions (20 and 50 channels), each with ReLU and 2×2 max-pooling.

    float (B, C, H, W) in [0, 1] -> features (B, 50·h·w), with h = ((H − 4)/2 − 4)/2.
    """

    def __init__(self, channels: int = 1, size: int = 28):
        super().__init__()
        side = ((size - 4) // 2 - 4) // 2
        if side < 1:
            raise ValueError(f"the two-convolution network needs images of at least 16 pixels, got {size}")
        self.normalise = Normalise(*STATISTICS[channels])
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.features = 50 * side * side

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalise(images)  # (B, C, H, W)
        # max-pooling before ReLU gives the same values and rectifies a quarter of the entries
        x = nn.functional.max_pool2d(self.conv1(x), 2).relu()  # (B, 20, (H-4)/2, (W-4)/2)
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
    """One of torchvision's classifiers without its last layers, random weights (no pretraining), behind a normalisation.

    float (B, C, H, W) in [0, 1] -> features (B, features).

    Args:
        body: the classifier, ending in its pooled features.
        channels: 1 or 3.
        features: width of these.
    """

    def __init__(self, body: nn.Module, channels: int, features: int):
        super().__init__()
        self.normalise = Normalise(*STATISTICS[channels])
        self.body = body
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return self.body(self.normalise(images))  # (B, features)


SMALL = 64  # up to this size in pixels the first layers keep the resolution; made for 224 pixels they would leave 1 × 1


def resnet18(channels: int, size: int) -> Torchvision:
    """ResNet-18 (He et al. 2016), 11 million weights; small images: 3×3 first convolution without stride or max-pooling."""
    body = models.resnet18(weights=None)
    if size <= SMALL:
        body.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        body.maxpool = nn.Identity()
    else:
        body.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    body.fc = nn.Identity()
    return Torchvision(body, channels, 512)


def mobilenet_v3_small(channels: int, size: int) -> Torchvision:
    """MobileNetV3-Small (Howard et al. 2019), 1 million weights; small images: first convolution without stride."""
    body = models.mobilenet_v3_small(weights=None)
    body.features[0][0] = nn.Conv2d(channels, 16, 3, stride=1 if size <= SMALL else 2, padding=1, bias=False)
    body.classifier = nn.Identity()
    return Torchvision(body, channels, 576)


BACKBONES = {"two_conv": TwoConv, "dense": Dense, "mobilenet_v3_small": mobilenet_v3_small, "resnet18": resnet18}


def create(name: str = "two_conv", channels: int = 1, size: int = 28) -> nn.Module:
    """Build a feature network with random weights and an attribute `features` (its output width).

    Args:
        name: "two_conv", the paper's network for grey images; "dense", two fully connected layers; "mobilenet_v3_small",
            "resnet18": torchvision's, with first layers for small images where the images are small.
        channels: 1 or 3.
        size: image height and width in pixels.

    Raises:
        ValueError: unknown name, or channels other than 1 and 3.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: choose one of {sorted(BACKBONES)}")
    if channels not in STATISTICS:
        raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels!r}")
    return BACKBONES[name](channels, size)
