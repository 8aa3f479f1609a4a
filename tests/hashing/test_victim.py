"""What every victim must do: learn, repeat itself, heed each setting, save, load, and refuse bad input."""

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pplkit import hashing
from pplkit.backbones import Dense, TwoConv
from pplkit.data import load
from pplkit.hashing import ADSH, DPSH, DSDH, DSH, CollapseWarning, Victim
from pplkit.retrieval import mean_average_precision
from pplkit.storage import save_tensors

METHODS = [ADSH, DPSH, DSDH, DSH]
QUICK = {
    ADSH: {"outer_epochs": 2, "inner_epochs": 2, "sample_size": 64},
    DPSH: {"epochs": 2},
    DSDH: {"epochs": 2, "eta": 0.5},  # with the default 55 the learned codes follow the network from the second epoch on
    DSH: {"epochs": 2},
}
# Another value for every setting; `device` has one value on a plain machine.
SHARED = {"bits": 8, "batch_size": 48, "learning_rate": 3e-3, "weight_decay": 0.1, "schedule": "constant", "flip": True}
SHARED |= {"seed": 1, "autocast": True, "backbone": "dense"}
CHANGES = {
    ADSH: {"gamma": 20.0, "sample_size": 80, "starts": 5, "outer_epochs": 3, "inner_epochs": 3},
    DPSH: {"eta": 0.1, "balanced": False, "epochs": 3},
    DSDH: {"mu": 30.0, "nu": 1e4, "eta": 5.0, "epochs": 3, "sweeps": 1},
    DSH: {"alpha": 0.5, "epochs": 3},
}
SETTINGS = [(method, name) for method in METHODS for name in SHARED | CHANGES[method]]
BASE = {"bits": 6, "batch_size": 32, "autocast": False}


def quick(method: type[Victim], **changes: object) -> Victim:
    return method(**(BASE | QUICK[method] | changes))


def weights(victim: Victim) -> Tensor:
    return torch.cat([value.flatten() for value in victim.network.state_dict().values()])


_trained: dict[type[Victim], Victim] = {}


@pytest.fixture
def trained(toy):
    """A victim of a method, trained once."""

    def get(method: type[Victim]) -> Victim:
        if method not in _trained:
            _trained[method] = quick(method).fit(*toy, progress=False)
        return _trained[method]

    return get


# ---- training


@pytest.mark.parametrize("method", METHODS)
def test_a_victim_learns_real_images(method):
    split = load("fashion-mnist-mini")
    keep = torch.arange(1000)
    rounds = {"outer_epochs": 4, "inner_epochs": 2} if method is ADSH else {"epochs": 6}
    victim = method(12, batch_size=25, **rounds)
    victim.fit(split.train.images[keep], split.train.labels[keep], progress=False)
    query, database = split.query.subset(torch.arange(200)), split.database.subset(torch.arange(0, 10000, 10))
    found = mean_average_precision(victim.encode(query.images), query.labels, victim.encode(database.images), database.labels)
    assert found.expected > 0.3, found.expected  # chance is 0.1
    assert victim.history[-1] < 0.8 * victim.history[0]


@pytest.mark.parametrize("method", METHODS)
def test_a_victim_learns_multi_label_images(method, multi_label_toy):
    images, labels = multi_label_toy
    rounds = {"outer_epochs": 8} if method is ADSH else {"epochs": 16}
    victim = quick(method, **rounds, batch_size=16, bits=12).fit(images, labels, progress=False)
    codes = victim.encode(images)
    similar = (labels.float() @ labels.float().T > 0).float()
    chance = similar.mean().item()
    found = mean_average_precision(codes, labels, codes, labels).expected
    assert found > chance + 0.5 * (1 - chance), (found, chance)


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_are_identical_and_another_seed_differs(method, toy, trained):
    again, other = quick(method).fit(*toy, progress=False), quick(method, seed=1).fit(*toy, progress=False)
    assert torch.equal(weights(again), weights(trained(method))) and again.history == trained(method).history
    assert not torch.equal(weights(other), weights(again))
    if method is ADSH:
        assert torch.equal(again.database_codes, trained(method).database_codes)
    again.fit(*toy, progress=False)  # a second fit starts over
    assert torch.equal(weights(again), weights(trained(method)))


