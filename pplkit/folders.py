"""A folder of pictures protected file by file: resumable, never overwriting, with a report of every file.

What a run has done is known from its report (CSV): a row is written before its picture appears, and names the sha256 of both
files and all settings. A later run keeps a picture only if all of that still holds. Where it fails on a file that an earlier
run has done, the report has both rows.
"""

import csv
import hashlib
import io
import math
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pplkit import budget, locks, photos
from pplkit.decoding import suffixes
from pplkit.generator import PerturbationGenerator
from pplkit.photos import Picture
from pplkit.preconditions import check_whole
from pplkit.progress import progress_bar
from pplkit.sources import DESKTOP_FILES
from pplkit.storage import can_write, write_bytes

FIELDS = ("file", "status", "output", "width", "height", "channels", "alpha", "l_inf", "psnr", "ssim", "epsilon", "norm",
          "pattern_size", "generator", "source_sha256", "output_sha256", "note")
SETTINGS = ("epsilon", "norm", "pattern_size", "generator")
Row = dict[str, str]


@dataclass(frozen=True)
class FolderResult:
    """What `protect_folder` did.

    Attributes:
        protected: number of pictures protected now.
        kept: number found done by an earlier run.
        failed: file (relative to the input folder) -> why it has no protected copy.
        notes: file -> what its protected copy lacks (frames of an animation, bits, a colour profile).
        report: the CSV file.
    """

    protected: int
    kept: int
    failed: dict[str, str]
    notes: dict[str, str]
    report: Path


@dataclass(frozen=True)
class _Run:
    """Everything a worker needs; read only."""

    source: Path
    target: Path
    scratch: Path
    generator: PerturbationGenerator
    epsilon: float
    norm: str
    pattern_size: int | None
    max_pixels: int
    force: bool
    known: dict[str, Row]
    settings: Row = field(init=False)

    def __post_init__(self) -> None:
        values = (f"{self.epsilon:.9g}", self.norm, str(self.pattern_size or ""), fingerprint(self.generator))
        object.__setattr__(self, "settings", dict(zip(SETTINGS, values, strict=True)))


def protect_folder(source: str | Path, target: str | Path, generator: PerturbationGenerator, epsilon: float,
                   norm: str | float = "inf", *, pattern_size: int | None = None, max_pixels: int = photos.MAX_PIXELS,
                   workers: int = 1, force: bool = False, report: str | Path | None = None,
                   progress: bool = True) -> FolderResult:
    """Protect every picture below `source`; `a/b.jpg` becomes `a/b.png` below `target`.

    Hidden files are passed over, links are not followed (each is reported as failed). Interrupted, or called again after
    pictures were added, a second call with the same arguments does only what is missing.

    Args:
        source: folder of pictures, with subfolders.
        target: folder to write to; made if it is not there. Neither folder may lie inside the other.
        generator: its device is used.
        epsilon, norm: the budget, see `pplkit.budget`.
        pattern_size: see `photos.picture_pattern`.
        max_pixels: larger pictures are refused.
        workers: pictures in work at the same time (threads).
        force: overwrite files that an earlier run did not make in just this way.
        report: CSV file; default: `target` with "-report.csv" behind its name, outside the folder that gets published.
        progress: show a progress bar.

    Raises:
        FileNotFoundError, ValueError: no such folder, folders inside one another, bad setting, a report that is not ours.
        BlockingIOError: another call is writing to `target` (where the system has locks).
    """
    source, target, report = _check_places(source, target, report, force)
    check_whole(workers, "workers")
    budget.perturbation(torch.zeros(1, 1, 1, 1), epsilon, norm)  # refuses a bad budget before anything is written
    target.mkdir(parents=True, exist_ok=True)
    with locks.alone(target):
        return _protect(source, target, generator, epsilon, norm, pattern_size, max_pixels, workers, force, report, progress)


