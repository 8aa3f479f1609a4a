"""The transfer experiment on a tiny folder of images."""

import json

import numpy as np
import pytest
from PIL import Image

from pplkit.experiments import common, table1, transfer


def test_every_network_is_measured_and_the_papers_own_is_table1s(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "pictures"
    random = np.random.default_rng(0)
    for label in range(3):
        (folder / f"class{label}").mkdir(parents=True)
        for i in range(16):
            image = random.integers(0, 60, (28, 28), dtype=np.uint8)
            image[8 * label:8 * label + 8] += 150
            Image.fromarray(image).save(folder / f"class{label}" / f"{i}.png")
    load = table1.load
    for module in (table1, transfer):
        monkeypatch.setattr(module, "load", lambda name, root, seed: load(name, root, seed=seed, size=28, channels=1))
    shared = ["--dataset", f"folder:{folder}", "--epsilon", "0.3", "--fast", "--device", "cpu",
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


@pytest.mark.parametrize(("backbone", "passes"), [("two_conv", 15), ("dense", 15), ("resnet18", common.PASSES)])
def test_deep_networks_get_fewer_passes(backbone, passes):
    assert common.make_victim("dsdh", 16, 0, "cpu", backbone=backbone).settings()["epochs"] == passes