@pytest.mark.parametrize("method", METHODS)
def test_the_global_random_state_is_neither_used_nor_changed(method, toy, trained):
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    victim = quick(method).fit(*toy, progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(weights(victim), weights(trained(method)))


@pytest.mark.parametrize("method", METHODS)
def test_the_list_of_settings_is_complete(method):
    assert {f.name for f in dataclasses.fields(method) if f.init} == set(SHARED | CHANGES[method]) | {"device"}


@pytest.mark.parametrize(("method", "name"), SETTINGS)
def test_every_setting_changes_the_network(method, name, toy, trained):
    value = (SHARED | CHANGES[method])[name]
    base = trained(method)
    assert getattr(base, name) != value
    changed = quick(method, **{name: value}).fit(*toy, progress=False)
    before, after = weights(base), weights(changed)
    assert before.shape != after.shape or (before - after).abs().max() > 1e-6


@pytest.mark.parametrize(("backbone", "kind"), [("two_conv", TwoConv), ("dense", Dense)])
def test_the_named_backbone_is_what_learns(backbone, kind, toy):
    victim = quick(DSDH, backbone=backbone, epochs=6).fit(*toy, progress=False)
    assert isinstance(victim.network.backbone, kind) and victim.history[-1] < 0.9 * victim.history[0]
    before = hashing.network.build(6, backbone, 1, 16, seed=0).state_dict()
    after = victim.network.state_dict()
    assert before.keys() == after.keys() and all((after[name] - before[name]).abs().max() > 1e-3 for name in before)


@pytest.mark.parametrize("method", METHODS)
def test_the_bar_shows_the_epochs_and_the_last_loss(method, toy, capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    victim = quick(method).fit(*toy)
    shown = capsys.readouterr().err
    for part in (f"{method.__name__} 6 bits: 100%", "2/2", "epoch", f"loss={victim.history[-1]:.3f}"):
        assert part in shown


@pytest.mark.parametrize("method", METHODS)
def test_history_has_one_mean_loss_per_epoch(method, trained):
    assert len(trained(method).history) == (4 if method is ADSH else 2)
    assert all(math.isfinite(value) for value in trained(method).history)
    assert not trained(method).network.training


@pytest.mark.parametrize("method", METHODS)
def test_a_single_class_and_a_single_image_train_without_nan(method, toy):
    images, _ = toy
    for count in (1, 5):
        victim = quick(method).fit(images[:count], torch.zeros(count).long(), progress=False)
        assert torch.isfinite(weights(victim)).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64])
def test_labels_may_be_any_integers(dtype, toy, trained):
    images, labels = toy
    victim = quick(DSDH).fit(images, labels.to(dtype), progress=False)
    assert torch.equal(weights(victim), weights(trained(DSDH)))


@pytest.mark.parametrize("method", METHODS)
def test_one_hot_labels_train_the_network_of_their_classes(method, toy, trained):
    images, labels = toy
    victim = quick(method).fit(images, torch.nn.functional.one_hot(labels), progress=False)
    assert torch.allclose(weights(victim), weights(trained(method)), atol=1e-4)


def test_a_loss_that_is_not_finite_stops_with_epoch_and_cure(toy, monkeypatch):
    monkeypatch.setattr("pplkit.hashing.dsh.contrastive_loss", lambda u, similar, margin: u.sum() * math.nan)
    with pytest.raises(ValueError, match=r"DSH: the loss became nan in epoch 1; lower learning_rate \(now 0.001\)"):
        quick(DSH).fit(*toy, progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_a_collapsed_victim_says_so_and_a_trained_one_is_silent(method, toy, recwarn):
    images, labels = toy
    same = images[:1].expand_as(images)  # nothing to tell the classes apart by
    message = rf"^{method.__name__} with 6 bits collapsed: .*\(spread 0.000\).* \(now 0.003\)"
    with pytest.warns(CollapseWarning, match=message) as caught:
        quick(method, learning_rate=3e-3).fit(same, labels, progress=False)
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]  # points at the caller
    recwarn.clear()
    quick(method).fit(images, labels, progress=False)
    quick(method).fit(same, torch.zeros_like(labels), progress=False)  # one class: one code is right
    assert not recwarn.list