def _protect(source: Path, target: Path, generator: PerturbationGenerator, epsilon: float, norm: str | float,
             pattern_size: int | None, max_pixels: int, workers: int, force: bool, report: Path,
             progress: bool) -> FolderResult:
    """`protect_folder` after its checks."""
    known = _read_report(report)
    names, failed = list_files(source)
    outputs = {name: Path(name).with_suffix(".png").as_posix() for name in names}
    failed |= _clashes(outputs)
    rows = {name: row for name, row in known.items()
            if name in outputs or name in failed or any(str(folder) in failed for folder in Path(name).parents)
            or (row["output"] not in outputs.values() and (target / row["output"]).is_file())}  # published, the original gone
    counts = {"protected": 0, "kept": 0}
    with locks.scratch(target) as scratch:
        generator = generator.eval().to(memory_format=torch.channels_last)  # a third faster
        run = _Run(source, target, scratch, generator, float(epsilon),
                   "inf" if norm in ("inf", math.inf) else str(norm), pattern_size, max_pixels, force, known)
        _write_report(report, rows.values())
        asked = [name for name in names if name not in failed]
        with open(report, "a", newline="", encoding="utf-8", errors="surrogateescape") as journal:
            bar = progress_bar(total=len(asked), description="protect", unit="picture", show=progress)
            with bar:
                for name, (temporary, row) in _in_parallel(run, asked, outputs, workers):
                    if temporary is not None:
                        row = _publish(run, temporary, row, journal)
                    if row["status"] == "failed":
                        failed[name] = row["note"]
                    else:
                        rows[name] = row
                        counts["protected" if temporary else "kept"] += 1
                    bar.update()
    refused = [_row(name, outputs.get(name, ""), status="failed", note=why) for name, why in failed.items()]
    _write_report(report, sorted([*rows.values(), *refused], key=lambda row: row["file"]))
    notes = {name: row["note"] for name, row in sorted(rows.items()) if name in outputs and name not in failed and row["note"]}
    return FolderResult(**counts, failed=dict(sorted(failed.items())), notes=notes, report=report)


def list_files(source: Path) -> tuple[list[str], dict[str, str]]:
    """Files below `source` as sorted relative paths with "/", and what is there but cannot be taken, with the reason."""
    names, refused = [], {}

    def stop(error: OSError) -> None:
        refused[Path(error.filename).relative_to(source).as_posix()] = f"cannot be listed: {error.strerror}"

    for folder, folders, files in os.walk(source, onerror=stop):
        for name in (*folders, *files):
            path = Path(folder, name)
            relative = path.relative_to(source).as_posix()
            if name.startswith(".") or name.lower() in DESKTOP_FILES:
                continue
            if path.is_symlink():
                refused[relative] = "is a link, which is not followed: put the file itself here"
            elif name in files and path.is_file():
                names.append(relative)
            elif name in files:
                refused[relative] = "is no regular file"
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(names), refused


def fingerprint(generator: PerturbationGenerator) -> str:
    """First 16 hexadecimal digits of the sha256 over a generator's form and weights."""
    form = (generator.channels, generator.widths) + (("full",) if generator.full_resolution else ())
    digest = hashlib.sha256(repr(form).encode())
    for name, tensor in sorted(generator.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def compare_pictures(clean: Picture, protected: Picture) -> dict[str, float | None]:
    """{"l_inf": max |z − x| in pixel units, "psnr": in decibels, "ssim": or None below 7 × 7 pixels}."""
    largest, total = 0, 0.0
    height = clean.pixels.shape[2]
    for top in range(0, height, photos.TILE):
        before, after = (p.pixels[..., top:top + photos.TILE, :].to(torch.int32) for p in (clean, protected))
        change = after - before
        largest = max(largest, int(change.abs().max()))
        total += float(change.square().sum())
    mse = total / clean.pixels.numel()
    return {"l_inf": largest / 255, "psnr": 10 * math.log10(255**2 / mse) if mse else math.inf,
            "ssim": photos.picture_ssim(clean.pixels, protected.pixels)}


def _check_places(source: str | Path, target: str | Path, report: str | Path | None,
                  force: bool) -> tuple[Path, Path, Path]:
    source, target = Path(source).expanduser().resolve(), Path(target).expanduser().resolve()
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}: the first argument is the folder of pictures to protect")
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise ValueError(f"{source} and {target} lie inside one another: write the protected pictures to a folder of their own")
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file: the second argument is a folder to write to")
    report = Path(report).expanduser().resolve() if report is not None else target.with_name(f"{target.name}-report.csv")
    if report.is_relative_to(source):
        raise ValueError(f"the report {report} would lie among the pictures to protect: give another place")
    if report.is_dir() or report == target:
        raise ValueError(f"the report {report} is a folder: give a file name")
    if not can_write(report):
        raise PermissionError(f"cannot write the report {report}: give another place")
    if report.exists() and not force:
        with open(report, newline="", encoding="utf-8", errors="surrogateescape") as file:
            if file.readline().strip() not in ("", ",".join(FIELDS)):
                raise ValueError(f"{report} exists and is no report of this command: give another place, or force")
    return source, target, report


def _clashes(outputs: dict[str, str]) -> dict[str, str]:
    """Files whose outputs would be one file, also on a disk that does not tell capital letters apart.

    Beside one picture, as its suffix says, only the others are refused: cameras put files like IMG_1.xmp beside IMG_1.jpg.
    """
    same: dict[str, list[str]] = {}
    for name, output in outputs.items():
        same.setdefault(output.casefold(), []).append(name)
    accepted, refused = suffixes(), {}
    for names in same.values():
        pictures = [name for name in names if Path(name).suffix.lower() in accepted]
        for name in names:
            if len(names) > 1 and [name] != pictures:
                others = ", ".join(sorted(set(names) - {name}))
                refused[name] = f"would share its output with {others}: rename one of them"
    return refused


