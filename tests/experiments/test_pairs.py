"""Fig. 7 on a tiny folder of images: the images shown are the first of each class, the numbers are theirs."""

import json

import pytest
import torch

from pplkit import quality
from pplkit.data import ImageSet, load
from pplkit.experiments import games, pairs


def test_the_first_image_of_each_class_is_shown():
    labels = torch.tensor([2, 0, 2, 1, 0])
    images = ImageSet(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), labels)
    assert pairs.first_of_each_class(images).tolist() == [1, 3, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_has_a_place(channels):
    rows = {"clean": torch.zeros(3, channels, 5, 5, dtype=torch.uint8), "protected": torch.ones(3, channels, 5, 5).byte()}
    assert len(pairs.figure(rows).axes) == 6


def test_figure_and_numbers_are_stored(pictures, load_grey, tmp_path, capsys):
    load_grey(pairs)
    pairs.main(["--dataset", f"folder:{pictures}", "--trained-at", "0.3", "--epsilons", "0.1", "0.3", "--fast",
                "--device", "cpu", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")])
    stored = json.loads((tmp_path / "out" / "pairs-pictures-fast.json").read_text())
    assert [cell["class"] for cell in stored["cells"]] == 2 * ["class0", "class1", "class2"] and stored["run"]["commit"]
    assert all(cell["linf"] <= cell["epsilon"] for cell in stored["cells"])
    split = load(f"folder:{pictures}", size=28, channels=1)
    work = tmp_path / "work" / "fast" / "table1-pictures-0.3" / "seed0"
    run = games.train_generator(split, games.configuration(f"folder:{pictures}", 0, 0.3, True), work, "cpu")
    cell = stored["cells"][-1]
    clean = split.query.images[[cell["query"]]]
    assert cell["psnr"] == pytest.approx(float(quality.psnr(clean, run.protect(clean))), abs=0.05)
    assert (tmp_path / "out" / "pairs-pictures-fast.png").read_bytes().startswith(b"\x89PNG")
    assert "0.300 (77/255): PSNR" in capsys.readouterr().out
    same = ["--dataset", f"folder:{pictures}", "--fast", "--device", "cpu", "--work", str(tmp_path / "work"),
            "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):  # would replace the figure of another generator
        pairs.main([*same, "--trained-at", "0.2", "--epsilons", "0.1", "0.3"])
    assert "made with generator" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # another folder of the same name
        pairs.main([*same, "--trained-at", "0.3", "--epsilons", "0.1", "0.3", "--dataset", f"folder:{tmp_path}/pictures"])
    assert "was made with dataset folder:" in capsys.readouterr().err
    pairs.main([*same, "--trained-at", "0.3", "--epsilons", "0", "0.1", "0.3"])
    again = json.loads((tmp_path / "out" / "pairs-pictures-fast.json").read_text())["cells"]
    assert [cell["psnr"] for cell in again[:3]] == [None] * 3 and again[3:] == stored["cells"]  # nothing changed: infinite
    with pytest.raises(SystemExit):
        pairs.main(["--seeds", "0", "1"])
    assert "--seeds: the figure has one generator, got [0, 1]" in capsys.readouterr().err
