"""The transfer experiment on a tiny folder of images."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from pplkit.data import embedded
from pplkit.experiments import common, games, table1, transfer
from pplkit.hashing import load as load_victim
from pplkit.scenarios import SCENARIOS


def test_every_network_is_measured_and_the_papers_own_is_table1s(pictures, load_grey, tmp_path, capsys):
    load_grey(table1, transfer)
    shared = ["--dataset", f"folder:{pictures}", "--epsilon", "0.3", "--fast", "--device", "cpu",
              "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    table1.main([*shared, "--bits", "16"])
    transfer.main([*shared, "--networks", "two_conv", "dense"])
    stored = json.loads((tmp_path / "out" / "transfer-pictures-fast.json").read_text())
    of_table = json.loads((tmp_path / "out" / "table1-pictures-eps0.3-fast.json").read_text())["cells"]
    assert len(stored["cells"]) == 2 * 2 * 4
    assert stored["victims"]["adsh dense"]["backbone"] == "dense" and stored["runs"]["0"]["adsh dense"]["commit"]
    for row in stored["cells"]:
        if row["network"] == "two_conv":
            (same,) = [c for c in of_table if (c["method"], c["train"], c["task"], c["codes"])
                       == (row["method"], "clean", row["scenario"], "network")]
            assert row["mAP"] == same["mAP"]
    assert (tmp_path / "out" / "transfer-pictures-fast.png").read_bytes().startswith(b"\x89PNG")
    assert "dsdh dense" in capsys.readouterr().out
    transfer.main([*shared, "--networks", "two_conv", "--victim-seed", "7"])
    other = json.loads((tmp_path / "out" / "transfer-pictures-victim7-fast.json").read_text())
    assert other["victims"]["adsh two_conv"]["seed"] == 7 and other["generator"] == stored["generator"]
    assert [row["mAP"] for row in other["cells"]] != [row["mAP"] for row in stored["cells"] if row["network"] == "two_conv"]
    with pytest.raises(ValueError, match="--victim-seed 1 is the seed of a surrogate, .* those of seed 0 have 0 to 3"):
        transfer.main([*shared, "--networks", "two_conv", "--victim-seed", "1"])


def test_victims_can_learn_from_other_images_than_the_generator(pictures, tmp_path, monkeypatch):
    shared = ["--dataset", f"folder:{pictures}", "--load", "size=28", "channels=1", "train_share=0.3", "--epsilon", "0.3",
              "--fast", "--device", "cpu", "--work", str(tmp_path / "work"), "--out", str(tmp_path), "--networks", "two_conv",
              "--methods", "dsdh", "--train-domains", "clean", "adversarial"]
    fit, learned = table1.fit_victim, []
    monkeypatch.setattr(table1, "fit_victim",
                        lambda victim, split, train: (learned.append((split, train)), fit(victim, split, train))[1])
    transfer.main(shared)
    transfer.main([*shared, "--other-images"])
    (own, clean), (_, protected), (others, more), (_, hidden) = learned
    assert not torch.isin(others.train_index, own.train_index).any() and len(more) == len(clean) == len(protected)
    assert torch.equal(more.images, others.database.images[others.train_index]) and not torch.equal(more.images, hidden.images)
    stored = json.loads((tmp_path / "transfer-pictures-others-fast.json").read_text())
    assert stored["what"].endswith(", victims learned from other images than the generator")
    assert json.loads((tmp_path / "transfer-pictures-fast.json").read_text())["generator"] == stored["generator"]
    transfer.main(shared)
    transfer.main([*shared, "--other-images"])
    assert len(learned) == 4  # all kept, each in a place of its own
    most = [word if word != "train_share=0.3" else "train_share=0.7" for word in shared]
    with pytest.raises(ValueError, match="others: take a smaller train part"):
        transfer.main([*most, "--work", str(tmp_path / "never"), "--out", str(tmp_path / "none"), "--other-images"])
    assert not (tmp_path / "never").exists()  # said before the game


def test_weights_in_a_folder_with_spaces_are_one_network():
    scenarios = {name: {"mAP": 0.5, "low": 0.4, "high": 0.6} for name in SCENARIOS}
    rows = transfer.collect({0: {"adsh two_conv:a b/c.safetensors": {"scenarios": scenarios},
                                 "adsh two_conv:a b/c.safetensors adversarial": {"scenarios": scenarios}}})
    assert {(row["method"], row["network"], row["train"]) for row in rows} == {
        ("adsh", "two_conv:a b/c.safetensors", domain) for domain in ("clean", "adversarial")}


def test_victims_are_trained_on_protected_images_too_and_generators_taken(pictures, load_grey, tmp_path, monkeypatch, capsys):
    load_grey(table1, transfer)
    shared = ["--dataset", f"folder:{pictures}", "--epsilon", "0.3", "--fast", "--device", "cpu",
              "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    table1.main([*shared, "--bits", "16", "--ship-generators", str(tmp_path / "made")])
    of_table = json.loads((tmp_path / "out" / "table1-pictures-eps0.3-fast.json").read_text())["cells"]
    both = [*shared, "--networks", "two_conv", "dense", "--methods", "dsdh", "--train-domains", "clean", "adversarial"]
    transfer.main(both)
    stored = json.loads((tmp_path / "out" / "transfer-pictures-fast.json").read_text())
    assert len(stored["cells"]) == 2 * 2 * 4
    for row in stored["cells"]:
        if row["network"] == "two_conv":
            (same,) = [c for c in of_table if (c["method"], c["train"], c["task"], c["codes"])
                       == (row["method"], row["train"], row["scenario"], "network")]
            assert row["mAP"] == same["mAP"]
    made = [path.parent.name for path in (tmp_path / "work").rglob("dsdh-16.safetensors")]
    assert sorted(made) == ["adversarial", "adversarial-pictures-dense-0.3", "seed0", "seed0"]
    clean, protected = (load_victim(next((tmp_path / "work").rglob(f"{folder}/dsdh-16.safetensors")))
                        for folder in ("clean-pictures-dense/seed0", "adversarial-pictures-dense-0.3"))
    weights = [victim.network.code.weight for victim in (clean, protected)]
    assert weights[0].shape == weights[1].shape and not torch.equal(*weights)
    titles = [ax.get_title() for ax in transfer.figure(stored).axes]
    assert titles == ["DSDH, trained on clean images", "DSDH, trained on protected images"]
    assert "dsdh dense              adversarial" in capsys.readouterr().out

    monkeypatch.setattr(games, "train_ppl", None)  # no game from here on
    again = ["--generators", str(tmp_path / "made"), "--work", str(tmp_path / "new")]
    transfer.main([*both, *again, "--out", str(tmp_path / "other")])
    taken = json.loads((tmp_path / "other" / "transfer-pictures-fast.json").read_text())
    assert taken["cells"] == stored["cells"]
    with pytest.raises(ValueError, match="made with another config .beta differ"):
        transfer.main([*both, *again, "--game", "beta=3"])
    with pytest.raises(SystemExit):
        transfer.main([*both, "--seeds", "1", "--generators", str(tmp_path / "made")])
    assert "no generator at" in capsys.readouterr().err
    assert (stored["taken"], stored["regime"], stored["backbone"]) == ({"0": None}, "reference", "two_conv")
    assert len(taken["taken"]["0"]) == 64


def test_what_was_made_with_a_taken_generator_is_not_taken_for_another_ones(pictures, load_grey, tmp_path, monkeypatch):
    load_grey(table1, transfer)
    shared = ["--dataset", f"folder:{pictures}", "--epsilon", "0.3", "--fast", "--device", "cpu",
              "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    table1.main([*shared, "--bits", "16", "--ship-generators", str(tmp_path / "made"), "--work", str(tmp_path / "there")])
    table1.main([*shared, "--bits", "16", "--generators", str(tmp_path / "made")])
    fit, fitted = table1.fit_victim, []
    monkeypatch.setattr(table1, "fit_victim", lambda victim, split, train: fitted.append(victim) or fit(victim, split, train))
    only = ["--networks", "two_conv", "--methods", "dsdh", "--train-domains", "adversarial"]
    transfer.main([*shared, *only, "--generators", str(tmp_path / "made"), "--out", str(tmp_path / "taken")])
    assert not fitted  # table1's own
    transfer.main([*shared, *only, "--out", str(tmp_path / "played")])
    assert [type(victim).__name__ for victim in fitted] == ["DSDH"]  # on the images of a generator that is played here


def test_a_run_of_another_train_domain_does_not_replace_the_stored_one(capsys):
    networks = list(dict.fromkeys(row["network"] for row in json.loads(
        embedded("results", "transfer-fashion-mnist.json").read_text())["cells"]))
    with pytest.raises(SystemExit):
        transfer.main(["--networks", *networks, "--train-domains", "adversarial", "--out", str(embedded("results"))])
    assert "has train ['clean'] that this run has not" in capsys.readouterr().err


def test_a_generator_is_carried_over_to_another_data_set(tmp_path, capsys):
    random = np.random.default_rng(0)
    for name in ("there/home", "here/abroad"):
        for label in range(2):
            (tmp_path / name / f"class{label}").mkdir(parents=True)
            for i in range(12):
                Image.fromarray(random.integers(90 * label, 90 * label + 90, (24, 24, 3), dtype=np.uint8)).save(
                    tmp_path / name / f"class{label}" / f"{i}.png")
    arguments = ["--dataset", "folder:abroad", "--root", str(tmp_path / "here"), "--origin", "folder:home",
                 "--origin-root", str(tmp_path / "there"), "--epsilon", "0.2", "--networks", "two_conv", "--methods", "dsdh",
                 "--fast", "--device", "cpu", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--load",
                 "size=16", "channels=1"]
    transfer.main([*arguments, "--origin-load", "size=20", "channels=1"])
    stored = json.loads((tmp_path / "out" / "transfer-home-to-abroad-fast.json").read_text())
    assert "home to" in stored["what"] and stored["load"] == {"size": 16, "channels": 1} and len(stored["cells"]) == 4
    transfer.main([*arguments, "size=20", "--origin-load", "size=20", "channels=1", "--out", str(tmp_path / "larger")])
    assert len(list((tmp_path / "work").rglob("transfer-home-load*-to-abroad-load*-0.2"))) == 2  # other images, other places
    step = json.loads(next((tmp_path / "work").rglob("dsdh-two_conv-0.json")).read_text())
    assert step["key"]["origin"]["dataset"] == "folder:home" and step["key"]["split"]["dataset"] == "folder:abroad"
    assert step["key"]["epsilon"] == 0.2
    for option, other in {"--dataset": "folder:x/abroad", "--origin": "folder:x/home"}.items():  # of the same names
        with pytest.raises(SystemExit):
            transfer.main([*arguments, "--origin-load", "size=20", "channels=1", option, other])
        assert f"was made with {option.removeprefix('--')} folder:" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has 3 channels and .* 1: a generator is carried over"):
        transfer.main([*arguments, "--origin-load", "size=20", "channels=3", "--out", str(tmp_path / "other")])


@pytest.mark.parametrize(("backbone", "passes"), [("two_conv", 15), ("two_conv_3x3", 15), ("dense", 15), ("resnet18", 5),
                                                ("resnet18@64", 5), ("mobilenet_v3_small", 10)])
def test_deep_networks_get_fewer_passes(backbone, passes):
    assert common.make_victim("dsdh", 16, 0, "cpu", backbone=backbone).settings()["epochs"] == passes


def test_adsh_learns_at_half_the_rate_with_3x3_kernels_and_at_a_fifth_with_64_pixels():
    def rate(method: str, backbone: str, dataset: str = "") -> float:
        return common.make_victim(method, 16, 0, "cpu", backbone=backbone, dataset=dataset).learning_rate

    assert rate("adsh", "two_conv") == rate("dsdh", "two_conv_3x3") == 1e-3 and rate("adsh", "two_conv_3x3") == 5e-4
    assert rate("adsh", "two_conv_3x3", "imagenet13") == rate("dsdh", "two_conv", "imagenet13") == 2e-4


def test_a_network_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        transfer.main(["--networks", "resnet18@big"])
    assert "backbone 'resnet18@big': behind @ stands the size in pixels" in capsys.readouterr().err


def test_a_stronger_searcher_loses_more_on_cifar10():
    """The stored run at a reduced size: of what a network finds, the protection takes as much or more from a better one."""
    cells = json.loads(embedded("results", "transfer-cifar10.json").read_text())["cells"]
    for method in ("adsh", "dsdh"):
        found = {(c["network"], c["scenario"]): c["mAP"] for c in cells if c["method"] == method}
        drop = {network: found[network, "C->C"] - found[network, "C->A"] for network in ("two_conv", "resnet18@64")}
        assert found["resnet18@64", "C->C"] > found["two_conv", "C->C"] and drop["resnet18@64"] > drop["two_conv"] > 0
