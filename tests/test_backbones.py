"""pplkit.backbones: pixels in, features out; normalisation is inside."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision import models

from pplkit import backbones, hashing
from pplkit.config import PPLConfig
from pplkit.hashing import ADSH
from pplkit.hashing.network import build


@pytest.mark.parametrize("size", [16, 17, 28, 32, 33])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["two_conv", "two_conv_3x3"])
def test_features_tells_the_width_of_the_output(name, channels, size):
    network = backbones.create(name, channels, size)
    assert network(torch.rand(2, channels, size, size)).shape == (2, network.features)


def test_the_default_is_the_papers_network_for_fashion_mnist():
    network = backbones.create()
    assert network.conv1.weight.shape == (20, 1, 5, 5) and network.conv2.weight.shape == (50, 20, 5, 5)
    assert network.features == 50 * 4 * 4
    other = backbones.create("two_conv_3x3")
    assert other.conv1.weight.shape == (20, 1, 3, 3) and other.conv2.weight.shape == (50, 20, 3, 3)
    assert other.features == 50 * 7 * 7


@pytest.mark.parametrize("name, padding", [("two_conv", 0), ("two_conv_3x3", 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_features_equal_the_layers_in_the_papers_order(channels, name, padding):
    """normalise -> conv -> ReLU -> max-pool, twice; the statistics are written out once more on purpose."""
    mean, std = {
        1: ([0.286], [0.353]),
        3: ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    }[channels]
    torch.manual_seed(0)
    network = backbones.create(name, channels, 20).double()
    images = torch.rand(3, channels, 20, 20, dtype=torch.float64)

    def channel(values: list[float]) -> Tensor:
        return torch.tensor(values).double().view(1, channels, 1, 1)  # float32 constants, as in the network

    x = (images - channel(mean)) / channel(std)
    x = functional.max_pool2d(functional.conv2d(x, network.conv1.weight, network.conv1.bias, padding=padding).relu(), 2)
    x = functional.max_pool2d(functional.conv2d(x, network.conv2.weight, network.conv2.bias, padding=padding).relu(), 2)
    assert torch.allclose(network(images), x.flatten(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_parameter_and_the_image_get_a_gradient(channels):
    torch.manual_seed(0)
    network = backbones.create("two_conv", channels, 16)
    images = torch.rand(8, channels, 16, 16).requires_grad_()
    network(images).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert (images.grad.flatten(1).abs().amax(1) > 0).all()


def test_normalisation_is_part_of_the_network_but_not_of_its_checkpoint():
    network = backbones.create("two_conv", 1, 16)
    assert set(network.state_dict()) == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"}
    grey = network.normalise(torch.full((1, 1, 2, 2), 0.286))
    assert torch.allclose(grey, torch.zeros_like(grey), atol=1e-6)


@pytest.mark.parametrize("size", [1, 12, 15])
def test_images_too_small_for_the_network_are_refused(size):
    with pytest.raises(ValueError, match=f"images of at least 16 pixels, got {size}"):
        backbones.create("two_conv", 1, size)


def test_padding_keeps_the_side_so_that_smaller_images_will_do():
    assert backbones.create("two_conv_3x3", 1, 4).features == 50
    with pytest.raises(ValueError, match="images of at least 4 pixels, got 3"):
        backbones.create("two_conv_3x3", 1, 3)


def test_unknown_names_and_channels_are_refused():
    with pytest.raises(ValueError, match="unknown backbone 'resnet5000': choose one of .*'two_conv'"):
        backbones.create("resnet5000")
    for channels in (0, 2, 4):
        with pytest.raises(ValueError, match=rf"channels must be 1 \(grey\) or 3 \(colour\), got {channels}"):
            backbones.create("two_conv", channels)


OTHERS = [("dense", 12), ("two_conv_3x3", 12), ("mobilenet_v3_small", 16), ("resnet18", 8)]
LARGER = [("mobilenet_v2", 16), ("mobilenet_v3_large", 16), ("googlenet", 16), ("resnet50", 8), ("wide_resnet50_2", 8)]


def test_the_lists_are_complete():
    assert {name for name, _ in OTHERS + LARGER} | {"two_conv"} == set(backbones.BACKBONES)


@pytest.mark.parametrize("name, size, channels", [(*other, channels) for other in OTHERS for channels in (1, 3)]
                         + [(*other, 3) for other in LARGER])
def test_other_networks_train_encode_and_survive_a_checkpoint(name, size, channels, tmp_path):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, channels, size, size), generator=random).to(torch.uint8)
    victim = ADSH(4, backbone=name, outer_epochs=1, inner_epochs=1, batch_size=16, device="cpu", autocast=False)
    victim.fit(images, torch.arange(16) % 2, progress=False)
    codes = victim.encode(images)
    assert codes.shape == (16, 4) and codes.dtype == torch.int8 and bool((codes.abs() == 1).all())
    victim.save(tmp_path / "victim.safetensors")
    assert torch.equal(hashing.load(tmp_path / "victim.safetensors").encode(images), codes)
    (tmp_path / "victim.safetensors").unlink()  # up to 270 MB


@pytest.mark.parametrize("name, size", OTHERS + LARGER)
def test_every_parameter_of_the_other_networks_gets_a_gradient(name, size):
    torch.manual_seed(0)
    network = backbones.create(name, 1, size)
    features = network(torch.rand(16, 1, size, size))
    assert features.shape == (16, network.features)
    (features * torch.randn(16, network.features)).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "googlenet"])
def test_small_images_keep_their_resolution_in_the_first_layer_and_large_ones_do_not(name):
    def first(size: int) -> torch.nn.Conv2d:
        return next(m for m in backbones.create(name, 3, size).modules() if isinstance(m, torch.nn.Conv2d))

    assert first(64).stride == (1, 1) and first(65).stride == (2, 2)


def test_stems_for_32_and_64_pixels_leave_the_deep_layers_the_same_work():
    """What reaches the first residual stage: 32 × 32 of both, and 32 × 32 again of 128 pixels."""
    for size in (32, 64, 128):
        body = backbones.create("resnet18", 3, size).body
        reached = body.maxpool(body.conv1(torch.zeros(1, 3, size, size)))
        assert reached.shape[-2:] == (32, 32), size


def test_a_stem_can_be_chosen_by_name():
    """What reaches the first residual stage of a 28-pixel image: all pixels, or half of them."""
    rows = (("resnet18", 28, None), ("resnet18@32", 28, 32), ("resnet18@64", 14, 64), ("resnet18@224", 7, 224))
    for name, side, asked in rows:
        body = backbones.create(name, 1, 28).body
        assert body.maxpool(body.conv1(torch.zeros(1, 1, 28, 28))).shape[-2:] == (side, side)
        assert backbones.parse(name) == ("resnet18", asked, "")
    assert backbones.parse("resnet50@64:IMAGENET1K_V2") == ("resnet50", 64, "IMAGENET1K_V2")
    seeds = [build(4, name, 1, 28, 0).state_dict() for name in ("resnet18", "resnet18@64")]
    assert all(torch.equal(seeds[0][key], seeds[1][key]) for key in seeds[0])  # pooling has no weights: the same start


@pytest.mark.parametrize("name", ["two_conv@64", "resnet18@", "resnet18@0", "resnet18@-1", "resnet18@64.5", "resnet18@big"])
def test_a_stem_that_cannot_be_is_refused(name):
    with pytest.raises(ValueError, match=f"backbone '{name}': behind @ .* 'resnet18@64'"):
        backbones.create(name, 1, 28)


# ---- trained weights


@pytest.fixture
def trained(monkeypatch):
    """torchvision's weights replaced by random ones of the same form, as if they were in its cache."""
    states = {}

    def state(self, **options):
        assert options["check_hash"] is True
        name = next(name for name in backbones.TORCHVISION if self in models.get_model_weights(name))
        with torch.random.fork_rng():
            torch.manual_seed(99)
            options = {"init_weights": False} if name == "googlenet" else {}
            states[name] = getattr(models, name)(weights=None, **options).state_dict()
        return dict(states[name])

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", state)
    return states


