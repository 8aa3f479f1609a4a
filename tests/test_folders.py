"""pplkit.folders: every picture of a folder, once, in its place, whatever else lies there."""

import csv
import hashlib
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pplkit import budget, folders, locks, photos, quality
from pplkit.folders import FIELDS, list_files, protect_folder
from pplkit.generator import PerturbationGenerator


@pytest.fixture(scope="module")
def generator() -> PerturbationGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = PerturbationGenerator(1, (4, 4, 4, 4)).eval()
        with torch.no_grad():
            made.output.weight.mul_(100)  # a pattern that survives rounding
        return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    random = np.random.default_rng(0)
    for name, shape in {"a.png": (20, 30), "b.jpg": (9, 12, 3), "sub/c.bmp": (8, 8, 3), "sub/deep/d.png": (16, 5, 4)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def run(source, tmp_path, generator):
    def call(**changes):
        arguments = {"source": source, "target": tmp_path / "out", "generator": generator, "epsilon": 0.1, "progress": False}
        return protect_folder(**(arguments | changes))

    return call


def files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


# ---- what is written


def test_every_picture_has_its_protected_copy_and_its_row(run, source, tmp_path):
    before = files(source)
    result = run()
    assert (result.protected, result.kept, result.failed, result.notes) == (4, 0, {}, {})
    assert list(files(tmp_path / "out")) == ["a.png", "b.png", "sub/c.png", "sub/deep/d.png"]
    assert files(source) == before
    assert result.report == tmp_path / "out-report.csv"
    report = rows(result.report)
    assert list(report) == ["a.png", "b.jpg", "sub/c.bmp", "sub/deep/d.png"]
    for name, row in report.items():
        clean, protected = (photos.read_picture(path) for path in (source / name, tmp_path / "out" / row["output"]))
        change = budget.perturbation_norm(clean.pixels, protected.pixels)
        assert 0 < float(change) <= 0.1 + 1e-6
        assert float(row["l_inf"]) == pytest.approx(float(change), abs=1e-6)
        assert float(row["psnr"]) == pytest.approx(float(quality.psnr(clean.pixels, protected.pixels)), abs=1e-3)
        if row["ssim"]:
            assert float(row["ssim"]) == pytest.approx(float(quality.ssim(clean.pixels, protected.pixels)), abs=1e-4)
        else:
            assert int(row["width"]) == 5  # smaller than a window of SSIM
        assert [int(row[key]) for key in ("channels", "height", "width")] == list(clean.pixels.shape[1:])
        assert row["alpha"] == ("yes" if clean.alpha is not None else "no")
        assert clean.alpha is None or torch.equal(clean.alpha, protected.alpha)
        assert row["source_sha256"] == before[name] and row["status"] == "protected" and row["epsilon"] == "0.1"


def test_workers_and_whole_or_single_calls_give_the_same_bytes(run, tmp_path):
    run()
    run(target=tmp_path / "two", workers=3)
    assert files(tmp_path / "two") == files(tmp_path / "out")
    report = [rows(tmp_path / f"{name}-report.csv") for name in ("out", "two")]
    assert report[0] == report[1]
    assert torch.get_num_threads() >= 1


def test_workers_are_at_work_at_the_same_time(run, monkeypatch):
    work, number, met = folders._work, itertools.count(), threading.Barrier(3)

    def waits(*arguments):
        if next(number) < 3:
            met.wait(timeout=10)  # an error if the other two do not come
        return work(*arguments)

    monkeypatch.setattr(folders, "_work", waits)
    assert run(workers=3).protected == 4


@pytest.mark.parametrize("norm", ["2", 1])
def test_other_norms(run, tmp_path, source, norm):
    result = run(epsilon=0.05, norm=norm)
    assert rows(result.report)["a.png"]["norm"] == str(norm)
    for name, row in rows(result.report).items():
        clean, protected = (photos.read_picture(path).pixels for path in (source / name, tmp_path / "out" / row["output"]))
        assert budget.perturbation_norm(clean, protected, norm) <= 0.05 + 1e-6


def test_no_budget_no_change(run, tmp_path):
    report = rows(run(epsilon=0).report)
    assert {(row["l_inf"], row["psnr"]) for row in report.values()} == {("0", "inf")} and math.isinf(float("inf"))


# ---- going on, and never overwriting


def test_a_second_call_keeps_what_is_done_and_adds_what_is_new(run, source, tmp_path):
    run()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    Image.new("L", (8, 8), 100).save(source / "new.png")
    result = run()
    assert (result.protected, result.kept, result.failed) == (1, 4, {})
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(rows(result.report)) == 5
    (tmp_path / "out" / "new.png").unlink()
    assert run().protected == 1


@pytest.mark.parametrize("change", ["epsilon", "source", "output", "report", "pattern_size", "generator"])
def test_what_is_not_the_wanted_result_is_refused_and_overwritten_by_force(run, source, tmp_path, change):
    run()
    options = {"epsilon": {"epsilon": 0.2}, "pattern_size": {"pattern_size": 4},
               "generator": {"generator": PerturbationGenerator(3, (4, 4))}}.get(change, {})
    if change == "source":
        Image.new("L", (30, 20), 9).save(source / "a.png")
    if change == "output":
        (tmp_path / "out" / "a.png").write_bytes(b"mine")
    if change == "report":
        (tmp_path / "out-report.csv").unlink()
    before = files(tmp_path / "out")
    result = run(**options)
    changed = 1 if change in ("source", "output") else 4
    assert len(result.failed) == changed and result.kept == 4 - changed
    assert all("exists and is not the result of this file and these settings" in why for why in result.failed.values())
    assert files(tmp_path / "out") == before
    assert rows(result.report)["a.png"]["status"] == "failed"
    forced = run(**options, force=True)
    assert (forced.failed, forced.protected, forced.kept) == ({}, changed, 4 - changed)
    assert files(tmp_path / "out") != before or change == "report"


def test_a_refused_call_leaves_what_is_known(run, source, tmp_path):
    frames = [Image.new("L", (6, 6), value) for value in (0, 90)]
    frames[0].save(source / "e.gif", save_all=True, append_images=frames[1:])
    first = run()
    known = rows(first.report)
    assert len(run(epsilon=0.2).failed) == 5
    with open(first.report, newline="", encoding="utf-8") as file:
        both = list(csv.DictReader(file))
    assert [row["status"] for row in both] == ["protected", "failed"] * 5 and [row for row in both[::2]] == list(known.values())
    again = run()
    assert (again.protected, again.kept, again.failed, again.notes) == (0, 5, {}, {"e.gif": "first of 2 frames"})
    assert rows(again.report) == known
    assert len(again.report.read_text().splitlines()) == 6  # the failures are forgotten once they are none


def test_what_was_done_is_known_again_when_a_clash_or_a_link_is_gone(run, source, tmp_path):
    run()
    Image.new("L", (9, 9)).save(source / "b.PNG")
    (source / "a.png").rename(tmp_path / "a.png")
    (source / "a.png").symlink_to(tmp_path / "a.png")
    assert set(run().failed) == {"a.png", "b.jpg", "b.PNG"}
    (source / "b.PNG").unlink()
    (source / "a.png").unlink()
    (tmp_path / "a.png").rename(source / "a.png")
    assert run().kept == 4
    (source / "sub").rename(tmp_path / "sub")
    (source / "sub").symlink_to(tmp_path / "sub")  # a folder, with all that is in it
    assert "sub" in run().failed
    (source / "sub").unlink()
    (tmp_path / "sub").rename(source / "sub")
    assert run().kept == 4


def test_an_interrupted_run_goes_on(run, tmp_path, monkeypatch):
    whole = run(target=tmp_path / "whole")
    publish, done = folders._publish, []

    def stops_at_third(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return publish(*arguments)

    monkeypatch.setattr(folders, "_publish", stops_at_third)
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(files(tmp_path / "out")) == 2  # complete files only, nothing temporary
    with open(tmp_path / "out-report.csv", "a") as file:
        file.write('sub/c.bmp,protected,"torn')  # as a crash may leave it
    monkeypatch.setattr(folders, "_publish", publish)
    result = run()
    assert (result.protected, result.kept, result.failed) == (2, 2, {})
    assert files(tmp_path / "out") == files(tmp_path / "whole") and rows(result.report) == rows(whole.report)


def test_what_a_killed_run_leaves_is_removed_but_not_from_under_a_live_one(run, tmp_path):
    out = tmp_path / "out"
    program = ("import sys, time; from pathlib import Path; from pplkit import locks\n"
               "with locks.scratch(Path(sys.argv[1])) as scratch:\n"
               "    (scratch / '3.png').write_bytes(b'half'); print('ready', flush=True); time.sleep(60)")
    out.mkdir()
    live = subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True)
    try:
        assert live.stdout.readline() == "ready\n"
        scratch, = out.glob(".pplkit-*")
        assert run().protected == 4 and (scratch / "3.png").read_bytes() == b"half"
    finally:
        live.send_signal(signal.SIGKILL)
        live.communicate(timeout=60)
    assert scratch.is_dir()
    assert run().kept == 4 and not scratch.exists()
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_only_folders_of_our_own_kind_are_removed(run, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    for folder in (out / ".pplkit-theirs", out / ".pplkit-deep" / "0.png", out / ".pplkit-empty", out / ".other", elsewhere):
        folder.mkdir(parents=True)
    (out / ".pplkit-theirs" / "notes.txt").write_text("x")
    (out / ".pplkit-file").write_text("x")
    (elsewhere / "0.png").write_bytes(b"precious")
    (out / ".pplkit-link").symlink_to(elsewhere)
    run()
    assert {path.name for path in out.iterdir() if path.name.startswith(".")} == {
        ".pplkit-theirs", ".pplkit-deep", ".other", ".pplkit-file", ".pplkit-link"}
    assert (elsewhere / "0.png").read_bytes() == b"precious"


def test_without_locks_nothing_is_removed(run, tmp_path, monkeypatch):
    (tmp_path / "out" / ".pplkit-left").mkdir(parents=True)
    monkeypatch.setattr(locks, "fcntl", None)
    assert run().protected == 4
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == [".pplkit-left"]


def test_a_crash_before_the_picture_is_in_place_is_made_good(run, tmp_path):
    """The row is written first: a row without its picture counts for nothing."""
    run()
    (tmp_path / "out" / "b.png").unlink()
    assert run().protected == 1 and run().kept == 4


def test_a_file_that_appears_meanwhile_is_not_overwritten(run, tmp_path, monkeypatch):
    move = folders._move_without_overwriting

    def somebody_is_faster(temporary, place):
        if place.name == "b.png":
            place.write_bytes(b"theirs")
        move(temporary, place)

    monkeypatch.setattr(folders, "_move_without_overwriting", somebody_is_faster)
    result = run()
    assert list(result.failed) == ["b.jpg"] and (tmp_path / "out" / "b.png").read_bytes() == b"theirs"


def test_without_hard_links_nothing_is_overwritten_either(run, tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(folders.os, "link", no_links)
    assert run().protected == 4
    (tmp_path / "t").write_bytes(b"new")
    with pytest.raises(FileExistsError):
        folders._move_without_overwriting(tmp_path / "t", tmp_path / "out" / "a.png")


# ---- what cannot be protected


def test_unreadable_files_are_listed_and_the_others_done(run, source, tmp_path):
    (source / "notes.txt").write_text("no picture")
    (source / "sub" / "cut.jpg").write_bytes((source / "b.jpg").read_bytes()[:200])
    (source / ".hidden").write_text("x")
    (source / "Thumbs.db").write_text("x")
    result = run(workers=2)
    assert list(result.failed) == ["notes.txt", "sub/cut.jpg"] and result.protected == 4
    assert result.failed["notes.txt"] == "cannot identify image file: it is in no format that is read here"
    assert {row["status"] for name, row in rows(result.report).items() if name in result.failed} == {"failed"}
    assert run().kept == 4
    (source / "notes.txt").unlink()
    assert "notes.txt" not in rows(run().report)


def test_links_and_special_files_are_not_followed(run, source, tmp_path):
    outside = tmp_path / "private"
    outside.mkdir()
    Image.new("L", (9, 9)).save(outside / "secret.png")
    (source / "link.png").symlink_to(outside / "secret.png")
    (source / "linked").symlink_to(outside)
    (source / "loop").symlink_to(source)
    os.mkfifo(source / "pipe.png")
    result = run()
    assert set(result.failed) == {"link.png", "linked", "loop", "pipe.png"} and result.protected == 4
    assert "is a link" in result.failed["linked"] and "no regular file" in result.failed["pipe.png"]
    assert list(files(tmp_path / "out")) == ["a.png", "b.png", "sub/c.png", "sub/deep/d.png"]


def test_a_linked_output_folder_cannot_lead_elsewhere(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(elsewhere)
    result = run(force=True)
    assert set(result.failed) == {"sub/c.bmp", "sub/deep/d.png"} and "leads out of" in result.failed["sub/c.bmp"]
    assert list(elsewhere.iterdir()) == []
    (tmp_path / "out" / "a.png").unlink()
    target = tmp_path / "target.txt"
    target.write_text("precious")
    (tmp_path / "out" / "a.png").symlink_to(target)
    assert "a.png" in run().failed
    assert "a.png" not in run(force=True).failed  # the link is replaced, not what it points to
    assert target.read_text() == "precious" and not (tmp_path / "out" / "a.png").is_symlink()


def test_two_pictures_with_one_output_are_both_refused(run, source):
    Image.new("L", (9, 9)).save(source / "b.PNG")
    result = run()
    assert set(result.failed) == {"b.jpg", "b.PNG"} and "share its output with b.PNG" in result.failed["b.jpg"]


def test_what_lies_beside_a_picture_does_not_keep_it_from_being_protected(run, source):
    (source / "b.xmp").write_text("<x:xmpmeta/>")
    (source / "B.mov").write_bytes(b"moving")
    result = run()
    assert result.protected == 4 and set(result.failed) == {"b.xmp", "B.mov"}
    assert result.failed["b.xmp"] == "would share its output with B.mov, b.jpg: rename one of them"


@pytest.mark.skipif(locks.fcntl is None, reason="the system has no locks")
def test_two_runs_do_not_write_to_one_folder_at_the_same_time(run, tmp_path):
    (tmp_path / "out").mkdir()
    with locks.alone(tmp_path / "out"), pytest.raises(BlockingIOError, match="another call is writing to .*out: wait"):
        run()
    assert list((tmp_path / "out").iterdir()) == []
    assert run().protected == 4


def test_too_large_pictures_and_animations(run, source):
    frames = [Image.new("L", (6, 6), value) for value in (0, 90, 200)]
    frames[0].save(source / "e.gif", save_all=True, append_images=frames[1:])
    result = run(max_pixels=200)
    assert list(result.failed) == ["a.png"] and "600" not in result.notes
    assert result.notes == {"e.gif": "first of 3 frames"}


def test_a_generator_that_diverged_fails_every_picture(run, tmp_path):
    broken = PerturbationGenerator(1, (4, 4))
    with torch.no_grad():
        broken.output.bias.fill_(math.nan)
    result = run(generator=broken)
    assert len(result.failed) == 4 and "NaN" in result.failed["a.png"] and files(tmp_path / "out") == {}


# ---- places and settings


def test_folders_inside_one_another_and_odd_places_are_refused(run, source, tmp_path):
    for target in (source, source / "out", tmp_path):
        with pytest.raises(ValueError, match="inside one another"):
            run(target=target)
    (tmp_path / "alias").symlink_to(source)
    with pytest.raises(ValueError, match="inside one another"):
        run(target=tmp_path / "alias" / "out")
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        run(source=tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        run(target=tmp_path / "file")
    with pytest.raises(ValueError, match="among the pictures"):
        run(report=source / "report.csv")
    with pytest.raises(ValueError, match="no report of this command"):
        run(report=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x" and not (tmp_path / "out").exists()
    for wrong, message in (({"workers": 0}, "workers"), ({"epsilon": 2}, "epsilon"), ({"norm": "3"}, "norm")):
        with pytest.raises(ValueError, match=message):
            run(**wrong)
    assert not (tmp_path / "out").exists()


def test_files_are_listed_in_order_with_odd_names(tmp_path, run, source):
    for name in ("=1+1.png", "two\nlines.png", 'quote".png', "Übung.png", "blank name.png"):
        Image.new("L", (8, 8), 50).save(source / name)
    names, refused = list_files(source)
    assert names == sorted(names) and refused == {} and "two\nlines.png" in names
    assert run().protected == 9 and run().kept == 9
    assert set(rows(tmp_path / "out-report.csv")) == set(names)
    assert tuple(next(iter(rows(tmp_path / "out-report.csv").values()))) == FIELDS
