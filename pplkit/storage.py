"""Atomic writes and safe reads: weights as safetensors (never pickle), everything else as JSON."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically; `metadata` goes into the header (strings only)."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(ready, dict(metadata or {})))


def save_json(path: str | Path, content: object) -> None:
    """Write JSON atomically, indented, keys in the order given; NaN is refused."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def provenance() -> dict[str, str]:
    """What a stored result must say about the run: commit of the source tree (or "unknown"), torch version, device."""
    folder = Path(__file__).resolve().parent
    git = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=folder, text=True,
                         capture_output=True, check=False)
    return {"commit": git.stdout.strip() or "unknown", "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}
