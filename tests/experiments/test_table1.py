"""Table 1's machinery on a tiny folder of images, and what is stored about the real run."""

import argparse
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import striped_pictures

from pplkit import pretrained
from pplkit.checkpoints import OtherCheckpoint
from pplkit.config import PAPER, PPLConfig
from pplkit.data import embedded
from pplkit.experiments import common, games, table1
from pplkit.generator import PerturbationGenerator
from pplkit.paper import BITS
from pplkit.paper import table1 as paper_table1


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return striped_pictures.write(tmp_path_factory.mktemp("photos", numbered=False), 3, 24, (28, 28))


@pytest.fixture
def arguments(photos, tmp_path, monkeypatch):
    load = table1.load
    monkeypatch.setattr(table1, "load", lambda name, root, seed: load(name, root, seed=seed, size=28, channels=1))
    return ["--dataset", f"folder:{photos}", "--epsilon", "0.3", "--bits", "16", "--fast", "--work", str(tmp_path / "work"),
            "--out", str(tmp_path / "out")]


def test_every_cell_is_stored_with_its_origin_and_a_second_call_only_reads(arguments, tmp_path, capsys):
    table1.main([*arguments, "--seeds", "0", "1"])
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    assert len(stored["cells"]) == 2 * 4 * (2 + 1)  # train domains x scenarios x (ADSH with two protocols, DSDH with one)
    for cell in stored["cells"]:
        assert set(cell["seeds"]) == {"0", "1"}
        assert cell["mAP"] == pytest.approx(np.mean(list(cell["seeds"].values())), abs=1e-4)
        assert cell["low"] <= min(cell["seeds"].values()) <= max(cell["seeds"].values()) <= cell["high"]
        assert cell["worst_tie_order"] <= cell["mAP"] <= cell["best_tie_order"]
    assert stored["generator"]["epsilon"] == 0.3
    assert all(run["commits"] and run["torch"] and run["device"] for run in stored["runs"].values())
    shown = capsys.readouterr().out
    assert "ADSH, learned codes" in shown and "seeds [0, 1], reference, two_conv from random weights" in shown
    made = json.loads(next((tmp_path / "work").glob("fast/table1*/seed0/generator.json")).read_text())
    assert made["key"]["generator"] == stored["generator"] | {"seed": 0} and made["collapsed"] is None
    shipped = next((tmp_path / "work").glob("fast/table1*/seed0/generator.safetensors"))
    assert PerturbationGenerator.load(shipped).metadata["split"] == made["key"]["split"]
    assert stored["runs"]["0"]["generator_seconds"] == made["seconds"] > 0

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*adversarial*")}
    table1.main([*arguments, "--seeds", "0", "1"])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*adversarial*")} == before
    assert json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())["cells"] == stored["cells"]


def test_a_game_in_other_parts_is_another_one_where_they_matter(arguments, tmp_path):
    table1.main([*arguments, "--accumulation", "2"])
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    assert stored["runs"]["0"]["memory"]["accumulation"] == 2
    table1.main(arguments)  # two_conv has no batch normalisation: the same game, taken as it is
    assert json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text()) == stored
    dataset = arguments[arguments.index("--dataset") + 1]
    normalised = {"bits": (), "backbone": "mobilenet_v3_small", "game": {"code_lengths": (4,), "batch_size": 8}}
    table1.run_seed(dataset, None, 0, 0.3, tmp_path, "cpu", True, **normalised)
    with pytest.raises(ValueError, match="generator.json was computed with other settings .accumulation differ"):
        table1.run_seed(dataset, None, 0, 0.3, tmp_path, "cpu", True, **normalised, memory={"accumulation": 2})
    next(tmp_path.rglob("seed0/generator.json")).unlink()  # as after another experiment, which keeps the game only
    with pytest.raises(OtherCheckpoint, match="accumulation=1, 2 asked for"):
        table1.run_seed(dataset, None, 0, 0.3, tmp_path, "cpu", True, **normalised, memory={"accumulation": 2})


