"""What a GPU must do as the CPU does, within the rounding of its kernels: `make test-gpu`.

In `make test` they run on a device that is not the CPU but computes on it, see `elsewhere.py`.
"""

import os

import pytest
import torch
from toy_game import SHORT, toy

from pplkit import backbones, budget, data, losses, training
from pplkit import device as devices
from pplkit.config import KERNELS
from pplkit.game import SERIES, Game
from pplkit.generator import PerturbationGenerator
from pplkit.hashing import ADSH, DSDH
from pplkit.hashing.network import build
from pplkit.scenarios import SCENARIOS, evaluate_scenarios
from pplkit.training import PPLConfig, train_ppl

DEVICE = devices.resolve(os.environ["PPLKIT_TEST_DEVICE"])
on_a_gpu = pytest.mark.skipif(DEVICE.type != "cuda", reason="means something on a GPU only: make test-gpu")
SGD = SHORT | {"optimiser": "sgd", "generator_learning_rate": 1e-2, "surrogate_learning_rate": 1e-2}


@pytest.fixture(autouse=True)
def full_precision(monkeypatch):
    """Convolutions in float32, not in the 10 bits that PyTorch lets a GPU use."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def apart(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Largest difference between the weights of two networks."""
    return max((value.cpu().double() - theirs[name].cpu().double()).abs().max().item() for name, value in ours.items())


@on_a_gpu
def test_auto_is_the_gpu_and_it_multiplies_bfloat16():
    assert devices.resolve("auto").type == DEVICE.type
    if torch.cuda.get_device_capability()[0] >= 8:
        assert devices.multiplies_bfloat16(DEVICE)


