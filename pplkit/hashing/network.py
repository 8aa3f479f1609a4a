"""The hashing network all methods share: backbone -> linear(c) -> tanh; code = sign."""

import torch
from torch import Tensor, nn

from pplkit import backbones
from pplkit import device as devices
from pplkit.budget import check_images, to_float
from pplkit.preconditions import check_whole


def sign(relaxed_codes: Tensor) -> Tensor:
    """h = sign(u) in {−1, +1}, int8, with sign(0) = +1 (eq. 1)."""
    return torch.where(relaxed_codes >= 0, 1, -1).to(torch.int8)


def image_form(images: Tensor) -> tuple[int, int]:
    """(channels, size) of square uint8 images (N, C, H, H), the form that a network is built for.

    Raises:
        ValueError: not uint8 (N, C, H, W), or not square.
    """
    channels, height, width = check_images(images).shape[1:]
    if height != width:
        raise ValueError(f"hashing networks take square images, got {height} x {width} pixels: crop or resize them")
    return channels, height


def _batch_to(device: torch.device, batch: Tensor) -> Tensor:
    # Needs a GPU to matter, and is not timed on one: from pinned memory the copy runs while the kernels are being launched.
    if device.type == "cuda" and batch.device.type == "cpu":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


class HashingNetwork(nn.Module):
    """F: images (B, C, H, W) float in [0, 1] -> relaxed codes u (B, c) in (−1, 1).

    Args:
        backbone: module with an attribute `features`, images -> (B, features), normalising its own input.
        bits: code length c ≥ 1.
    """

    def __init__(self, backbone: nn.Module, bits: int):
        super().__init__()
        check_whole(bits, "bits (code length)")
        self.bits = bits
        self.image_form: tuple[int, int] | None = None  # (channels, size), set by `build`
        self.backbone = backbone
        self.code = nn.Linear(backbone.features, bits)

    def forward(self, images: Tensor) -> Tensor:
        """Relaxed codes u = tanh(W f(x) + b), f the backbone, W (c, features) and b (c,) the code layer.

        Args:
            images: x, float (B, C, H, W) in [0, 1]; their form is not checked here, `encode` does that.

        Returns:
            u, float (B, c) in (−1, 1) up to rounding, with gradient.
        """
        return torch.tanh(self.code(self.backbone(images)))  # (B, c)

    @torch.no_grad()
    def encode(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Binary codes sign(u) of uint8 images, computed in eval mode.

        Args:
            images: uint8 (N, C, H, W).
            batch_size: images per forward pass, at least 1.

        Returns:
            int8 (N, c) in {−1, +1}, on the device of `images`.

        Raises:
            ValueError: not uint8 (N, C, H, W), or of another form than the network was built for; a batch size below 1.
            OutOfMemory: a batch does not fit; the message names the size to try.
        """
        check_whole(batch_size, "batch_size")
        form = image_form(images)
        if self.image_form not in (None, form):
            raise ValueError(f"this network takes images of (channels, size) = {self.image_form}, got {form}")
        device = self.code.weight.device
        training = self.training
        self.eval()
        codes = torch.empty(len(images), self.bits, dtype=torch.int8, device=device)  # (N, c)
        for start in range(0, len(images), batch_size):
            with devices.memory_help(lambda: devices.try_fewer("encode", batch_size)):
                batch = to_float(_batch_to(device, images[start:start + batch_size]))  # (B, C, H, W)
                batch = batch.contiguous(memory_format=torch.channels_last)  # twice as fast for small convolutions
                codes[start:start + batch_size] = sign(self(batch))
        self.train(training)
        return codes.to(images.device)


def build(bits: int, backbone: str, channels: int, size: int, seed: int, *, fetch: bool = True,
          checkpointing: bool = False) -> HashingNetwork:
    """A hashing network with seeded random weights; the global random state is left as it was.

    `fetch` and `checkpointing` as for `backbones.create`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = backbones.create(backbone, channels, size, fetch=fetch, checkpointing=checkpointing)
        network = HashingNetwork(made, bits)
    network.image_form = (channels, size)
    return network