def test_the_seconds_of_a_game_begun_elsewhere_are_unknown(arguments, tmp_path):
    table1.main(arguments)
    next((tmp_path / "work").rglob("generator.json")).unlink()  # as after an interrupted game, or one of another experiment
    step = next((tmp_path / "work").rglob("dsdh-clean-*.json"))
    step.write_text(json.dumps(json.loads(step.read_text()) | {"seconds": 700.0}))
    table1.main(arguments)
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    assert stored["runs"]["0"]["generator_seconds"] is None and stored["runs"]["0"]["seconds"] >= 700


def test_generators_can_be_shipped_and_taken_instead_of_playing(arguments, tmp_path, monkeypatch, capsys):
    shipped, result = tmp_path / "shipped", tmp_path / "out" / "table1-photos-eps0.3-fast.json"
    table1.main([*arguments, "--seeds", "0", "1", "--ship-generators", str(shipped)])
    played = json.loads(result.read_text())
    assert {path.name for path in shipped.iterdir()} == {"generator-0.safetensors", "generator-1.safetensors"}

    monkeypatch.setattr(games, "train_ppl", None)  # no game from here on
    elsewhere = [*arguments, "--seeds", "0", "1", "--generators", str(shipped)]
    table1.main([*elsewhere, "--ship", str(tmp_path / "again")])
    assert (tmp_path / "again" / "generator.safetensors").read_bytes() == (shipped / "generator-0.safetensors").read_bytes()
    adversarial = [path.parent.parent.name for path in (tmp_path / "work").rglob("adversarial/dsdh-16.safetensors")]
    assert sorted(name[:6] for name in adversarial) == ["seed0", "seed1", "taken-", "taken-"]  # it could be another generator
    taken = json.loads(result.read_text())
    assert taken["cells"] == played["cells"]
    for seed, run in taken["runs"].items():
        assert run["generator_seconds"] is None
        assert run["generator_commit"] == played["runs"][seed]["generator_commit"] != ""

    for changed, what in ((["--game", "beta=3"], "config .beta differ"), (["--epsilon", "0.2"], "config .epsilon differ")):
        with pytest.raises(ValueError, match=rf"generator-0.safetensors was made with another {what}.*leave out --generators"):
            table1.main([*elsewhere, *changed])
    (shipped / "generator-0.safetensors").write_bytes((shipped / "generator-1.safetensors").read_bytes())
    with pytest.raises(ValueError, match="made with another config .seed differ"):
        table1.main(elsewhere)
    (shipped / "generator-1.safetensors").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        table1.main(elsewhere)
    said = capsys.readouterr().err  # before seed 0 is refused
    assert "generator-1.safetensors: table1 --ship-generators writes them" in said


def test_games_can_be_judged_without_the_queries_and_their_generators_taken(arguments, tmp_path, monkeypatch, capsys):
    shipped = tmp_path / "shipped"
    table1.main([*arguments, "--validation", "12", "--ship-generators", str(shipped)])
    judged = json.loads((tmp_path / "out" / "validation" / "table1-photos-eps0.3-fast.json").read_text())
    assert judged["validation"] == judged["images"]["query"] == 12 and "12 validation queries" in judged["what"]
    split = table1.load(arguments[1], None, seed=0)
    key = json.loads(next((tmp_path / "work").rglob("adsh-adversarial-16.json")).read_text())["key"]
    assert key["split"] == split.validation(12, 0, keep_train=True).manifest

    with pytest.raises(SystemExit):
        table1.main([*arguments, "--validation", "12", "--ship", str(shipped)])
    assert "--ship is for victims that were judged on the queries" in capsys.readouterr().err

    monkeypatch.setattr(games, "train_ppl", None)  # no game from here on
    table1.main([*arguments, "--generators", str(shipped)])
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    assert stored["validation"] == 0 and stored["images"] == split.manifest["counts"] and stored["cells"] != judged["cells"]


def test_an_interrupted_run_goes_on_where_it_stopped(arguments, tmp_path, monkeypatch):
    fit, fitted = table1.fit_victim, []

    def fails_at_third(victim, split, train):
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(type(victim).__name__)
        return fit(victim, split, train)

    monkeypatch.setattr(table1, "fit_victim", fails_at_third)
    with pytest.raises(KeyboardInterrupt):
        table1.main(arguments)
    again = []
    monkeypatch.setattr(table1, "fit_victim", lambda v, s, t: (again.append(type(v).__name__), fit(v, s, t))[1])
    table1.main(arguments)
    assert (fitted, again) == (["ADSH", "ADSH"], ["DSDH", "DSDH"])


