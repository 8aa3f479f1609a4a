"""The hashing network all methods share: backbone -> linear(c) -> tanh; code = sign."""

import torch
from torch import Tensor, nn

from pplkit import backbones
from pplkit.budget import check_images, to_float


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


class HashingNetwork(nn.Module):
    """F: images (B, C, H, W) float in [0, 1] -> relaxed codes u (B, c) in (−1, 1).

    Args:
        backbone: module with an attribute `features`, images -> (B, features), normalising its own input.
        bits: code length c ≥ 1.
    """

    def __init__(self, backbone: nn.Module, bits: int):
        super().__init__()
        if isinstance(bits, bool) or not isinstance(bits, int) or bits < 1:
            raise ValueError(f"bits (code length) must be a whole number of at least 1, got {bits!r}")
        self.bits = bits
        self.image_form: tuple[int, int] | None = None  # (channels, size), set by `build`
        self.backbone = backbone
        self.code = nn.Linear(backbone.features, bits)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(self.code(self.backbone(images)))  # (B, c)

    @torch.no_grad()
    def encode(self, images: Tensor, batch_size: int = 256) -> Tensor:
        """Binary codes of uint8 images (N, C, H, W): int8 (N, c) in {−1, +1}, on the device of `images`.

        Raises:
            ValueError: not uint8 (N, C, H, W), or of another form than the network was built for.
        """
        form = image_form(images)
        if self.image_form not in (None, form):
            raise ValueError(f"this network takes images of (channels, size) = {self.image_form}, got {form}")
        parameter = self.code.weight
        training = self.training
        self.eval()
        codes = torch.empty(len(images), self.bits, dtype=torch.int8, device=images.device)  # (N, c)
        for start in range(0, len(images), batch_size):
            batch = to_float(images[start:start + batch_size].to(parameter.device))  # (B, C, H, W)
            batch = batch.contiguous(memory_format=torch.channels_last)  # twice as fast for small convolutions
            codes[start:start + batch_size] = sign(self(batch)).to(images.device)
        self.train(training)
        return codes


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
