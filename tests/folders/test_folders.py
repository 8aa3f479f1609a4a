"""pplkit.folders: every picture of a folder, once, in its place, whatever else lies there."""

import itertools
import math
import os
import threading

import pytest
import torch
from folder_content import files, rows
from PIL import Image

from pplkit import budget, folders, locks, photos, quality
from pplkit.folders import FIELDS, list_files
from pplkit.generator import PerturbationGenerator

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