def test_the_figure_has_a_bar_for_every_cell_and_the_papers_where_there_are_any(stored):
    ours = {round(row["mAP"], 4) for row in table1.compared(stored["cells"])}
    drawn = table1.figure(stored)
    heights = [bar.get_height() for ax in drawn.axes for bar in ax.patches]
    assert len(heights) == 64 and {round(height, 4) for height in heights} == ours
    marks = [y for ax in drawn.axes for line in ax.lines if line.get_marker() == "D" for y in line.get_ydata()]
    assert sorted(marks) == sorted(row["paper"] for row in table1.compared(stored["cells"]))
    assert drawn.get_suptitle().endswith("shortcut, two_conv_3x3 from random weights")
    half = json.loads(embedded("results", "table1-fashion-mnist-eps0.15.json").read_text())
    title = table1.figure(half).get_suptitle()
    assert max(map(len, title.splitlines())) <= 110  # longer ones would be cut off
    assert " ".join(title.split()).endswith(", shortcut, two_conv_3x3 from random weights; the paper's at 0.300 (77/255)")
    other = table1.headline({**stored, "game": {"steps": 900, "code_lengths": [8, 4]}})
    assert other.endswith("seeds [0, 1, 2], shortcut, steps=900, code_lengths=8,4, two_conv_3x3 from random weights")
    unknown = table1.figure({**stored, "cells": [row | {"paper": None} for row in stored["cells"]]})
    assert len([bar for ax in unknown.axes for bar in ax.patches]) == 64


def test_a_run_of_less_does_not_replace_a_stored_result(arguments, tmp_path, capsys):
    table1.main([*arguments, "--seeds", "0", "1"])
    path = tmp_path / "out" / "table1-photos-eps0.3-fast.json"
    before = path.read_bytes()
    with pytest.raises(SystemExit):
        table1.main(arguments)  # one seed
    assert "has seeds [1] that this run has not" in capsys.readouterr().err and path.read_bytes() == before
    another = Path(arguments[1].removeprefix("folder:")).parent / "another" / "photos"  # of the same name
    with pytest.raises(SystemExit):
        table1.main([*arguments, "--seeds", "0", "1", "--dataset", f"folder:{another}"])
    assert "was made with dataset folder:" in capsys.readouterr().err and path.read_bytes() == before


@pytest.mark.parametrize("entry, other", [("regime", "scatter"), ("backbone", "dense")])
def test_a_table_of_another_game_is_not_replaced(arguments, tmp_path, capsys, entry, other):
    table1.main(arguments)
    path = tmp_path / "out" / "table1-photos-eps0.3-fast.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {entry: other}))  # as where that was the usual one
    with pytest.raises(SystemExit):
        table1.main(arguments)
    assert f"was made with {entry} {other}, this run has" in capsys.readouterr().err


def test_a_run_goes_on_on_another_device(arguments, tmp_path, monkeypatch):
    table1.main([*arguments, "--device", "cpu"])
    stored = json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())
    next((tmp_path / "work").rglob("dsdh-adversarial-16.json")).unlink()  # its victim is kept, too
    monkeypatch.setattr(table1, "fit_victim", None)
    table1.main([*arguments, "--device", "cpu:0"])
    assert json.loads((tmp_path / "out" / "table1-photos-eps0.3-fast.json").read_text())["cells"] == stored["cells"]


def test_what_a_user_can_mend_is_said_in_a_line(tmp_path):
    words = ["--dataset", "folder:nowhere", "--epsilon", "0.1", "--fast", "--out", str(tmp_path), "--work", str(tmp_path)]
    ended = subprocess.run([sys.executable, "-m", "pplkit.experiments.ratio", *words], capture_output=True, text=True)
    assert ended.returncode == 2 and "nowhere" in ended.stderr and "Traceback" not in ended.stderr
    assert ended.stderr.startswith("ratio: ")


def test_results_of_other_settings_are_not_mixed_in(arguments, tmp_path):
    table1.main(arguments)
    path = next((tmp_path / "work").rglob("adsh-clean-16.json"))
    stored = json.loads(path.read_text())
    stored["key"]["victim"]["gamma"] = 1.0
    path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="victim differ"):
        table1.main(arguments)