# ---- codes


@pytest.mark.parametrize("method", METHODS)
def test_codes_are_plus_and_minus_1(method, toy, trained):
    codes = trained(method).encode(toy[0])
    assert codes.dtype == torch.int8 and codes.shape == (96, 6) and set(codes.unique().tolist()) == {-1, 1}
    assert torch.equal(codes, trained(method).network.encode(toy[0]))


@pytest.mark.parametrize("method", METHODS)
def test_an_untrained_victim_says_so(method, toy, tmp_path):
    with pytest.raises(RuntimeError, match=rf"{method.__name__} is not trained: call fit\(images, labels\)"):
        quick(method).encode(toy[0])
    with pytest.raises(RuntimeError, match="nothing to save"):
        quick(method).save(tmp_path / "v.safetensors")


# ---- checkpoints


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_victim_comes_back(method, toy, trained, tmp_path):
    path = tmp_path / "victims" / "one.safetensors"
    trained(method).save(path, command="python -m something", seed_of_data=3)
    for loaded in (method.load(path), hashing.load(str(path))):
        assert type(loaded) is method and loaded.settings() == trained(method).settings()
        assert torch.equal(loaded.encode(toy[0]), trained(method).encode(toy[0]))
        assert loaded.metadata == {"command": "python -m something", "seed_of_data": 3}
        assert not loaded.network.training
        if method is ADSH:
            assert torch.equal(loaded.database_codes, trained(method).database_codes)
        else:
            assert loaded.database_codes is None


def test_a_victim_of_a_gpu_comes_back_without_one(toy, trained, tmp_path, monkeypatch):
    victim = copy.copy(trained(DSDH))
    victim.device = "cuda:1"
    victim.save(tmp_path / "v.safetensors")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    loaded = hashing.load(tmp_path / "v.safetensors")
    assert torch.equal(loaded.encode(toy[0]), victim.encode(toy[0])) and loaded.settings() == victim.settings()
    with pytest.raises(ValueError, match="'cuda' asked for"):
        hashing.load(tmp_path / "v.safetensors", device="cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    victim.device = "mps"
    victim.save(tmp_path / "v.safetensors")
    assert torch.equal(hashing.load(tmp_path / "v.safetensors").encode(toy[0]), victim.encode(toy[0]))


@pytest.mark.filterwarnings("ignore::pplkit.hashing.CollapseWarning")
def test_a_last_batch_of_one_image_joins_the_one_before():
    images, labels = torch.randint(0, 256, (33, 3, 16, 16), dtype=torch.uint8), torch.arange(33) % 3
    victim = DSDH(8, backbone="mobilenet_v3_small", batch_size=32, epochs=1, device="cpu").fit(images, labels, progress=False)
    assert len(victim.history) == 1  # its last feature map is 1 x 1, and torch normalises no single image


def test_database_codes_can_be_left_out(trained, tmp_path):
    trained(ADSH).save(tmp_path / "v.safetensors", include_database=False)
    assert ADSH.load(tmp_path / "v.safetensors").database_codes is None


def test_files_that_are_no_victim_are_refused(trained, tmp_path):
    trained(DSH).save(tmp_path / "dsh")
    with pytest.raises(ValueError, match=r"dsh holds a DSH, not a ADSH; use pplkit.hashing.load"):
        ADSH.load(tmp_path / "dsh")
    save_tensors(tmp_path / "generator", {"x": torch.zeros(1)}, {"generator": "{}"})
    save_tensors(tmp_path / "future", {"x": torch.zeros(1)}, {"victim": '{"method": "HashNet"}'})
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(ValueError, match=r"generator is not a victim's checkpoint"):
        DSH.load(tmp_path / "generator")
    for name, found in (("generator", "None"), ("future", "'HashNet'")):
        with pytest.raises(ValueError, match=rf"{name} is not the checkpoint of a known victim .*'DSH'.*: found {found}"):
            hashing.load(tmp_path / name)
    for read in (hashing.load, DSH.load):
        with pytest.raises(ValueError, match="text is not a complete safetensors file"):
            read(tmp_path / "text")
        with pytest.raises(FileNotFoundError, match="no victim checkpoint at .*absent"):
            read(tmp_path / "absent")


# ---- bad input


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 0}, "bits must be a whole number of at least 1, got 0"),
        ({"bits": 8.0}, "bits must be a whole number of at least 1, got 8.0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive and finite, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be positive and finite, got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0 and finite, got -0.1"),
        ({"schedule": "step"}, "schedule must be 'cosine' or 'constant', got 'step'"),
        ({"bits": True}, "bits must be a whole number of at least 1, got True"),
        ({"learning_rate": "a"}, "learning_rate must be positive and finite, got 'a'"),
        ({"weight_decay": None}, "weight_decay must be at least 0 and finite, got None"),
        ({"flip": "yes"}, r"flip must be one of \[True, False\], got 'yes'"),
        ({"autocast": "x"}, r"autocast must be one of \[None, True, False\], got 'x'"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": math.nan}, "seed must be a whole number of at least 0, got nan"),
    ],
)
def test_impossible_settings_are_refused(method, changes, message):
    with pytest.raises(ValueError, match=message):
        quick(method, **changes)


