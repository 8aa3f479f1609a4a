"""The ε experiment on a tiny folder of images: both meanings, resumed steps, and what the figure draws."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from pplkit import budget, paper
from pplkit.data import embedded
from pplkit.experiments import epsilon, games, table1
from pplkit.scenarios import SCENARIOS, evaluate_scenarios


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def arguments(work, pictures, load_grey):
    load_grey(table1, epsilon)
    return ["--dataset", f"folder:{pictures}", "--fast", "--work", str(work), "--trained-at", "0.3",
            "--epsilons", "0", "0.3", "1",
            "--retrained", "0.3", "--seeds", "0", "--device", "cpu"]


def test_both_meanings_are_stored_and_agree_where_they_must(arguments, work, tmp_path, capsys, monkeypatch):
    epsilon.main([*arguments, "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    stored = json.loads((tmp_path / "epsilon-pictures-fast.json").read_text())
    assert len(stored["scaled"]) == 4 * 3 * 4 and len(stored["retrained"]) == 4 * 1 * 4
    assert stored["runs"]["0"]["commits"] and stored["trained_at"] == 0.3
    assert (tmp_path / "epsilon-pictures-fast.png").read_bytes().startswith(b"\x89PNG")
    cell = {(way, c["method"], c["train"], c["scenario"], c["epsilon"]): c
            for way in ("scaled", "retrained") for c in stored[way]}
    for method in ("adsh", "dsdh"):
        for domain in ("clean", "adversarial"):
            at_zero = {cell["scaled", method, domain, scenario, 0.0]["mAP"] for scenario in SCENARIOS}
            assert len(at_zero) == 1  # nothing is protected: all scenarios are the same search
            for scenario in SCENARIOS:  # trained for 0.3 and scaled to 0.3 is the same generator
                assert cell["scaled", method, domain, scenario, 0.3] == cell["retrained", method, domain, scenario, 0.3]
    assert stored["quality"]["0"]["0"] == {"psnr": None, "ssim": 1.0, "linf": 0.0}
    assert stored["quality"]["0"]["0.3"]["linf"] <= 0.3
    assert "0.300 (77/255)" in printed and "  -  " in printed

    def fails(*_args, **_kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(table1, "fit_victim", fails)
    epsilon.main([*arguments, "--out", str(tmp_path)])
    assert json.loads((tmp_path / "epsilon-pictures-fast.json").read_text()) == stored
    more = [*arguments, "--out", str(tmp_path), "--epsilons", "0", "0.3", "0.5", "1"]  # only the new one is measured
    before = {path: path.stat().st_mtime_ns for path in work.rglob("scaled-*")}
    epsilon.main(more)
    assert len(before) == 3 and before.items() <= {path: path.stat().st_mtime_ns for path in work.rglob("scaled-*")}.items()
    scaled = json.loads((tmp_path / "epsilon-pictures-fast.json").read_text())["scaled"]
    assert [c for c in scaled if c["epsilon"] != 0.5] == stored["scaled"] and len(scaled) == 4 * 4 * 4
    capsys.readouterr()
    with pytest.raises(SystemExit):
        epsilon.main([*arguments, "--out", str(tmp_path), "--trained-at", "0.2"])
    assert "was made with trained_at 0.3, this run has 0.2" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # another folder of the same name
        epsilon.main([*arguments, "--out", str(tmp_path), "--dataset", f"folder:{tmp_path}/pictures"])
    assert "was made with dataset folder:" in capsys.readouterr().err


def test_unchanged_images_do_not_hide_the_psnr_of_the_others():
    clean = torch.full((3, 1, 12, 12), 100, dtype=torch.uint8)
    protected = clean.clone()
    protected[:2] += 3
    patterns = SimpleNamespace(images={"query": SimpleNamespace(images=clean)}, protect=lambda *_: protected)
    assert epsilon._quality(patterns, 0.1, "inf")["psnr"] == pytest.approx(20 * math.log10(255 / 3), abs=0.01)


def test_a_cell_equals_the_package(arguments, work, tmp_path):
    epsilon.main([*arguments, "--out", str(tmp_path)])
    stored = json.loads((tmp_path / "epsilon-pictures-fast.json").read_text())
    split = table1.load(arguments[1], None, seed=0)
    folder = work / "fast" / "table1-pictures-0.3" / "seed0"
    run = games.train_generator(split, games.configuration(arguments[1], 0, 0.3, True), folder, "cpu")
    victim = table1.load_victim(folder / "adversarial" / "dsdh-16.safetensors")
    found = evaluate_scenarios(victim, split, lambda images: budget.protect(images, run.generator, 1.0))
    cells = {c["scenario"]: c["mAP"] for c in stored["scaled"] if (c["method"], c["train"], c["epsilon"])
             == ("dsdh", "adversarial", 1.0)}
    assert cells == {scenario: pytest.approx(value.expected, abs=1e-4) for scenario, value in found.items()}


def test_colour_images_of_several_networks_and_a_generator_that_was_taken(pictures, work, tmp_path, capsys):
    of = ["--dataset", f"folder:{pictures}", "--fast", "--work", str(work), "--out", str(tmp_path), "--device", "cpu",
          "--backbone", "dense", "--load", "size=16", "channels=3", "query_share=0.2", "--trained-at", "0.3",
          "--game", "backbone=two_conv,dense,dense,dense", "--epsilons", "0.3"]
    epsilon.main([*of, "--retrained", "0.3"])
    path, = tmp_path.glob("epsilon-pictures-dense-game*-fast.json")
    stored = json.loads(path.read_text())
    assert stored["generator"]["backbone"] == ["two_conv", "dense", "dense", "dense"] and stored["taken"] == {"0": None}
    assert stored["what"].endswith("reference, backbone=two_conv,dense,dense,dense") and "dense from random" in stored["what"]
    assert stored["load"] == {"size": 16, "channels": 3, "query_share": 0.2} and stored["images"]["query"] == 9
    assert stored["scaled"] == stored["retrained"] and len(stored["scaled"]) == 4 * 4
    (step,) = work.rglob("epsilon-pictures-dense-*/scaled-0.3-0.3-0.json")
    kept = json.loads(step.read_text())
    assert [victim["backbone"] for victim in kept["key"]["victims"]] == ["dense", "dense"]
    del kept["key"]["taken"]  # as an earlier version wrote it
    step.write_text(json.dumps(kept))
    epsilon.main([*of, "--retrained", "0.3"])
    assert json.loads(path.read_text()) == stored

    (game,) = (work / "fast").glob("table1-pictures-dense-*/seed0")
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "generator-0.safetensors").write_bytes((game / "generator.safetensors").read_bytes())
    taken = [*of, "--generators", str(tmp_path / "shipped")]
    with pytest.raises(SystemExit):
        epsilon.main([*taken, "--retrained", "0.1", "0.3"])
    assert "--retrained 0.1 0.3 plays a game for each: leave out one" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        epsilon.main([*taken, "--retrain-seeds", "0"])
    assert "--retrain-seeds 0: nothing is retrained" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        epsilon.main([*taken, "--retrained"])
    assert "was made without --generators" in capsys.readouterr().err
    epsilon.main([*taken, "--out", str(tmp_path / "taken")])
    again = json.loads((tmp_path / "taken" / path.name).read_text())
    assert again["scaled"] == stored["scaled"] and again["retrained"] == [] and len(again["taken"]["0"]) == 64


@pytest.mark.parametrize(("dataset", "crosses"), [("fashion-mnist", 4), ("pictures", 0)])
def test_crosses_are_the_papers_cells_at_its_budget(dataset, crosses):
    stored = json.loads(embedded("results", "epsilon-fashion-mnist.json").read_text()) | {"dataset": dataset}
    drawn = epsilon.figure(stored)
    for ax, (method, domain) in zip(drawn.axes, [(m, d) for m in paper.METHODS for d in paper.TRAIN_DOMAINS], strict=True):
        found = {(line.get_color(), *line.get_xydata()[0]) for line in ax.lines if line.get_marker() == "x"}
        expected = {(epsilon.plots.PALETTE[SCENARIOS.index(scenario)], 0.3, value) for (name, d, m, scenario, bits), value
                    in paper.table1().items() if (name, d, m, bits) == (dataset, domain, method, 16)}
        assert found == expected and len(found) == crosses
    assert drawn.get_suptitle().replace("\n", " ") == stored["what"]
    assert (paper.CROSSES in drawn.legends[0].get_title().get_text()) is bool(crosses)


def test_the_stored_result_has_todays_title():
    stored = json.loads(embedded("results", "epsilon-fashion-mnist.json").read_text())
    assert stored["what"] == epsilon.title(stored["dataset"], stored["backbone"], stored["trained_at"], True)


def test_parts_of_a_batch_make_another_game_where_there_is_batch_normalisation(arguments, tmp_path, monkeypatch):
    keys = []
    monkeypatch.setattr(epsilon, "once", lambda path, compute, key, device: keys.append(key))
    for backbone in ("mobilenet_v3_small", "dense"):
        for parts in (1, 2):
            epsilon.scaled(arguments[1], None, 0, 0.3, [0.3], tmp_path, "cpu", True, backbone, memory={"accumulation": parts})
    assert [key["accumulation"] for key in keys] == [None, 2, None, None]