def test_shipped_files_are_the_first_seeds_without_database_codes(arguments, tmp_path):
    table1.main([*arguments, "--ship", str(tmp_path / "ship")])
    names = sorted(path.name for path in (tmp_path / "ship").iterdir())
    assert names == ["adsh-adversarial-16.safetensors", "adsh-clean-16.safetensors", "dsdh-adversarial-16.safetensors",
                     "dsdh-clean-16.safetensors", "generator.safetensors"]
    assert table1.load_victim(tmp_path / "ship" / "adsh-clean-16.safetensors").database_codes is None


def test_colour_images_other_networks_and_smaller_sets_have_places_of_their_own(photos, tmp_path):
    arguments = ["--dataset", f"folder:{photos}", "--epsilon", "0.1", "--bits", "8", "--fast", "--work", str(tmp_path / "work"),
                 "--out", str(tmp_path / "out"), "--device", "cpu"]
    table1.main([*arguments, "--backbone", "dense", "--load", "size=16", "channels=3", "query_share=0.2",
                 f"cache={tmp_path / 'cache'}"])
    assert [path.suffix for path in sorted((tmp_path / "cache").iterdir())] == [".json", ".uint8"]  # and no scratch file
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["table1-photos-dense-eps0.1-fast.json", "table1-photos-dense-eps0.1-fast.png"]
    stored = json.loads((tmp_path / "out" / names[0]).read_text())
    assert stored["generator"]["backbone"] == stored["victims_16_bits"]["dsdh"]["backbone"] == "dense"
    assert stored["load"] == {"size": 16, "channels": 3, "query_share": 0.2, "cache": str(tmp_path / "cache")}
    assert stored["images"] == {"train": 30, "query": 15, "database": 57}
    table1.main([*arguments, "--backbone", "dense", "--load", "size=16", "channels=3", "query_share=0.2", "--ship",
                 str(tmp_path / "ship")])
    assert len(list((tmp_path / "ship").iterdir())) == 5
    table1.main([*arguments, "--backbone", "dense", "--load", "size=16", "channels=3", "--out", str(tmp_path / "other")])
    games = [path.name for path in (tmp_path / "work" / "fast").glob("table1-*")]  # other images, other places
    assert len(games) == 2 and all(re.fullmatch(r"table1-photos-dense-load[0-9a-f]{6}-0.1", name) for name in games)
    assert len({json.loads(path.read_text())["key"]["split"]["sha256"]["train"]
                for path in (tmp_path / "work").rglob("generator.json")}) == 2


@pytest.mark.parametrize("text, expected", [
    ("train=40", ("train", 40)), ("share=0.5", ("share", 0.5)), ("cache=a=b", ("cache", "a=b")),
    ("code_lengths=8,12", ("code_lengths", (8, 12))), ("rates=1e-3,", ("rates", (0.001,))),
    ("cache=/a,b", ("cache", "/a,b")), ("classes=n02,n03", ("classes", ("n02", "n03"))),
    ("scaled=False", ("scaled", False)), ("widths=None", ("widths", None))])
def test_settings_as_typed(text, expected):
    assert common.setting(text) == expected
    for wrong in ("train", "=4", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="must be NAME=VALUE"):
            common.setting(wrong)


def _row(method, train, task, codes, value, paper):
    return {"method": method, "train": train, "task": task, "bits": 16, "codes": codes, "mAP": value, "paper": paper}


def test_cells_are_compared_like_with_like():
    rows = [
        _row("adsh", "clean", "C->C", "learned", 0.90, 0.91),   # in-domain, within the tolerance: met
        _row("adsh", "clean", "C->C", "network", 0.75, 0.91),   # another protocol: not compared
        _row("dsdh", "clean", "A->A", "network", 0.35, 0.30),   # cross-domain, higher than the paper's: not met
        _row("dsdh", "adversarial", "A->A", "network", 0.60, 0.70),  # in-domain, lower: not met
        _row("dsdh", "adversarial", "C->C", "network", 0.15, 0.30),  # cross-domain, lower: met
    ]
    assert [(row["method"], row["task"], row["met"]) for row in table1.compared(rows)] == [
        ("adsh", "C->C", True), ("dsdh", "A->A", False), ("dsdh", "A->A", False), ("dsdh", "C->C", True)]
    assert table1.cross_domain_ratio(rows) == pytest.approx(0.5 / 0.6)