@pytest.mark.parametrize("name, channels, size", [
    *((name, *form) for name in ("resnet18", "mobilenet_v3_small", "googlenet") for form in ((3, 224), (3, 32), (1, 64))),
    *((name, 3, 32) for name in ("mobilenet_v2", "mobilenet_v3_large", "resnet50", "wide_resnet50_2"))])
def test_trained_weights_are_taken_over(trained, name, channels, size):
    network = backbones.create(name, channels, size, weights="DEFAULT")
    first = f"{backbones.TORCHVISION[name][0].first}.weight"
    own = network.body.state_dict()
    for key, value in own.items():
        if key != first:
            assert torch.equal(value, trained[name][key]), key
    kernel = trained[name][first]
    side = own[first].shape[-1]
    cut = (kernel.shape[-1] - side) // 2
    expected = kernel[..., cut:cut + side, cut:cut + side]
    assert torch.equal(own[first], expected if channels == 3 else expected.sum(1, keepdim=True))
    if (channels, size) == (3, 224):  # the whole network is torchvision's, seen with its own normalisation
        reference = getattr(models, name)(weights=None, **({"init_weights": False} if name == "googlenet" else {}))
        reference.load_state_dict(trained[name])
        if name == "googlenet":
            reference.transform_input = True
        for layer in backbones.TORCHVISION[name][0].last:
            setattr(reference, layer, torch.nn.Identity())
        images = torch.rand(2, 3, 96, 96)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        with torch.no_grad():
            expected = reference.eval()((images - mean) / std)
            assert torch.allclose(network.eval()(images), expected, atol=1e-4)


