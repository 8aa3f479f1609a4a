"""What is started from a terminal with `--device`: it runs there, says so, and finds what it finds on the CPU."""

import importlib
import json

import numpy as np
import pytest
import striped_pictures
from PIL import Image
from test_gpu import DEVICE

from pplkit import cli, storage

EXPERIMENTS = {
    "table1": ["--bits", "8", "--epsilon", "0.3"],
    "table1 several": ["--bits", "8", "--epsilon", "0.3", "--regime", "several"],
    "transfer": ["--networks", "dense", "mobilenet_v3_small", "--methods", "dsdh", "--train-domains", "clean", "adversarial",
                 "--epsilon", "0.3"],
    "ratio": ["--shares", "0", "0.5", "--epsilon", "0.3"],
    "epsilon": ["--epsilons", "0", "0.3", "--retrained", "0.3", "--trained-at", "0.3"],
    "pairs": ["--epsilons", "0.1", "0.3", "--trained-at", "0.3"],
    "pretrain": ["--backbone", "two_conv"],
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folder `pictures` with 16 grey pictures of 28 x 28 in each of three classes, hard to tell apart."""
    return striped_pictures.write(tmp_path_factory.mktemp("images") / "pictures", 3, 16, (28, 28), contrast=50)


def numbers(stored: object, name: str = "") -> dict[str, float]:
    """{"cells/0/mAP": 0.5, …}: every fraction in a stored result, but for seconds, intervals and orders of ties."""
    if isinstance(stored, (dict, list)):
        parts = stored.items() if isinstance(stored, dict) else enumerate(stored)
        return {key: value for part, content in parts
                if part not in ("low", "high", "worst", "best") and not str(part).endswith("seconds")
                for key, value in numbers(content, f"{name}/{part}").items()}
    return {name: stored} if isinstance(stored, float) else {}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_on_the_device(name, pictures, tmp_path):
    experiment, stored = importlib.import_module(f"pplkit.experiments.{name.split()[0]}"), []
    for device in ("cpu", str(DEVICE)):
        out = tmp_path / device.replace(":", "")
        weights = ["--weights", str(out / "weights")] if name == "pretrain" else []
        experiment.main(["--dataset", f"folder:{pictures}", "--load", "size=28", "channels=1", "--fast", "--device", device,
                         "--work", str(out / "work"), "--out", str(out), *EXPERIMENTS[name], *weights])
        (path,) = out.glob("*.json")
        stored.append(json.loads(path.read_text(encoding="utf-8")))
        assert f'"{storage.provenance(device)["device"]}"' in path.read_text(encoding="utf-8")
    ours, theirs = map(numbers, stored)
    assert ours and theirs == pytest.approx(ours, rel=0.1, abs=0.2)


def test_folders_are_trained_on_protected_and_judged_on_the_device(pictures, tmp_path, capsys):
    generator, protected = tmp_path / "generator.safetensors", {}
    where = ["--device", str(DEVICE), "--quiet"]
    form = ["--size", "28", "--channels", "1"]
    assert cli.main(["train", f"folder:{pictures}", str(generator), "--epsilon", "0.3", "--batch-size", "8",
                     "--warmup-steps", "2", "--steps", "2", *form, *where]) == cli.DONE
    for device in ("cpu", str(DEVICE)):
        output = tmp_path / device.replace(":", "")
        assert cli.main(["protect", str(pictures), str(output), "--generator", str(generator), "--device", device,
                         "--quiet"]) == cli.DONE
        protected[device] = [np.asarray(Image.open(path), dtype=int) for path in sorted(output.rglob("*.png"))]
    assert len(protected["cpu"]) == 48
    for ours, theirs in zip(*protected.values(), strict=True):
        assert abs(ours - theirs).max() <= 1  # grey levels
    capsys.readouterr()
    assert cli.main(["evaluate", str(pictures), "--protected", str(output), "--bits", "8", *form, *where]) == cli.DONE
    assert "C->A" in capsys.readouterr().out