def _in_parallel(run: _Run, names: list[str], outputs: dict[str, str],
                 workers: int) -> Iterator[tuple[str, tuple[Path | None, Row]]]:
    """Results in the order they come, never more than two pictures per worker under way."""
    threads = torch.get_num_threads()
    queue, pending = iter(enumerate(names)), {}
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(max(1, threads // workers),))
    try:
        while True:
            while len(pending) < 2 * workers and (entry := next(queue, None)) is not None:
                number, name = entry
                pending[pool.submit(_work, run, name, outputs[name], run.scratch / f"{number}.png")] = name
            if not pending:
                return
            finished: Iterable[Future] = wait(pending, return_when=FIRST_COMPLETED).done
            for future in finished:
                yield pending.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _work(run: _Run, name: str, output: str, temporary: Path) -> tuple[Path | None, Row]:
    """Protect one file into `temporary`; (None, row) if there is nothing to publish: done before, or failed."""
    try:
        with open(os.open(run.source / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as file:
            source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            place = run.target / output
            if os.path.lexists(place):
                row = run.known.get(name)
                if row is not None and _is_done(run, row, source_sha256, place):
                    return None, row
                if not run.force:
                    raise FileExistsError(f"{output} exists and is not the result of this file and these settings: "
                                          "--force overwrites it")
            file.seek(0)
            clean = photos.read_picture(file, run.max_pixels)
        protected = photos.protect_picture(clean, run.generator, run.epsilon, run.norm, pattern_size=run.pattern_size)
        photos.write_picture(protected, temporary)
        measured = compare_pictures(clean, protected)
        if run.norm == "inf" and measured["l_inf"] > run.epsilon + 1e-6:
            raise ArithmeticError(f"the change {measured['l_inf']} exceeds epsilon {run.epsilon}")
        with open(temporary, "rb") as file:
            output_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
    except Exception as error:  # one bad file must not stop the others; the message goes to the user and the report
        temporary.unlink(missing_ok=True)
        return None, _row(name, output, status="failed", note=str(error) or type(error).__name__)
    channels, height, width = clean.pixels.shape[1:]
    numbers = {key: "" if value is None else f"{value:.6g}" for key, value in measured.items()}
    return temporary, _row(name, output, status="protected", width=width, height=height, channels=channels,
                           alpha="yes" if clean.alpha is not None else "no", **numbers, **run.settings,
                           source_sha256=source_sha256, output_sha256=output_sha256, note=clean.note)


def _is_done(run: _Run, row: Row, source_sha256: str, place: Path) -> bool:
    if row["source_sha256"] != source_sha256 or any(row[key] != value for key, value in run.settings.items()):
        return False
    if place.is_symlink() or not place.is_file():
        return False
    with open(place, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == row["output_sha256"]


def _publish(run: _Run, temporary: Path, row: Row, journal: io.TextIOBase) -> Row:
    """Note the row, then move the picture to its place in one step; the row comes back, failed if that was not possible."""
    place = run.target / row["output"]
    try:
        there = next(folder for folder in place.parents if folder.exists())
        if not there.resolve().is_relative_to(run.target):
            raise PermissionError(f"{place.parent} is a link that leads out of {run.target}")
        place.parent.mkdir(parents=True, exist_ok=True)
        journal.write(_lines([row]))
        journal.flush()
        if run.force:
            os.replace(temporary, place)
        else:
            _move_without_overwriting(temporary, place)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        return _row(row["file"], row["output"], status="failed", note=str(error))
    return row


def _move_without_overwriting(temporary: Path, place: Path) -> None:
    try:
        os.link(temporary, place)  # fails if there is something, even if it came this moment
    except FileExistsError as error:
        raise FileExistsError(f"{place} exists: --force overwrites it") from error
    except OSError:  # a file system without hard links: reserve the name, then replace what was reserved
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, place)
    else:
        temporary.unlink()


def _row(name: str, output: str, **values: object) -> Row:
    return dict.fromkeys(FIELDS, "") | {"file": name, "output": output} | {key: str(value) for key, value in values.items()}


def _lines(rows: Iterable[Row]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, FIELDS, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write_report(path: Path, rows: Iterable[Row]) -> None:
    write_bytes(path, (",".join(FIELDS) + "\n" + _lines(rows)).encode("utf-8", "surrogateescape"))


def _read_report(path: Path) -> dict[str, Row]:
    """Finished rows by file, the last one of each; a line that was cut off is left out."""
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [row for row in csv.DictReader(file, strict=False) if set(row) == set(FIELDS) and None not in row.values()]
    return {row["file"]: row for row in rows if row["status"] == "protected" and len(row["output_sha256"]) == 64}