def test_a_name_can_carry_weights_and_a_checkpoint_needs_no_fetching(trained, tmp_path, monkeypatch):
    images = torch.randint(0, 256, (8, 3, 16, 16)).to(torch.uint8)
    victim = ADSH(4, backbone="mobilenet_v3_small:IMAGENET1K_V1", outer_epochs=1, inner_epochs=1, device="cpu", autocast=False)
    victim.fit(images, torch.arange(8) % 2, progress=False)
    victim.save(tmp_path / "victim.safetensors")
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda *_, **__: pytest.fail("fetched again"))
    loaded = hashing.load(tmp_path / "victim.safetensors")
    assert torch.equal(loaded.encode(images), victim.encode(images))
    assert loaded.backbone == "mobilenet_v3_small:IMAGENET1K_V1"
    assert torch.allclose(loaded.network.backbone.normalise.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


def test_weights_in_torchvisions_cache_are_read_and_a_damaged_file_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    theirs = models.resnet18(weights=None).state_dict()
    file = tmp_path / "hub" / "checkpoints" / Path(models.ResNet18_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir(parents=True)
    torch.save(theirs, file)
    own = backbones.create("resnet18:IMAGENET1K_V1", 3, 32).body.state_dict()
    assert torch.equal(own["layer4.1.conv2.weight"], theirs["layer4.1.conv2.weight"])
    whole = file.read_bytes()
    for damaged in (b"", b"not weights", whole[:1000], whole[:-1000]):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"IMAGENET1K_V1 of resnet18 at .*resnet18-.*pth are damaged .*: delete the file"):
            backbones.create("resnet18:IMAGENET1K_V1", 3, 32)


def test_weights_that_are_not_there_say_what_to_do(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"weights DEFAULT of resnet18 are not at .*resnet18-.*no network.*None"):
        backbones.create("resnet18", 3, 32, weights="DEFAULT")
    for name, weights, message in (("resnet18", "V9", "no weights 'V9' for 'resnet18': IMAGENET1K_V1 or DEFAULT"),
                                   ("two_conv", "DEFAULT", "it has none, a file that ends in .safetensors, or None"),
                                   ("resnet18:DEFAULT", "DEFAULT", "names weights already")):
        with pytest.raises(ValueError, match=message):
            backbones.create(name, 3, 32, weights=weights)
    with pytest.raises(ValueError, match="no weights 'V9'"):
        PPLConfig(backbone="resnet18:V9")


@pytest.mark.parametrize("dataset, name", [("cifar10", "resnet50"), ("imagenet13", "resnet50"), ("fashion-mnist", "two_conv")])
def test_the_papers_networks(dataset, name):
    assert PPLConfig.paper(dataset).backbone == name


# ---- gradient checkpointing


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "googlenet"])
def test_checkpointing_is_off_by_default(name):
    asked = [backbones.create(name, 3, 32, checkpointing=way).checkpointing for way in (True, False)]
    assert asked == [True, False] and backbones.create(name, 3, 32).checkpointing is False


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "googlenet"])
def test_checkpointing_saves_activations_and_changes_nothing_else(name):
    def run(checkpointing: bool) -> tuple[dict, dict, Tensor, int]:
        torch.manual_seed(0)
        network = backbones.create(name, 3, 16, checkpointing=checkpointing).train()
        random = torch.Generator().manual_seed(1)
        images = torch.rand(4, 3, 16, 16, generator=random).requires_grad_()
        kept = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel() if not isinstance(tensor, torch.nn.Parameter) else 0
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            value = (network(images) * torch.randn(4, network.features, generator=random)).sum()
        torch.autograd.grad(value, images, retain_graph=True)  # the game walks back twice
        value.backward()
        gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
        return gradients, network.state_dict(), images.grad, kept

    plain, thrifty = run(False), run(True)
    for before, after in zip(plain[:2], thrifty[:2], strict=True):
        assert before.keys() == after.keys()
        assert all(torch.allclose(before[key], after[key], atol=1e-5, rtol=1e-4) for key in before)
    assert torch.allclose(plain[2], thrifty[2], atol=1e-5, rtol=1e-4)
    assert thrifty[3] < plain[3] / 2


@pytest.mark.parametrize("name, size", OTHERS)
def test_other_networks_see_normalised_pixels(name, size):
    """A grey image at the mean pixel is 0 for the layers behind the normalisation."""
    network = backbones.create(name, 1, size)
    grey = network.normalise(torch.full((1, 1, size, size), 0.286))
    assert torch.allclose(grey, torch.zeros_like(grey), atol=1e-6)
