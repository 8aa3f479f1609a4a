"""What is stored about Table 1: complete, of today's settings, as good as is said, and the checkpoints that go with it."""

import inspect
import json
import shutil

import pytest
import redraw_figures

from pplkit import pretrained
from pplkit.config import OF_SEVERAL_NETWORKS, PAPER, PPLConfig
from pplkit.data import embedded
from pplkit.experiments import common, games, table1
from pplkit.paper import BITS
from pplkit.paper import table1 as paper_table1


@pytest.fixture(scope="module")
def stored():
    return json.loads(embedded("results", "table1-fashion-mnist.json").read_text())


def test_the_figure_has_a_bar_for_every_cell_and_the_papers_where_there_are_any(stored):
    ours = {round(row["mAP"], 4) for row in table1.compared(stored["cells"])}
    drawn = table1.figure(stored)
    heights = [bar.get_height() for ax in drawn.axes for bar in ax.patches]
    assert len(heights) == 64 and {round(height, 4) for height in heights} == ours
    marks = [y for ax in drawn.axes for line in ax.lines if line.get_marker() == "D" for y in line.get_ydata()]
    assert sorted(marks) == sorted(row["paper"] for row in table1.compared(stored["cells"]))
    assert drawn.get_suptitle().endswith("several, two_conv_3x3 from random weights")
    half = json.loads(embedded("results", "table1-fashion-mnist-eps0.15-shortcut.json").read_text())
    title = table1.figure(half).get_suptitle()
    assert max(map(len, title.splitlines())) <= 110  # longer ones would be cut off
    assert " ".join(title.split()).endswith(", shortcut, two_conv_3x3 from random weights; the paper's at 0.300 (77/255)")
    other = table1.headline({**stored, "game": {"steps": 900, "code_lengths": [8, 4]}})
    assert other.endswith("seeds [0, 1, 2], several, steps=900, code_lengths=8,4, two_conv_3x3 from random weights")
    unknown = table1.figure({**stored, "cells": [row | {"paper": None} for row in stored["cells"]]})
    assert len([bar for ax in unknown.axes for bar in ax.patches]) == 64


