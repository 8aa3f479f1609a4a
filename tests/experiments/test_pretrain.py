"""pplkit.experiments.pretrain: weights of our own come from the database's images alone, and backbones take them by name."""

import dataclasses
import json
import re
import shutil

import pytest
import torch

from pplkit import backbones, hashing
from pplkit.data import ImageSet, load
from pplkit.device import OutOfMemory
from pplkit.experiments import common, epsilon, pretrain, ratio, table1, transfer
from pplkit.experiments.folder import evaluate_folder
from pplkit.generator import PerturbationGenerator
from pplkit.hashing import DSDH
from pplkit.storage import save_tensors

TINY = pretrain.Settings(backbone="two_conv", passes=3, batch_size=16)


@pytest.fixture
def split(pictures):
    return load(f"folder:{pictures}", size=28, channels=1)


def test_images_are_mirrored_and_shifted_each_in_its_own_way():
    random = torch.Generator().manual_seed(0)
    images = torch.rand(64, 3, 10, 10, generator=random)
    still = pretrain.moved(images, 0.0, random)
    kept, mirrored = (torch.isclose(still, other, atol=1e-5).flatten(1).all(1) for other in (images, images.flip(-1)))
    assert (kept | mirrored).all() and 16 < kept.sum() < 48
    spot = torch.zeros(64, 1, 41, 41)
    spot[:, :, 20, 20] = 1  # the middle: where a mirror leaves it
    moved = pretrain.moved(spot, 0.25, random)
    assert torch.allclose(moved.sum((1, 2, 3)), torch.ones(64), atol=1e-4)
    place = torch.arange(41.0) - 20
    for axis in (2, 3):
        centres = (moved.sum((1, 5 - axis)) * place).sum(1)  # (64,)
        assert centres.abs().max() <= 0.25 * 41 and centres.std() > 3 and centres.unique().numel() > 60


def test_the_rate_rises_and_falls_to_0():
    rates = [pretrain._rate(i / 1000) for i in range(1001)]
    assert rates[0] == 0 and max(rates) == rates[100] == 1 and rates[-1] == pytest.approx(0)
    assert rates[:101] == sorted(rates[:101]) and rates[100:] == sorted(rates[100:], reverse=True)


def test_a_batch_too_large_for_the_memory_names_the_one_to_try(split, tmp_path, monkeypatch):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(pretrain, "moved", fails)
    with pytest.raises(OutOfMemory, match="pretraining two_conv with batch_size=16: try batch_size=8, smaller images"):
        pretrain.pretrain(split, TINY, tmp_path / "state.safetensors", "cpu")


def test_an_interrupted_run_goes_on_to_the_same_weights(split, tmp_path, monkeypatch):
    whole, right = pretrain.pretrain(split, TINY, tmp_path / "whole.safetensors", "cpu")

    def pull_the_plug(path, tensors, header):
        save_tensors(path, tensors, header)
        if header["passes"] == "2":
            raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "save_tensors", pull_the_plug)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(split, TINY, tmp_path / "cut.safetensors", "cpu")
    monkeypatch.undo()
    rest, right_too = pretrain.pretrain(split, TINY, tmp_path / "cut.safetensors", "cpu")
    assert right == right_too
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), rest.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="cut.safetensors was trained with other settings or data"):
        pretrain.pretrain(split, dataclasses.replace(TINY, seed=1), tmp_path / "cut.safetensors", "cpu")


def test_queries_are_not_looked_at(split, tmp_path):
    blank = dataclasses.replace(split, query=ImageSet(torch.zeros_like(split.query.images), split.query.labels))
    one, two = (pretrain.pretrain(s, TINY, tmp_path / f"{i}.safetensors", "cpu")[0] for i, s in enumerate((split, blank)))
    assert torch.equal(one.conv1.weight, two.conv1.weight)


