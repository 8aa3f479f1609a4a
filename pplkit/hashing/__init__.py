"""The victims: deep-hashing retrieval systems that a malicious searcher would train."""

import json
from pathlib import Path

import torch

from pplkit.hashing.adsh import ADSH
from pplkit.hashing.dpsh import DPSH
from pplkit.hashing.dsdh import DSDH
from pplkit.hashing.dsh import DSH
from pplkit.hashing.network import HashingNetwork, sign
from pplkit.hashing.victim import CollapseWarning, Victim
from pplkit.storage import read_metadata

__all__ = ["ADSH", "DPSH", "DSDH", "DSH", "CollapseWarning", "HashingNetwork", "Victim", "load", "sign"]


def load(path: str | Path, *, device: str | torch.device | None = None) -> Victim:
    """Read any victim's checkpoint (safetensors) written by `Victim.save`; arguments as for `Victim.load`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a victim's checkpoint, or of a method this version does not know.
    """
    methods = {method.__name__: method for method in (ADSH, DPSH, DSDH, DSH)}
    if not Path(path).is_file():
        raise FileNotFoundError(f"no victim checkpoint at {path}; `python -m pplkit.experiments.table1` trains them")
    header = json.loads(read_metadata(path).get("victim", "{}"))
    if header.get("method") not in methods:
        raise ValueError(f"{path} is not the checkpoint of a known victim {sorted(methods)}: found {header.get('method')!r}")
    return methods[header["method"]].load(path, device=device)
