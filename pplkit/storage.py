"""Atomic writes and safe reads: weights as safetensors (never pickle), everything else as JSON."""

import contextlib
import functools
import json
import math
import os
import platform
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pplkit import device as devices


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically; `metadata` goes into the header (strings only)."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(ready, dict(metadata or {})))


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors (on the CPU) and the metadata of its header.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not safetensors, or cut short.
    """
    with _tensor_file(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file alone; errors as those of `read_tensors`."""
    with _tensor_file(path) as file:
        return file.metadata() or {}


@contextlib.contextmanager
def _tensor_file(path: str | Path) -> Iterator[safe_open]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file: {error}") from error


def scratch(shape: tuple[int, ...], folder: str | Path) -> Tensor:
    """An empty uint8 tensor whose pixels lie in a nameless file of `folder`, for what is larger than memory.

    The file's space is free again when the tensor is gone, also after a crash. (Linux, macOS.)

    Raises:
        OSError: the folder's disk has not enough room (where the system can tell beforehand).
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".pplkit-") as file:
        reserve(file.fileno(), math.prod(shape))
        return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=torch.uint8).view(shape)


def reserve(descriptor: int, size: int) -> None:
    """Take `size` bytes of the disk for an open file that will be mapped: a disk that fills up later would kill the process.

    Raises:
        OSError: there is not enough room (where the system can tell).
    """
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(descriptor, 0, size)


def save_json(path: str | Path, content: object) -> None:
    """Write JSON atomically, indented, keys in the order given; NaN is refused."""
    write_bytes(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def can_write(path: Path) -> bool:
    """Whether a file could be written at an absolute `path`, whose folders need not exist yet."""
    place = next(folder for folder in path.parents if folder.exists())
    return place.is_dir() and os.access(place, os.W_OK)


def provenance(device: str | torch.device = "auto") -> dict[str, str | int | None]:
    """What a stored result must say about the run: commit of the source tree, torch version, device (of a GPU its name), the
    dtype that training multiplies in there unless told otherwise, and the processor, its cores and torch's threads on them.

    The commit is the one at this process's first call: what is committed while a long run goes on is not what runs. It is
    "unknown" without git, and in an installed copy, even if that lies inside somebody else's repository.
    """
    device = devices.resolve(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    dtype = "bfloat16" if devices.multiplies_bfloat16(device) else "float32"
    return {"commit": _commit(), "torch": torch.__version__, "device": name, "dtype": dtype, "cpu": _cpu_name(),
            "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def _cpu_name() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@functools.cache
def _commit() -> str:
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here.parent, text=True, capture_output=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", here.name)
        return git("describe", "--always", "--dirty", "--abbrev=12").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
