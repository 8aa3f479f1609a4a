"""pplkit.checkpoints: an interrupted run goes on as if it had never stopped, bit for bit; wrong files are refused."""

import json

import pytest
import torch

from pplkit import checkpoints, storage
from pplkit.data import ImageSet
from pplkit.game import Game
from pplkit.training import PPLConfig, PPLRun, train_ppl

STEPS = {"warmup_steps": 5, "steps": 7, "checkpoint_every": 3}  # checkpoints at 3, 5, 6, 9, 12
TINY = {"widths": (4, 4, 4, 4), "batch_size": 8, "autocast": False, "surrogate_learning_rate": 1e-2} | STEPS
SETTINGS = {
    "Adam": {},
    "SGD": {"optimiser": "sgd"},
    "momentum": {"optimiser": "momentum"},
    "average": {"generator_average": 0.9},
    "refresh": {"refresh_every": 2, "restart_every": (0, 3), "code_lengths": (8, 4), "generator_schedule": "cosine"},
    "two networks": {"code_lengths": (8, 4), "backbone": ("two_conv", "dense"), "refresh_every": 2, "restart_every": (0, 3)},
    "frozen surrogate": {"surrogate_learning_rate": 0.0},
    "bfloat16": {"autocast": True},
    "wide": {"widths": (16, 32, 64, 128)},  # moments of channels_last weights must come back in place
}


class Stop(Exception):
    """The plug is pulled."""


def data(seed: int = 0) -> ImageSet:
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (24, 1, 16, 16), generator=random, dtype=torch.uint8)
    return ImageSet(images, torch.arange(24) % 3)


def train(path=None, *, resume: bool = False, callback=None, **settings: object) -> PPLRun:
    config = PPLConfig(**(TINY | settings))
    return train_ppl(data(), config, checkpoint=path, resume=resume, callback=callback, progress=False)


def state(run: PPLRun) -> dict[str, object]:
    """Everything a run gave, comparable."""
    weights = [run.generator.state_dict(), *(network.state_dict() for network in run.surrogates)]
    flat = {f"{i}/{name}": value.tolist() for i, part in enumerate(weights) for name, value in part.items()}
    return flat | {"history": run.history, "collapsed": run.collapsed}


_whole: dict[str, dict[str, object]] = {}


def uninterrupted(name: str) -> dict[str, object]:
    if name not in _whole:
        _whole[name] = state(train(**SETTINGS[name]))
    return _whole[name]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("stop", [3, 5, 6, 9, 12], ids="after {} steps".format)
def test_a_run_stopped_at_a_checkpoint_and_resumed_is_the_uninterrupted_one(tmp_path, name, stop):
    path = tmp_path / "run.safetensors"
    part = train(path, callback=lambda done, run: done < stop, **SETTINGS[name])
    assert len(part.history["warmup"]) + len(part.history["step"]) == stop
    resumed = train(path, resume=True, **SETTINGS[name])
    assert state(resumed) == uninterrupted(name)


def test_a_run_may_go_on_with_another_checkpoint_interval(tmp_path):
    path = tmp_path / "run.safetensors"
    train(path, callback=lambda done, run: done < 6)
    assert state(train(path, resume=True, checkpoint_every=100)) == uninterrupted("Adam")


@pytest.mark.parametrize("name", ["Adam", "average", "refresh"])
@pytest.mark.parametrize(("method", "call"), [("warm_up", 2), ("warm_up", 5), ("step", 1), ("step", 3), ("step", 7)])
def test_a_run_killed_between_checkpoints_loses_only_the_steps_since(tmp_path, monkeypatch, name, method, call):
    path, original, calls = tmp_path / "run.safetensors", getattr(Game, method), []

    def fail(self):
        calls.append(None)
        if len(calls) == call:
            raise Stop
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Game, method, fail)
        with pytest.raises(Stop):
            train(path, **SETTINGS[name])
    assert path.exists() == (method != "warm_up" or call > 3)
    assert state(train(path, resume=True, **SETTINGS[name])) == uninterrupted(name)


def test_a_run_may_be_interrupted_again_and_again(tmp_path):
    path = tmp_path / "run.safetensors"
    for stop in (3, 5, 6, 9, 12):
        run = train(path, resume=True, callback=lambda done, run, stop=stop: done < stop, **SETTINGS["refresh"])
    assert state(run) == uninterrupted("refresh")
    assert state(train(path, resume=True, **SETTINGS["refresh"])) == uninterrupted("refresh")  # nothing left to do