def test_the_same_key_is_computed_once(tmp_path):
    calls = []
    for _ in range(2):
        result = common.once(tmp_path / "a.json", lambda: calls.append(1) or {"value": 3}, {"seed": (1, 2)})
    assert calls == [1] and result["value"] == 3 and result["run"]["commit"]
    with pytest.raises(ValueError, match="seed differ"):
        common.once(tmp_path / "a.json", dict, {"seed": (1, 3)})


def test_a_setting_added_since_and_not_used_makes_no_difference(tmp_path):
    common.once(tmp_path / "a.json", lambda: {"value": 3}, {"game": {"steps": 2}})
    assert common.once(tmp_path / "a.json", dict, {"game": {"steps": 2, "new": None}})["value"] == 3
    with pytest.raises(ValueError, match="game differ"):
        common.once(tmp_path / "a.json", dict, {"game": {"steps": 2, "new": 0}})
    assert common.given({"victims": [{"eta": 1, "new": None}]}) == {"victims": [{"eta": 1}]}


@pytest.mark.parametrize("method", ["adsh", "dsdh"])
def test_victims_of_64_pixel_images_learn_at_a_smaller_rate(method):
    small, large = (common.make_victim(method, 16, 0, "cpu", dataset=name).settings() for name in ("cifar10", "imagenet13"))
    assert small["learning_rate"] == 1e-3 and large["learning_rate"] == 2e-4
    deep = common.make_victim(method, 16, 0, "cpu", backbone="resnet18", dataset="imagenet13").settings()
    assert deep["learning_rate"] == 2e-4 and common.DEEP_PASSES in deep.values()


def test_unknown_victim_and_missing_epsilon_are_refused():
    with pytest.raises(ValueError, match="'itq'"):
        common.make_victim("itq", 16, 0)
    with pytest.raises(ValueError, match="no epsilon for 'folder:x'"):
        games.configuration("folder:x", 0)
    with pytest.raises(ValueError, match="no epsilon for 'folder:x'"):
        games.configuration("folder:x", 0, regime="scatter")
    assert games.configuration("cifar10", 0, regime="scatter") == PPLConfig.scatter("cifar10")
    assert games.configuration("fashion-mnist", 0, 0.15).epsilon == 0.15


@pytest.mark.parametrize("typed", ["2", "inf", "1"])
def test_the_norm_can_be_given_as_typed(typed):
    game = dict([common.setting(f"norm={typed}")])
    assert games.configuration("fashion-mnist", 0, game=game).norm == typed
    json.dumps(game, allow_nan=False)  # the result says what was asked for


def test_fields_of_the_game_can_be_given(arguments, tmp_path):
    table1.main([*arguments, "--game", "code_lengths=8,4", "batch_size=16", "steps=900"])
    path, = (tmp_path / "out").glob("*.json")
    assert re.fullmatch(r"table1-photos-eps0.3-game[0-9a-f]{6}-fast.json", path.name)
    stored = json.loads(path.read_text())
    assert stored["game"] == {"code_lengths": [8, 4], "batch_size": 16, "steps": 900}
    used = stored["generator"]
    assert (used["code_lengths"], used["batch_size"], used["steps"]) == ([8, 4], 16, 10)  # --fast plays 10
    with pytest.raises(ValueError, match="cannot be given stepps: its fields are code_lengths, "):
        games.configuration("cifar10", 0, game={"stepps": 3})
    with pytest.raises(ValueError, match="cannot be given seed: .*arguments of their own"):
        games.configuration("cifar10", 0, game={"seed": 3})


@pytest.fixture(scope="module")
def stored():
    return json.loads(embedded("results", "table1-fashion-mnist.json").read_text())