@pytest.mark.parametrize("backbone", ["two_conv", "dense", "mobilenet_v3_small", "resnet18"])
def test_codes_are_those_of_the_cpu_wherever_the_images_lie(backbone):
    network = build(16, backbone, 3, 32, seed=0)
    images = torch.randint(0, 256, (300, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    expected = network.encode(images)
    network.to(DEVICE)
    for there in (images, images.to(DEVICE)):
        codes = network.encode(there)
        assert codes.device == there.device and codes.dtype == torch.int8
        assert (codes.cpu() == expected).float().mean() > 0.995  # a code bit near 0 may flip


def test_protected_images_are_those_of_the_cpu_and_within_the_budget():
    images = toy(40).images
    generator = PerturbationGenerator(1)
    expected = budget.protect(images, generator, 0.1)
    generator.to(DEVICE)
    for there in (images, images.to(DEVICE)):
        protected = budget.protect(there, generator, 0.1)
        assert protected.device == there.device
        assert budget.perturbation_norm(there, protected).max() <= 0.1 + 1e-6
        assert (protected.cpu().int() - expected.int()).abs().max() <= 1  # grey levels


@pytest.mark.parametrize("kernel", KERNELS)
def test_losses_and_their_gradients_are_those_of_the_cpu(kernel):
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 4
    found = []
    for device in (torch.device("cpu"), DEVICE):
        random.manual_seed(0)
        X, Z = (torch.tanh(torch.randn(24, 8, generator=random)).to(device).requires_grad_() for _ in range(2))
        S = losses.similarity_matrix(labels.to(device), balanced=True)
        total = losses.affinity_loss(Z, S) + losses.PrivacyLoss(kernel=KERNELS[kernel](8))(X, Z, S)
        found.append([total, *torch.autograd.grad(total, (X, Z))])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours.cpu(), theirs.cpu(), rtol=1e-4, atol=1e-6)


def test_a_step_of_the_game_is_the_one_of_the_cpu():
    images = toy()
    games = [Game(PPLConfig(**SGD), images.images.to(device), images.labels.to(device)) for device in ("cpu", DEVICE)]
    before = {name: value.clone() for name, value in games[0].generator.state_dict().items()}
    for game in games:
        game.warm_up()
        game.round(0)
    ours, theirs = (game.generator.state_dict() for game in games)
    moved = apart(before, ours)
    assert moved > 1e-4 and apart(ours, theirs) < moved / 20


@pytest.mark.parametrize(("first", "then"), [("cpu", DEVICE), (DEVICE, "cpu")])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_run_goes_on_on_another_device(tmp_path, first, then, optimiser):
    config = PPLConfig(**SGD | {"optimiser": optimiser, "generator_learning_rate": 1e-3, "surrogate_learning_rate": 1e-3})
    how = {"progress": False, "checkpoint": tmp_path / "run.safetensors"}
    train_ppl(toy(), config, device=first, callback=lambda step, run: step < 2, **how)
    rest = train_ppl(toy(), config, device=then, resume=True, **how)
    whole = train_ppl(toy(), config, device="cpu", progress=False)
    assert next(rest.generator.parameters()).device.type == torch.device(then).type
    assert rest.history["step"] == whole.history["step"]
    for name in SERIES:  # the losses, not the weights: where a gradient is almost 0 Adam makes a whole step of its rounding
        assert rest.history[name] == pytest.approx(whole.history[name], rel=0.05, abs=0.02), name


@pytest.mark.parametrize("settings", [{"code_lengths": (8, 8), "refresh_every": 2}, {"backbone": "mobilenet_v3_small"},
                                      {"code_lengths": (4, 4), "restart_every": (0, 2), "generator_average": 0.9}])
def test_a_game_with_autocast_stays_finite(settings):
    run = train_ppl(toy(channels=3, size=32), PPLConfig(**SHORT | {"autocast": None} | settings), device=DEVICE, progress=False)
    assert all(torch.isfinite(torch.tensor(run.history[name])).all() for name in SERIES)
    assert run.protect(toy(channels=3, size=32).images).device.type == "cpu"


@pytest.mark.parametrize("victim", [ADSH(8, outer_epochs=6, inner_epochs=2, sample_size=120, batch_size=32, device=str(DEVICE)),
                                    DSDH(8, eta=5.0, epochs=30, batch_size=32, device=str(DEVICE))])
def test_a_victim_learns_and_is_judged(victim, tmp_path):
    images = toy(160)
    part = images.subset(torch.arange(120))
    victim.fit(part.images, part.labels, progress=False)
    split = data.RetrievalSplit(name="toy", train=part, database=part, query=images.subset(torch.arange(120, 160)),
                                train_index=torch.arange(120), classes=("a", "b", "c"), manifest={})
    found = evaluate_scenarios(victim, split, lambda some: some)
    assert {round(found[name].expected, 3) for name in SCENARIOS} == {round(found["C->C"].expected, 3)}
    assert found["C->C"].expected > 0.8  # a third by chance
    victim.save(tmp_path / "victim.safetensors")
    again = type(victim).load(tmp_path / "victim.safetensors", device="cpu")
    assert (again.encode(images.images) == victim.encode(images.images).cpu()).float().mean() > 0.995


@pytest.mark.parametrize(("memory", "backbone"), [
    ({"checkpointing": True}, "mobilenet_v3_small"), ({"accumulation": 3}, "two_conv")])
def test_what_saves_memory_plays_the_same_game(memory, backbone):
    images, config = toy(channels=3, size=32), PPLConfig(**SGD | {"backbone": backbone})
    plain, saved = (train_ppl(images, config, device=DEVICE, progress=False, **how) for how in ({}, memory))
    beginning = Game(config, images.images, images.labels).generator.state_dict()
    ours, theirs = plain.generator.state_dict(), saved.generator.state_dict()
    assert apart(ours, theirs) < apart(beginning, ours) / 20


@on_a_gpu
def test_a_compiled_game_is_the_same_game():
    plain, fused = (train_ppl(toy(), PPLConfig(**SGD), device=DEVICE, progress=False, compiled=way) for way in (False, True))
    for name in SERIES:
        assert fused.history[name] == pytest.approx(plain.history[name], rel=0.05, abs=0.02), name


@on_a_gpu
def test_memory_that_runs_out_is_said_with_a_batch_size():
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e9 / torch.cuda.mem_get_info()[1])  # 1 GB of all there is
    try:
        with pytest.raises(training.OutOfMemory, match="batch_size=1024"):
            train_ppl(toy(2048, channels=3, size=64), PPLConfig(**SHORT | {"batch_size": 2048, "backbone": "resnet18"}),
                      device=DEVICE, progress=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


@pytest.mark.parametrize("name", backbones.TORCHVISION)
def test_every_network_trains(name):
    network = build(8, name, 3, 64, seed=0).to(DEVICE, memory_format=torch.channels_last)
    with devices.autocast(DEVICE):
        codes = network(torch.rand(4, 3, 64, 64, device=DEVICE).contiguous(memory_format=torch.channels_last))
    codes.float().square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