def test_writing_checkpoints_changes_nothing(tmp_path):
    assert state(train(tmp_path / "new folder" / "run.safetensors")) == uninterrupted("Adam")


def test_a_failed_write_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"

    def full(*args):
        raise OSError("disk full")

    def fill_up(done: int, run: PPLRun) -> None:
        if done == 6:
            monkeypatch.setattr(storage.os, "replace", full)

    with pytest.raises(OSError, match="disk full"):
        train(path, callback=fill_up)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    assert state(train(path, resume=True)) == uninterrupted("Adam")


def test_a_noticed_collapse_is_remembered(tmp_path):
    config = PPLConfig(**TINY)
    game = Game(config, data().images, data().labels)
    history = {"warmup": [0.1], "step": [1]}
    checkpoints.store(tmp_path / "run", game, history, "all codes are near 0")
    assert checkpoints.restore(tmp_path / "run", game) == (history, "all codes are near 0")


def test_the_header_is_readable_json(tmp_path):
    train(tmp_path / "run.safetensors")
    header = storage.read_tensors(tmp_path / "run.safetensors")[1]
    assert json.loads(header["ppl_config"])["epsilon"] == 0.3
    assert len(json.loads(header["history"])["affinity"]) == 7


# ---- refusals


def test_an_existing_checkpoint_is_not_overwritten_unasked(tmp_path):
    path = tmp_path / "run.safetensors"
    train(path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match=r"run\.safetensors exists: pass resume=True to continue from it, or remove"):
        train(path)
    assert path.read_bytes() == before


def test_resuming_without_a_file_starts_at_the_beginning(tmp_path):
    assert state(train(tmp_path / "run.safetensors", resume=True)) == uninterrupted("Adam")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.2}, r"\(epsilon: 0\.3 in the file, 0\.2 asked for\)"),
        ({"seed": 1, "steps": 8}, r"steps: 7 in the file, 8 asked for; seed: 0 in the file, 1 asked for"),
        ({"code_lengths": (8, 8)}, r"code_lengths: \[8\] in the file, \[8, 8\] asked for"),
        ({"widths": None}, r"widths: \[4, 4, 4, 4\] in the file, None asked for"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_with_the_difference(tmp_path, settings, message):
    train(tmp_path / "run.safetensors", callback=lambda done, run: False)
    with pytest.raises(ValueError, match=message):
        train(tmp_path / "run.safetensors", resume=True, **settings)


def test_a_checkpoint_of_other_images_is_refused(tmp_path):
    train(tmp_path / "run.safetensors", callback=lambda done, run: False)
    relabelled = ImageSet(data().images, data().labels.flip(0))
    for other in (data(seed=1), data().subset(torch.arange(20)), relabelled):
        with pytest.raises(ValueError, match="belongs to a run with other training images or labels"):
            train_ppl(other, PPLConfig(**TINY), checkpoint=tmp_path / "run.safetensors", resume=True, progress=False)


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    storage.save_tensors(tmp_path / "other", {"x": torch.zeros(1)})
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match="other is not a checkpoint of train_ppl"):
        train(tmp_path / "other", resume=True)
    with pytest.raises(ValueError, match="text is not a complete safetensors file"):
        train(tmp_path / "text", resume=True)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_whose_batch_normalisation_saw_other_parts_is_refused(tmp_path, before, after):
    path, config = tmp_path / "run.safetensors", PPLConfig(**(TINY | {"backbone": "mobilenet_v3_small", "steps": 3}))
    train_ppl(data(), config, checkpoint=path, accumulation=before, progress=False, callback=lambda *_: False)
    with pytest.raises(checkpoints.OtherCheckpoint, match=f"a run with accumulation={before}, {after} asked for"):
        train_ppl(data(), config, checkpoint=path, resume=True, accumulation=after, progress=False)


def test_without_batch_normalisation_a_run_goes_on_in_other_parts(tmp_path):
    path = tmp_path / "run.safetensors"
    train(path, callback=lambda *_: False)
    resumed = train_ppl(data(), PPLConfig(**TINY), checkpoint=path, resume=True, accumulation=3, progress=False)
    assert len(resumed.history["step"]) == STEPS["steps"]