@pytest.mark.parametrize(
    ("method", "name", "bad"),
    [
        (ADSH, "gamma", -1.0),
        (ADSH, "gamma", None),
        (ADSH, "gamma", True),
        (DPSH, "balanced", 1),
        (DSDH, "mu", "1"),
        (ADSH, "sample_size", 0),
        (ADSH, "outer_epochs", 0),
        (ADSH, "inner_epochs", 1.5),
        (DPSH, "eta", -1.0),
        (DPSH, "epochs", 0),
        (DSDH, "mu", 0.0),
        (DSDH, "nu", 0.0),
        (DSDH, "eta", math.inf),
        (DSDH, "sweeps", 0),
        (DSH, "alpha", math.nan),
        (DSH, "epochs", -1),
    ],
)
def test_impossible_settings_of_a_method_are_refused(method, name, bad):
    with pytest.raises(ValueError, match=rf"{name} must be .*, got {bad!r}"):
        quick(method, **{name: bad})


@pytest.mark.parametrize("method", METHODS)
def test_bad_images_and_labels_are_refused(method, toy):
    images, labels = toy
    cases = [
        (images.float(), labels, r"uint8 tensor of shape \(N, C, H, W\), got torch.float32 \(96, 1, 16, 16\)"),
        (images[:, 0], labels, r"got torch.uint8 \(96, 16, 16\)"),
        (images[..., :15], labels, "square images, got 16 x 15 pixels"),
        (images[..., :12, :12], labels, "at least 16 pixels, got 12"),
        (images[:0], labels[:0], r"N = 0 > 0 as the images, got torch.int64 \(0,\)"),
        (images, labels[:-1], r"N = 96 > 0 as the images, got torch.int64 \(95,\)"),
        (images, labels.float(), r"got torch.float32 \(96,\)"),
        (images, labels[:, None, None], r"got torch.int64 \(96, 1, 1\)"),
        (images, labels - 1, r"class numbers of at least 0, or multi-hot in 0 and 1; got -1\.\.1"),
        (images, labels[:, None].expand(96, 2), r"multi-hot in 0 and 1; got 0\.\.2"),
        (images, labels[:, None][:, :0], r"got torch.int64 \(96, 0\)"),
        (images, labels.tolist(), "N = 96 > 0 as the images, got list"),
    ]
    for bad_images, bad_labels, message in cases:
        with pytest.raises(ValueError, match=message):
            quick(method).fit(bad_images, bad_labels, progress=False)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8", True])
def test_batches_of_no_image_are_refused(batch_size, toy, trained):
    with pytest.raises(ValueError, match=f"batch_size must be a whole number of at least 1, got {batch_size!r}"):
        trained(DSH).encode(toy[0], batch_size)


def test_unknown_backbones_and_devices_are_refused(toy):
    with pytest.raises(ValueError, match="unknown backbone 'resnet5000'"):
        quick(DSH, backbone="resnet5000").fit(*toy, progress=False)
    with pytest.raises(ValueError, match="device must be .* got 'gpu'"):
        quick(DSH, device="gpu").fit(*toy, progress=False)