@pytest.mark.parametrize("name, dataset, regime, seeds, bits", [
    ("fashion-mnist", "fashion-mnist", PPLConfig.shortcut, "012", BITS),
    ("fashion-mnist-eps0.15", "fashion-mnist", PPLConfig.shortcut, "012", (16,)),
    ("fashion-mnist-reference", "fashion-mnist", PPLConfig.reference, "0", (16,)),
    ("fashion-mnist-two_conv", "fashion-mnist", PPLConfig.shortcut, "0", (16,)),
    ("fashion-mnist-two_conv-reference", "fashion-mnist", PPLConfig.reference, "012", BITS),
    ("fashion-mnist-two_conv-eps0.15-reference", "fashion-mnist", PPLConfig.reference, "012", (16,)),
    ("fashion-mnist-two_conv-scatter", "fashion-mnist", PPLConfig.scatter, "012", BITS),
    ("fashion-mnist-two_conv-scatter-gamef24c9c", "fashion-mnist", PPLConfig.scatter, "012", BITS),
    ("fashion-mnist-two_conv-eps0.15-scatter", "fashion-mnist", PPLConfig.scatter, "0", (16,)),
    ("cifar10", "cifar10", PPLConfig.reference, "0", BITS),
    ("imagenet13", "imagenet13", PPLConfig.reference, "0", (16,)),
    ("cifar10-mobilenet_v3_small@32-cifar10-1b6af9b0-game8b2372", "cifar10", PPLConfig.reference, "0", (16,)),
    ("imagenet13-resnet18@224-imagenet13-ad6aef91-gamec713f0", "imagenet13", PPLConfig.reference, "0", (16,)),
])
def test_each_stored_table_is_complete_and_names_its_origin(name, dataset, regime, seeds, bits):
    stored = json.loads(embedded("results", f"table1-{name}.json").read_text())
    done = table1.compared(stored["cells"])
    assert len(done) == 16 * len(bits)
    assert {(row["train"], row["method"], row["task"], row["bits"]) for row in done} == {
        key[1:] for key in paper_table1() if key[0] == dataset and key[-1] in bits}
    assert all(set(row["seeds"]) == set(seeds) for row in stored["cells"])
    assert all(len(run["commits"]) >= 1 and "unknown" not in run["commits"] for run in stored["runs"].values())
    assert not any("dirty" in commit for run in stored["runs"].values() for commit in run["commits"])
    assert plays(stored, regime)
    used = stored["generator"]
    epsilon = used["epsilon"] if used["epsilon"] != PAPER[dataset][0] else None
    assert table1.result_name(dataset, used["backbone"], epsilon, regime.__name__, fields(stored)) == f"table1-{name}"
    for method, settings in stored["victims_16_bits"].items():
        now = common.make_victim(method, 16, settings["seed"], settings["device"], False, settings["backbone"], dataset)
        assert common.given(now.settings()) == common.given(settings)


