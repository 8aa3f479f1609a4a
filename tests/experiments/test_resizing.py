"""The resizing experiment: its machinery, and what is stored about the real run."""

import json
import re
from pathlib import Path

import pytest
import torch

from pplkit.data import embedded
from pplkit.experiments import resizing

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_pattern_size_and_scenario_is_stored_and_kept(tmp_path, capsys, monkeypatch):
    asked = ["--fast", "--out", str(tmp_path), "--work", str(tmp_path / "work"), "--seeds", "0", "1"]
    resizing.main(asked)
    stored = json.loads((tmp_path / "resizing-fashion-mnist-mini-fast.json").read_text())
    assert len(stored["cells"]) == 3 * 2 * 4 and "20 queries in 40 images" in stored["what"]
    for clean in ("adsh", "dsdh"):  # clean pictures do not depend on the pattern
        assert len({c["mAP"] for c in stored["cells"] if (c["method"], c["scenario"]) == (clean, "C->C")}) == 1
    for c in stored["cells"]:
        assert c["low"] <= c["mAP"] <= c["high"] and c["mAP"] == pytest.approx(sum(c["seeds"].values()) / 2, abs=1e-4)
    assert "pattern at own size" in capsys.readouterr().out

    monkeypatch.setattr(resizing, "protected", None)  # a second call finds every step done
    resizing.main(asked)
    assert json.loads((tmp_path / "resizing-fashion-mnist-mini-fast.json").read_text()) == stored
    path = tmp_path / "resizing-fashion-mnist-mini-fast.json"
    path.write_text(json.dumps({**stored, "counts": [500, 2000]}))
    with pytest.raises(SystemExit):
        resizing.main(asked)
    assert "was made with counts [500, 2000], this run has [20, 40]" in capsys.readouterr().err
    path.write_text(json.dumps({**stored, "dataset": "folder:x/fashion-mnist-mini"}))
    with pytest.raises(SystemExit):
        resizing.main(asked)
    assert "was made with dataset folder:x/fashion-mnist-mini" in capsys.readouterr().err
    path.unlink()
    with pytest.raises(TypeError):  # --no-resume works anew
        resizing.main([*asked, "--no-resume"])


@pytest.mark.parametrize("options", [("--queries", "5000"), ("--database", "0")])
def test_more_images_than_there_are_are_not_claimed(tmp_path, options):
    with pytest.raises(ValueError, match=f"^{options[1]} images were asked for of a part of fashion-mnist-mini that has "):
        resizing.main(["--out", str(tmp_path), "--work", str(tmp_path / "work"), *options])
    assert not list(tmp_path.glob("*.json"))


def test_resizing_rounds_and_keeps_flat_areas():
    flat = torch.full((2, 1, 28, 28), 117, dtype=torch.uint8)
    assert torch.equal(resizing.resized(resizing.resized(flat, 112, "bicubic"), 28, "bilinear"), flat)


@pytest.fixture(scope="module")
def stored():
    cells = json.loads(embedded("results", "resizing-fashion-mnist-mini.json").read_text())["cells"]
    return {(c["pattern_size"], c["method"], c["scenario"]): c["mAP"] for c in cells}


def test_a_coarse_pattern_survives_what_a_fine_one_does_not(stored):
    for method in ("adsh", "dsdh"):
        for scenario in ("C->A", "A->C"):
            assert stored[28, method, scenario] < stored[None, method, scenario] / 2 < stored[None, method, "C->C"] / 2


def test_the_readme_quotes_the_stored_figures(stored):
    fine, coarse = (f"{stored[size, 'dsdh', 'C->A']:.2f}" for size in (None, 28))
    clean = f"{stored[None, 'dsdh', 'C->C']:.2f}"
    assert re.search(rf"{fine}\s+\(C->C:\s+{clean}\),\s+with\s+`--pattern-size 28`\s+{coarse}", README)
