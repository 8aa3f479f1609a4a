"""The adversarial generator G: an auto-encoder that maps an image to a perturbation pattern."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pplkit.preconditions import is_whole
from pplkit.storage import read_tensors, save_tensors

GREY_WIDTHS = (16, 32, 64, 128)
COLOUR_WIDTHS = (64, 128, 256, 512)


class PerturbationGenerator(nn.Module):
    """Pattern generator: 4 stride-2 convolutions down, 4 times (resize, convolution) up, tanh at the end.

    float (B, C, H, W) in [0, 1] -> pattern (B, C, H, W) in (−1, 1); `pplkit.budget` scales it to ε. Any image size works: each
    decoder stage resizes to the size its encoder stage saw. Channel numbers as in the paper: 16-32-64-128 for grey images,
    64-128-256-512 for colour. Strides and sizes are our choice, the paper does not print them.

    Args:
        channels: image channels, 1 or 3.
        widths: encoder channels, the decoder mirrors them; default by `channels`.
        full_resolution: the other reading of the decoder: one resize to the image's size, then its 4 convolutions there, for
            about twenty times the multiplications.

    Attributes:
        metadata: the header of the file that `load` read; empty otherwise.
    """

    def __init__(self, channels: int = 1, widths: Sequence[int] | None = None, *, full_resolution: bool = False):
        super().__init__()
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels!r}")
        self.channels, self.full_resolution = channels, full_resolution
        self.metadata: dict[str, object] = {}
        self.widths = tuple(widths or (GREY_WIDTHS if channels == 1 else COLOUR_WIDTHS))
        if not all(is_whole(width, 1) for width in self.widths):
            raise ValueError(f"widths must be whole numbers of at least 1, got {widths!r}")
        down = (channels, *self.widths)
        up = tuple(reversed(self.widths))
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
            for i, o in zip(down[:-1], down[1:], strict=True))
        self.decoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
            for i, o in zip(up[:-1], up[1:], strict=True))
        self.output = nn.Conv2d(self.widths[0], channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """The pattern tanh(decoder(encoder(x))), not yet scaled to ε.

        Args:
            images: x, float (B, C, H, W) in [0, 1], C = `channels`, any H and W.

        Returns:
            float (B, C, H, W) in (−1, 1) up to rounding, with gradient.

        Raises:
            ValueError: not four dimensions, or another number of channels.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ValueError(f"the generator was built for {self.channels} channels, got images of shape "
                             f"{tuple(images.shape)}; expected (B, {self.channels}, H, W)")
        x, sizes = images, []
        for stage in self.encoder:
            sizes.append(x.shape[-2:])
            x = stage(x)  # (B, width, ceil(h/2), ceil(w/2))
        if self.full_resolution:
            height, width = images.shape[-2:]
            x = nn.functional.interpolate(x, scale_factor=2.0 ** len(self.widths))[..., :height, :width]  # (B, width, H, W)
        for stage in self.decoder:
            x = stage(x if self.full_resolution else nn.functional.interpolate(x, sizes.pop()))  # (B, width, h, w)
        x = self.output(x if self.full_resolution else nn.functional.interpolate(x, sizes.pop()))  # (B, C, H, W)
        return torch.tanh(x)

    def save(self, path: str | Path, **metadata: object) -> None:
        """Write the weights (safetensors, atomic) with the architecture and any JSON-able `metadata`."""
        header = {**metadata, "channels": self.channels, "widths": list(self.widths),
                  **({"full_resolution": True} if self.full_resolution else {})}
        save_tensors(path, self.state_dict(), {"generator": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path) -> "PerturbationGenerator":
        """Read a generator written by `save`; it comes back in eval mode, its metadata in `.metadata`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file holds something else.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no generator checkpoint at {path}; `pplkit train` makes one")
        tensors, header = read_tensors(path)
        if "generator" not in header:
            raise ValueError(f"{path} is not a generator checkpoint: it has no 'generator' entry in its header")
        metadata = json.loads(header["generator"])
        with torch.random.fork_rng(devices=[]):  # the random start is overwritten: leave the global state as it was
            generator = cls(metadata["channels"], metadata["widths"], full_resolution=metadata.get("full_resolution", False))
        generator.load_state_dict(tensors)
        generator.metadata = metadata
        return generator.eval()