def fields(stored):
    """The fields of the game that a stored table names, as `--game` gives them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored["game"].items()}


def plays(stored, regime):
    """Whether a stored table's game is the regime's with the fields that the table names (fields added since: the default)."""
    used = stored["generator"]
    expected = regime(stored["cells"][0]["dataset"], seed=used["seed"], backbone=used["backbone"], epsilon=used["epsilon"],
                      **fields(stored))
    added_since = vars(expected).keys() - used.keys()
    assert all(getattr(expected, name) == getattr(PPLConfig, name) for name in added_since)
    settings = {name: value for name, value in vars(expected).items() if name not in added_since}
    return {**used, "seed": None} == json.loads(json.dumps({**settings, "seed": None}))


def test_fashion_mnists_table_is_as_good_as_the_papers(stored):
    assert sum(row["met"] for row in table1.compared(stored["cells"])) == 64
    assert table1.cross_domain_ratio(stored["cells"]) <= 0.75
    clean = {(row["method"], row["bits"]): row["mAP"] for row in table1.compared(stored["cells"]) if row["task"] == "C->C"
             and row["train"] == "clean"}
    assert all(clean["adsh", bits] >= least for bits, least in zip(BITS, (0.85, 0.88, 0.90, 0.91), strict=True))
    assert min(clean["dsdh", bits] for bits in BITS) >= 0.70
    fresh = json.loads(embedded("results", "fresh-seed", "table1-fashion-mnist.json").read_text())  # played after all was fixed
    assert sum(row["met"] for row in table1.compared(fresh["cells"])) == 64 and list(fresh["runs"]) == ["3"]
    assert plays(fresh, PPLConfig.shortcut) and fresh["backbone"] == stored["backbone"]
    half = json.loads(embedded("results", "table1-fashion-mnist-eps0.15.json").read_text())
    assert table1.cross_domain_ratio(half["cells"]) <= 1  # of the paper's mean at its own budget


@pytest.mark.parametrize("path", sorted(embedded("results", "validation").glob("*.json")), ids=lambda path: path.stem)
def test_each_stored_trial_was_judged_without_the_queries(path):
    stored = json.loads(path.read_text())
    assert stored["validation"] == 3000 and stored["images"] == {"train": 10000, "query": 3000, "database": 57000}
    assert not any("dirty" in commit or commit == "unknown" for run in stored["runs"].values() for commit in run["commits"])
    assert plays(stored, games.REGIMES[stored["regime"]])


@pytest.mark.parametrize("arguments, game, network", [
    ([], "shortcut", "two_conv_3x3"), (["--dataset", "fashion-mnist-mini"], "shortcut", "two_conv_3x3"),
    (["--backbone", "two_conv"], "shortcut", "two_conv"), (["--regime", "reference"], "reference", "two_conv_3x3"),
    (["--dataset", "cifar10"], "reference", "two_conv"), (["--dataset", "folder:photos"], "reference", "two_conv")])
def test_each_data_set_has_its_usual_game_and_network(arguments, game, network, stored, tmp_path, monkeypatch):
    of_seed = inspect.signature(table1.run_seed)

    def played(*values, **named):
        asked.update(of_seed.bind(*values, **named).arguments)
        raise KeyboardInterrupt

    asked = {}
    monkeypatch.setattr(table1, "run_seed", played)
    with pytest.raises(KeyboardInterrupt):
        table1.main([*arguments, "--out", str(tmp_path)])
    assert (asked["regime"], asked["backbone"]) == (game, network)
    if not arguments:
        config = games.configuration("fashion-mnist", stored["generator"]["seed"], backbone=network, regime=game)
        assert common.given(json.loads(json.dumps(vars(config)))) == common.given(stored["generator"])


@pytest.mark.parametrize("regime, seed", pretrained.GENERATORS)
def test_the_shipped_generators_are_those_of_the_tables(regime, seed):
    name = {"reference": "table1-fashion-mnist-two_conv-reference", "shortcut": "table1-fashion-mnist"}[regime]
    stored = json.loads(embedded("results", f"{name}.json").read_text())
    made = pretrained.generator(regime, seed).metadata
    assert made["config"] == stored["generator"] | {"seed": seed}
    if regime != "reference":  # that one was written before the files named a split, and the tables a generator's commit
        assert made["split"]["counts"] == stored["images"] and made["split"]["seed"] == seed
        assert made["run"]["commit"] == stored["runs"][str(seed)]["generator_commit"]


@pytest.mark.parametrize("regime, backbone", [("reference", "two_conv"), ("shortcut", "two_conv_3x3")])
def test_the_shipped_victims_are_there(regime, backbone):
    for method in ("adsh", "dsdh"):
        for domain in ("clean", "adversarial"):
            for bits in (8, 12, 16, 24):
                victim = pretrained.victim(method, domain, bits, regime)
                assert victim.bits == bits and victim.seed == 0 and victim.backbone == backbone
                assert ("generator" in victim.metadata) == (domain == "adversarial")
                if domain == "adversarial":
                    assert victim.metadata["generator"] == pretrained.generator(regime).metadata["config"]
                if regime != "reference":
                    assert victim.metadata["split"] == pretrained.generator(regime).metadata["split"]


def test_the_shipped_victims_of_16_bits_come_first():
    assert next(iter(pretrained.victims())) == ("ADSH", "clean", 16) and len(pretrained.victims((8, 24))) == 8


def test_what_is_not_shipped_is_refused():
    with pytest.raises(ValueError, match="'dsh'"):
        pretrained.victim("dsh")
    with pytest.raises(ValueError, match="no victims of 'scatter': choose one of"):
        pretrained.victim("dsdh", regime="scatter")
    with pytest.raises(ValueError, match="no generator of 'reference' with seed 1: choose one of"):
        pretrained.generator(seed=1)
