"""Everything a game needs to go on, in one safetensors file with a JSON header: written atomically, no pickle."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pplkit.storage import read_tensors, save_tensors

if TYPE_CHECKING:
    from pplkit.game import Game


class OtherCheckpoint(ValueError):
    """A file that is no checkpoint of this run: damaged, or of another configuration or other images.

    `found` says what it is, without what to do about it.
    """

    def __init__(self, found: str, remedy: str = "use another file name"):
        super().__init__(f"{found}: {remedy}")
        self.found = found


def _networks(game: "Game") -> dict[str, torch.nn.Module]:
    named = {"generator": game.generator} | {f"surrogate{i}": network for i, network in enumerate(game.surrogates)}
    return named | ({"average": game.average} if game.average is not None else {})


def _describe(game: "Game") -> str:
    return json.dumps(dataclasses.asdict(game.config))


def store(path: str | Path, game: "Game", history: dict[str, list[float]], collapsed: str | None = None) -> None:
    """Write the players, optimisers, random state and history of a game to `path`, and what the collapse detector said."""
    tensors: dict[str, Tensor] = {"random": game.random.get_state()}
    for name, network in _networks(game).items():
        tensors |= {f"{name}/{key}": value for key, value in network.state_dict().items()}
    for i, state in enumerate(game.fresh if game.config.refresh_every else []):
        tensors |= {f"fresh{i}/{key}": value for key, value in state.items()}
    for name, optimiser in game.optimisers.items():
        tensors |= optimiser_tensors(optimiser, f"optimiser/{name}/")
    save_tensors(path, tensors, {"ppl_config": _describe(game), "data": game.fingerprint, "parts": str(game.parts),
                                 "history": json.dumps(history), "collapsed": json.dumps(collapsed)})


def restore(path: str | Path, game: "Game") -> tuple[dict[str, list[float]], str | None]:
    """Bring a new game to the state in `path`; returns the history and what the collapse detector said.

    Raises:
        OtherCheckpoint: not a checkpoint of `train_ppl`, one of another configuration (says which fields differ;
            `checkpoint_every` may), or one of a run with other images or labels, or whose batch normalisation saw other parts
            of a batch.
    """
    try:
        tensors, header = read_tensors(path)
    except ValueError as error:
        raise OtherCheckpoint(str(error)) from error
    if "ppl_config" not in header:
        raise OtherCheckpoint(f"{path} is not a checkpoint of train_ppl: it has no 'ppl_config' in its header")
    stored, asked = json.loads(header["ppl_config"]), json.loads(_describe(game))
    different = [f"{key}: {stored.get(key)!r} in the file, {asked[key]!r} asked for" for key in asked
                 if key != "checkpoint_every" and stored.get(key) != asked[key]]
    if different:
        raise OtherCheckpoint(f"{path} belongs to another configuration ({'; '.join(different)})")
    if header.get("data") != game.fingerprint:
        raise OtherCheckpoint(f"{path} belongs to a run with other training images or labels")
    parts = header.get("parts", str(game.parts))  # older files do not say
    if parts != str(game.parts):
        raise OtherCheckpoint(f"{path} belongs to a run with accumulation={parts}, {game.parts} asked for, and batch "
                              "normalisation sees one part at a time")
    game.random.set_state(tensors["random"])
    for name, network in _networks(game).items():
        network.load_state_dict({key: tensors[f"{name}/{key}"] for key in network.state_dict()})
    if "fresh0/code.weight" in tensors:
        game.fresh = [{key: tensors[f"fresh{i}/{key}"] for key in network.state_dict()}
                      for i, network in enumerate(game.surrogates)]
    for name, optimiser in game.optimisers.items():
        fill_optimiser(optimiser, tensors, f"optimiser/{name}/")
    return json.loads(header["history"]), json.loads(header.get("collapsed", "null"))


def optimiser_tensors(optimiser: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """What an optimiser remembers: "PREFIX<index of the weight>/<entry>" -> tensor."""
    return {f"{prefix}{index}/{key}": value for index, state in optimiser.state_dict()["state"].items()
            for key, value in state.items() if value is not None}


def fill_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], prefix: str) -> None:
    """Let a new optimiser remember what `optimiser_tensors` took from another one; its own learning rates stay."""
    state: dict[int, dict[str, Tensor]] = {}
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, entry = key.removeprefix(prefix).split("/")
            weight = weights[int(index)]
            # moments must lie in memory as their weight does (channels_last), or a fused step mixes them up
            state.setdefault(int(index), {})[entry] = torch.empty_like(weight).copy_(value) if value.ndim else value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