@pytest.mark.parametrize("backbone, passes", [("two_conv", 12), ("mobilenet_v3_small@64", 1)])
def test_backbones_take_the_weights_by_the_name_that_is_printed(pictures, tmp_path, capsys, backbone, passes):
    pretrain.main(["--dataset", f"folder:{pictures}", "--load", "size=28", "channels=1", "--backbone", backbone,
                   "--device", "cpu", "--passes", str(passes),
                   "--work", str(tmp_path / "work"), "--weights", str(tmp_path / "weights"), "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    right, name = re.fullmatch(r"(\S+) of the images left out are named rightly\n--backbone (\S+)\n", printed).groups()
    assert passes == 1 or float(right) > 0.9  # three bands: easy
    network = backbones.create(name, 1, 28)
    note, = (tmp_path / "out").iterdir()
    assert json.loads(note.read_text())["run"]["commit"]
    assert json.loads(note.read_text())["accuracy"] == pytest.approx(float(right), abs=6e-4)
    trained = pretrain.pretrain(load(f"folder:{pictures}", size=28, channels=1),
                                pretrain.Settings(backbone=backbone, passes=passes),
                                tmp_path / "work" / f"pretrain-pictures{'' if passes == 12 else '-' + backbone}"
                                / "seed0.safetensors", "cpu")[0]  # finished: only read again
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), trained.state_dict().values(), strict=True))
    assert re.search(r"pictures-[0-9a-f]{8}\.safetensors$", name)
    assert re.fullmatch(rf"cifar10-{backbone}-pictures-[0-9a-f]{{8}}", common.place("cifar10", name))

    images = torch.randint(0, 256, (16, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    victim = DSDH(4, backbone=name, epochs=1, device="cpu", seed=3)
    victim.learning_rate = 1e-12  # what is in the network afterwards is what it started from
    first = next(iter(network.state_dict()))
    victim.fit(images, torch.arange(16) % 2, progress=False)
    assert torch.allclose(victim.network.backbone.state_dict()[first], network.state_dict()[first], atol=1e-6)
    victim.save(tmp_path / "victim.safetensors")
    next((tmp_path / "weights").rglob("*.safetensors")).unlink()
    assert torch.equal(hashing.load(tmp_path / "victim.safetensors").encode(images), victim.encode(images))
    with pytest.raises(FileNotFoundError, match=rf"no weights at .*pretrain --dataset ... --backbone {backbone}` makes"):
        backbones.create(name, 1, 28)


def test_weights_that_know_the_queries_are_refused(pictures, tmp_path, capsys):
    dataset, load_options = f"folder:{pictures}", {"size": 28, "channels": 1}
    asked = ["--dataset", dataset, "--load", "size=28", "channels=1", "--backbone", "two_conv", "--device", "cpu", "--fast",
             "--work", str(tmp_path), "--weights", str(tmp_path / "weights"), "--out", str(tmp_path / "out")]
    pretrain.main(asked)
    name = capsys.readouterr().out.split("--backbone ")[1].strip()
    common.check_pretraining([name], load(dataset, **load_options))
    common.check_pretraining(["two_conv"], load(dataset, seed=1, **load_options))
    for other in (load(dataset, seed=1, **load_options), load(dataset, query_share=0.3, **load_options)):
        with pytest.raises(ValueError, match="with other queries left out .* pretrain with the same --seeds and --load"):
            common.check_pretraining(["two_conv", name], other)
    elsewhere = tmp_path / "pictures"
    shutil.copytree(pictures, elsewhere)
    (elsewhere / "class0" / "0.png").rename(elsewhere / "class0" / "renamed.png")  # others stand where the queries stood
    with pytest.raises(ValueError, match="was trained on other files of folder:pictures, .* pretrain again"):
        common.check_pretraining([name], load(f"folder:{elsewhere}", **load_options))
    of = {"dataset": dataset, "root": None, "seed": 1, "work": tmp_path / "games", "device": "cpu", "fast": True,
          "options": load_options, "game": {"code_lengths": (8, 8), "backbone": ("two_conv", name)}}
    for run, more in ((table1.run_seed, {"epsilon": 0.3}), (ratio.run_seed, {"epsilon": 0.3, "shares": [0]}),
                      (transfer.run_seed, {"epsilon": 0.3, "networks": [], "methods": []}),
                      (epsilon.scaled, {"trained_at": 0.3, "epsilons": [0.3]})):
        with pytest.raises(ValueError, match="with other queries left out"):  # a surrogate knows them
            run(**of, **more)
    with pytest.raises(ValueError, match="leave out --validation, whose queries are database images"):
        table1.run_seed(**of | {"seed": 0}, epsilon=0.3, validation=3)
    with pytest.raises(ValueError, match="with other queries left out"):
        evaluate_folder(pictures, PerturbationGenerator(1, (4,)), 0.1, backbone=name, seed=1, **load_options)
    note, = (tmp_path / "out").iterdir()
    stored = json.loads(note.read_text())
    note.write_text(json.dumps({**stored, "settings": {**stored["settings"], "passes": 12}}))
    with pytest.raises(SystemExit):  # a shorter run does not take the place of a longer one
        pretrain.main(asked)
    assert "was made with settings" in capsys.readouterr().err


def test_other_first_layers_are_refused_even_where_the_weights_would_fit(pictures, tmp_path, capsys):
    pretrain.main(["--dataset", f"folder:{pictures}", "--load", "size=40", "channels=1", "--backbone", "resnet18", "--fast",
                   "--device", "cpu", "--work", str(tmp_path), "--weights", str(tmp_path / "w"), "--out", str(tmp_path)])
    network, _, path = capsys.readouterr().out.split("--backbone ")[1].strip().partition(":")
    assert network == "resnet18@40"  # with max-pooling, which networks for up to 32 pixels leave out
    backbones.create(f"resnet18@40:{path}", 1, 28)
    backbones.create(f"resnet18:{path}", 1, 40)
    with pytest.raises(ValueError, match="does not fit 'resnet18@28' .*: it holds resnet18@40 as a classifier"):
        backbones.create(f"resnet18:{path}", 1, 28)


@pytest.mark.parametrize("wrong, message", [
    ({"passes": 0}, "passes must be at least 1, got 0"), ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ({"held_out": 1.0}, "held_out must be between 0 and 1, got 1.0"),
    ({"backbone": "resnet18:IMAGENET1K_V1"}, "starts from random weights, got 'resnet18:IMAGENET1K_V1'")])
def test_settings_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **wrong)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_tensors(path, backbones.create("two_conv", 3, 32).state_dict(), {"pretrained": "two_conv in colour"})
    with pytest.raises(ValueError, match="other.safetensors does not fit 'two_conv' .*: it holds two_conv in colour"):
        backbones.create(f"two_conv:{path}", 1, 28)
    with pytest.raises(ValueError, match="does not fit 'resnet18@64'"):
        backbones.create("resnet18@64", 3, 32, weights=str(path))


def test_deep_networks_with_weights_of_our_own_get_fewer_passes_at_a_smaller_rate():
    of = {"two_conv:a.safetensors": (15, 1e-3), "resnet18:a.safetensors": (5, 2e-4), "mobilenet_v2:a.safetensors": (5, 2e-4),
          "mobilenet_v2": (10, 1e-3)}
    for backbone, expected in of.items():
        victim = common.make_victim("dsdh", 16, 0, "cpu", backbone=backbone).settings()
        assert (victim["epochs"], victim["learning_rate"]) == expected
