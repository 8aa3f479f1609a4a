"""Mixed training sets, and the experiment on a tiny folder of images."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pplkit import paper
from pplkit.data import ImageSet, embedded
from pplkit.experiments import ratio, table1
from pplkit.scenarios import SCENARIOS

CLEAN = ImageSet(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 2, 2).clone(), torch.arange(20) % 3)
PROTECTED = CLEAN.images + 100


@given(share=st.floats(0, 1), larger=st.floats(0, 1), seed=st.integers(0, 5))
def test_shares_are_exact_nested_and_keep_places(share, larger, seed):
    share, larger = sorted((share, larger))
    few, many = (ratio.mixed(CLEAN, PROTECTED, s, seed) for s in (share, larger))
    replaced = [(part.images >= 100).flatten(1).all(1) for part in (few, many)]
    assert [int(r.sum()) for r in replaced] == [round(20 * share), round(20 * larger)]
    assert not bool((replaced[0] & ~replaced[1]).any())
    assert torch.equal(few.images % 100, CLEAN.images) and torch.equal(few.labels, CLEAN.labels)
    assert int(CLEAN.images.max()) == 19  # the clean set stays as it is


@pytest.mark.parametrize("dataset", ["fashion-mnist", "cifar10"])
def test_the_stored_results_have_todays_title(dataset):
    stored = json.loads(embedded("results", f"ratio-{dataset}.json").read_text())
    assert stored["what"] == ratio.title(dataset, stored["backbone"], stored["generator"]["epsilon"])


@pytest.mark.parametrize(("dataset", "crosses"), [("fashion-mnist", 8), ("cifar10", 8), ("pictures", 0)])
def test_crosses_are_the_papers_cells_of_searchers_with_one_kind_of_images(dataset, crosses):
    stored = json.loads(embedded("results", "ratio-cifar10.json").read_text()) | {"dataset": dataset}
    stored["generator"]["epsilon"] = {"fashion-mnist": 0.3}.get(dataset, 0.1)
    for ax, method in zip(ratio.figure(stored).axes, paper.METHODS, strict=True):
        found = {(line.get_color(), *line.get_xydata()[0]) for line in ax.lines if line.get_marker() == "x"}
        expected = {(ratio.plots.PALETTE[SCENARIOS.index(scenario)], {"clean": 0, "adversarial": 1}[domain], value)
                    for (name, domain, m, scenario, bits), value in paper.table1().items()
                    if (name, m, bits) == (dataset, method, 16)}
        assert found == expected and len(found) == crosses


def test_a_share_that_was_not_run_has_no_crosses():
    stored = json.loads(embedded("results", "few", "ratio-fashion-mnist.json").read_text())
    assert max(row["share"] for row in stored["cells"]) == 0.1
    found = [line.get_xdata()[0] for ax in ratio.figure(stored).axes for line in ax.lines if line.get_marker() == "x"]
    assert found == [0] * 8


def test_another_budget_has_no_crosses():
    stored = json.loads(embedded("results", "ratio-cifar10.json").read_text())
    stored["generator"]["epsilon"] = 0.05
    drawn = ratio.figure(stored)
    assert not any(line.get_marker() == "x" for ax in drawn.axes for line in ax.lines)
    assert drawn.legends[0].get_title().get_text() == ""


def test_shares_are_the_papers_and_some_where_the_curve_jumps():
    assert set(k / 10 for k in range(11)) < set(ratio.SHARES) and list(ratio.SHARES) == sorted(set(ratio.SHARES))
    assert sum(0 < share < 0.1 for share in ratio.SHARES) == 3


def test_small_shares_have_room_on_the_axis():
    stored = json.loads(embedded("results", "ratio-fashion-mnist-two_conv_3x3-several.json").read_text())
    ax = ratio.figure(stored).axes[0]
    left, right, end = (ax.transData.transform((share, 0))[0] for share in (0.0, 0.01, 1.0))
    assert (right - left) / (end - left) == pytest.approx(0.1)  # the square root of the share


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_an_impossible_share_is_refused(share):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {share}"):
        ratio.mixed(CLEAN, PROTECTED, share, 0)
    with pytest.raises(ValueError, match="they must be equal"):
        ratio.mixed(CLEAN, PROTECTED[:3], 0.5, 0)


def test_the_experiment_stores_every_cell_and_shares_the_ends_with_table1(pictures, load_grey, tmp_path, monkeypatch, capsys):
    load_grey(table1, ratio)
    common = ["--dataset", f"folder:{pictures}", "--epsilon", "0.3", "--fast", "--device", "cpu",
              "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]
    table1.main([*common, "--bits", "16"])
    trained = []
    fit = table1.fit_victim
    monkeypatch.setattr(table1, "fit_victim", lambda victim, split, train: trained.append(victim) or fit(victim, split, train))
    ratio.main([*common, "--shares", "0", "0.5", "1"])
    assert len(trained) == 2  # one mixed victim per method; the ends are Table 1's
    stored = json.loads((tmp_path / "out" / "ratio-pictures-fast.json").read_text())
    of_table = json.loads((tmp_path / "out" / "table1-pictures-eps0.3-fast.json").read_text())["cells"]
    assert len(stored["cells"]) == 2 * 3 * 4 and stored["runs"]["0"]["commits"]
    for row in stored["cells"]:
        if row["share"] != 0.5:
            train = "adversarial" if row["share"] else "clean"
            (same,) = [c for c in of_table if (c["method"], c["train"], c["task"], c["codes"])
                       == (row["method"], train, row["scenario"], "network")]
            assert row["mAP"] == same["mAP"]
    assert (tmp_path / "out" / "ratio-pictures-fast.png").read_bytes().startswith(b"\x89PNG")
    assert "adsh 0.5" in capsys.readouterr().out
    ratio.main([*common, "--shares", "0.5", "--regime", "scatter", "--game", "code_lengths=8,8,8,8,8,4"])
    (other,) = (tmp_path / "out").glob("ratio-pictures-scatter-game*-fast.json")
    other = json.loads(other.read_text())
    assert other["what"].endswith(", scatter, code_lengths=8,8,8,8,8,4") and other["regime"] == "scatter"
    assert other["generator"]["code_lengths"] == [8, 8, 8, 8, 8, 4] and other["taken"] == {"0": None}
    with pytest.raises(SystemExit):  # another folder of the same name
        ratio.main([*common, "--shares", "0", "0.5", "1", "--dataset", f"folder:{tmp_path}/pictures"])
    assert "was made with dataset folder:" in capsys.readouterr().err
