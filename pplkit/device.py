"""Where to run and in which precision."""

import torch


def resolve(device: str | torch.device = "auto") -> torch.device:
    """ "auto" -> CUDA if there is one, else the CPU; anything else is taken as it is.

    Raises:
        ValueError: unknown name; CUDA is asked for and absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or another torch device, got {device!r}") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} asked for, but torch sees no CUDA device; use device='cpu' or 'auto'")
    return device


def autocast(device: torch.device, enabled: bool | None = None) -> torch.autocast:
    """bfloat16 autocast; None switches it on where the processor multiplies bfloat16 itself (elsewhere it is slower)."""
    if enabled is None:
        if device.type == "cuda":
            enabled = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            enabled = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