@pytest.mark.parametrize("name, dataset, regime, seeds, bits", [
    ("fashion-mnist", "fashion-mnist", PPLConfig.several, "012", BITS),
    ("fashion-mnist-shortcut", "fashion-mnist", PPLConfig.shortcut, "012", BITS),
    ("fashion-mnist-eps0.15-shortcut", "fashion-mnist", PPLConfig.shortcut, "012", (16,)),
    ("fashion-mnist-reference", "fashion-mnist", PPLConfig.reference, "0", (16,)),
    ("fashion-mnist-two_conv-shortcut", "fashion-mnist", PPLConfig.shortcut, "0", (16,)),
    ("fashion-mnist-two_conv-reference", "fashion-mnist", PPLConfig.reference, "012", BITS),
    ("fashion-mnist-two_conv-eps0.15-reference", "fashion-mnist", PPLConfig.reference, "012", (16,)),
    ("fashion-mnist-two_conv-scatter", "fashion-mnist", PPLConfig.scatter, "012", BITS),
    ("fashion-mnist-two_conv-scatter-gamef24c9c", "fashion-mnist", PPLConfig.scatter, "012", BITS),
    ("fashion-mnist-two_conv-eps0.15-scatter", "fashion-mnist", PPLConfig.scatter, "0", (16,)),
    ("cifar10", "cifar10", PPLConfig.reference, "0", BITS),
    ("cifar10-shortcut-game80339f", "cifar10", PPLConfig.shortcut, "0", (16,)),
    ("imagenet13", "imagenet13", PPLConfig.reference, "0", (16,)),
    ("cifar10-mobilenet_v3_small@32-cifar10-1b6af9b0-game8b2372", "cifar10", PPLConfig.reference, "0", (16,)),
    ("cifar10-mobilenet_v3_small@32-cifar10-9d97fdaa-shortcut-game73840c", "cifar10", PPLConfig.shortcut, "0", (16,)),
    ("cifar10-mobilenet_v3_small@32-imagenet13-e695272e-game8b2372", "cifar10", PPLConfig.reference, "01", (16,)),
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
    assert table1.result_name(dataset, stored["backbone"], epsilon, regime.__name__, fields(stored)) == f"table1-{name}"
    for method, settings in stored["victims_16_bits"].items():
        now = common.make_victim(method, 16, settings["seed"], settings["device"], False, settings["backbone"], dataset)
        assert common.given(now.settings()) == common.given(settings)


def fields(stored):
    """The fields of the game that a stored table names, as `--game` gives them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored["game"].items()}


def plays(stored, regime):
    """Whether a stored table's game is the regime's with the fields that the table names (fields added since: the default)."""
    used = stored["generator"]
    network = {} if regime.__name__ in OF_SEVERAL_NETWORKS else {"backbone": stored["backbone"]}
    expected = regime(stored["cells"][0]["dataset"], seed=used["seed"], epsilon=used["epsilon"], **network | fields(stored))
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
    name = "table1-fashion-mnist-shortcut.json"
    fresh = json.loads(embedded("results", "fresh-seed", name).read_text())  # played after all was fixed
    assert sum(row["met"] for row in table1.compared(fresh["cells"])) == 64 and list(fresh["runs"]) == ["3"]
    assert plays(fresh, PPLConfig.shortcut) and fresh["backbone"] == stored["backbone"]
    half = json.loads(embedded("results", "table1-fashion-mnist-eps0.15-shortcut.json").read_text())
    assert table1.cross_domain_ratio(half["cells"]) <= 1  # of the paper's mean at its own budget


@pytest.mark.parametrize("path", sorted(embedded("results", "validation").glob("*.json")), ids=lambda path: path.stem)
def test_each_stored_trial_was_judged_without_the_queries(path):
    stored = json.loads(path.read_text())
    assert stored["validation"] == 3000 and stored["images"] == {"train": 10000, "query": 3000, "database": 57000}
    assert not any("dirty" in commit or commit == "unknown" for run in stored["runs"].values() for commit in run["commits"])
    assert plays(stored, games.REGIMES[stored["regime"]])


@pytest.mark.parametrize("arguments, game, network", [
    ([], "several", "two_conv_3x3"), (["--dataset", "fashion-mnist-mini"], "several", "two_conv_3x3"),
    (["--backbone", "two_conv"], "several", "two_conv"), (["--regime", "reference"], "reference", "two_conv_3x3"),
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
    name = {"reference": "table1-fashion-mnist-two_conv-reference", "several": "table1-fashion-mnist",
            "shortcut": "table1-fashion-mnist-shortcut"}[regime]
    stored = json.loads(embedded("results", f"{name}.json").read_text())
    made = pretrained.generator(regime, seed).metadata
    assert made["config"] == stored["generator"] | {"seed": seed}
    if regime != "reference":  # that one was written before the files named a split, and the tables a generator's commit
        assert made["split"]["counts"] == stored["images"] and made["split"]["seed"] == seed
        assert made["run"]["commit"] == stored["runs"][str(seed)]["generator_commit"]


def test_the_games_of_one_network_and_of_several_were_judged_by_the_same_searchers():
    folder = embedded("results", "networks")
    one = json.loads((folder / "transfer-fashion-mnist-two_conv_3x3-shortcut.json").read_text())
    several = json.loads((folder / "transfer-fashion-mnist-two_conv_3x3-several.json").read_text())
    assert one["victims"] == several["victims"] and one["images"] == several["images"]
    clean, again = ({(c["method"], c["network"]): c["mAP"] for c in stored["cells"] if c["scenario"] == "C->C"}
                    for stored in (one, several))
    assert clean == again
    assert len(set(several["generator"]["backbone"])) == 3 and one["generator"]["backbone"] == "two_conv_3x3"
    expected = games.configuration("fashion-mnist", 0, backbone="two_conv_3x3", regime="several")
    assert several["generator"] == json.loads(json.dumps(vars(expected)))
    assert several["generator"] == pretrained.generator("several").metadata["config"]


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


def test_pictures_are_drawn_again_from_the_numbers_alone(tmp_path, capsys):
    for name in ("ratio-cifar10", "transfer-cifar10", "resizing-fashion-mnist-mini"):
        shutil.copy(embedded("results", f"{name}.json"), tmp_path / f"{name}.json")
    (tmp_path / "ratio-cifar10.png").write_bytes(b"old")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    redraw_figures.main(["--results", str(tmp_path)])
    assert capsys.readouterr().out == "ratio-cifar10.png\n"  # the other has no picture here, and gets none
    assert (tmp_path / "ratio-cifar10.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json")} == before
    with pytest.raises(SystemExit):
        redraw_figures.main(["figures"])
    assert "no experiment figures: choose from epsilon, ratio" in capsys.readouterr().err
