"""What the experiments share: arguments, finished steps kept on disk, victims with their measured settings."""

import argparse
import hashlib
import io
import json
import math
import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from pplkit import device as devices
from pplkit.backbones import parse as parse_backbone
from pplkit.budget import format_epsilon
from pplkit.data import ImageSet, RetrievalSplit
from pplkit.hashing import ADSH, DSDH, Victim
from pplkit.retrieval import MeanAveragePrecision
from pplkit.storage import provenance, read_metadata, save_json, write_bytes

SAME_RESULT = ("cache", "workers")  # options of `pplkit.data.load` that change where pixels lie, not which
Measured = dict[str, dict[str, dict[str, float]]]  # codes -> scenario -> {"mAP", "low", "high", "worst", "best"}


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments every experiment has."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    arguments.add_argument("--dataset", default="fashion-mnist", help="name for pplkit.data.load")
    arguments.add_argument("--root", help="folder of the data set's files (default: the places pplkit.data.load looks at)")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0], help="one complete run per seed")
    arguments.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments.add_argument("--work", type=Path, default=Path("build/experiments"),
                           help="where finished steps are kept; a second call with the same folder continues")
    arguments.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True,
                           help="take finished steps from --work; --no-resume starts anew, in a new folder inside it")
    arguments.add_argument("--out", type=Path, default=Path("data/results"), help="folder of the result file")
    arguments.add_argument("--fast", action="store_true", help="a few steps only, to try the machinery; results mean nothing")
    return arguments


def parse(options: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The arguments of `parser`; with `--no-resume`, `work` is a new folder (printed), and what was there is kept; `--fast` has
    a folder of its own inside it.
    """
    asked = options.parse_args(arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        options.error("an experiment runs in one process (several would write the same files); "
                      "`accelerate launch -m pplkit.cli train` trains a generator in several")
    provenance()  # the commit of now: others may follow while this runs
    if not asked.resume:
        asked.work.mkdir(parents=True, exist_ok=True)
        asked.work = Path(tempfile.mkdtemp(prefix=time.strftime("anew-%Y%m%d-%H%M%S-"), dir=asked.work))
        print(f"starting anew; to continue this run: --work {asked.work}")
    if asked.fast:
        asked.work = asked.work / "fast"
    return asked


def keep_stored(options: argparse.ArgumentParser, path: Path, seeds: Sequence[int], load: dict[str, object] | None = None,
                budget: float | None = None, parts: Sequence[str] = ("cells",), same: dict[str, object] | None = None,
                generators: Path | None = None, **columns: Sequence[object]) -> None:
    """End with an error (exit status 2) if a result file is there that this run would replace by less, or by another's.

    Args:
        options: the experiment's parser.
        path: result file as the experiments write it.
        seeds: of this run.
        load: options of `pplkit.data.load` of this run.
        budget: ε of this run, None if the file's name has it, or the file has several.
        parts: entries of the file that hold cells.
        same: other entries of the file that this run must have, too; entries that an older file has not are not compared.
        generators: folder that this run takes its generators from, None if it plays; the file's may not come from elsewhere.
        columns: name of an entry of the cells -> its values in this run.
    """
    if not path.exists():
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    remedy = "or give another folder with --out, or move the file away"
    before, now = ({name: value for name, value in (given or {}).items() if name not in SAME_RESULT}
                   for given in (stored.get("load"), json.loads(json.dumps(load))))
    if before != now:
        options.error(f"{path} was made with --load {before}, this run has {now}: take the same, {remedy}")
    if budget is not None and f"epsilon {format_epsilon(budget)}" not in stored["what"]:
        options.error(f"{path} has another budget ({stored['what']}), this run has {format_epsilon(budget)}: take the same, "
                      f"{remedy}")
    for name, value in json.loads(json.dumps(same or {})).items():
        if name in stored and given(stored[name]) != given(value):
            options.error(f"{path} was made with {name} {stored[name]}, this run has {value}: take the same, {remedy}")
    if any((digest is None) is not (generators is None) for digest in stored.get("taken", {}).values()):
        options.error(f"{path} was made {'with' if generators is None else 'without'} --generators: call this the same "
                      f"way, {remedy}")
    cells = [cell for part in parts for cell in stored[part]]
    found = {"seeds": ({int(seed) for cell in cells for seed in cell.get("seeds", ())}, seeds)}
    found |= {name: ({cell[name] for cell in cells}, values) for name, values in columns.items()}
    for name, (there, here) in found.items():
        if lost := sorted(there - set(here), key=str):
            options.error(f"{path} has {name} {lost} that this run has not: name them, too, {remedy}")


def add_colour(arguments: argparse.ArgumentParser, backbone: str | None = None, of: str = "surrogates and victims") -> None:
    """Arguments of experiments that also run on colour images, whole or at a reduced size.

    `backbone`: what the help says of the default network if it is not always two_conv; without `--backbone` there is no entry
    of that name then. `of`: whose network it is; the surrogates of the game `several` have their own, but it names the game's
    folder there, too.
    """
    default = {"default": argparse.SUPPRESS} if backbone else {"default": "two_conv"}
    arguments.add_argument("--backbone", **default, help=f"network of {of}, a name for pplkit.backbones"
                           + (f" (default: {backbone})" if backbone else ""))
    arguments.add_argument("--load", type=setting, nargs="+", default=[], metavar="NAME=VALUE",
                           help="options of pplkit.data.load, as database=10000 query=500 train=4000 for a smaller cifar10")


def setting(text: str) -> tuple[str, object]:
    """"train=4000" -> ("train", 4000), "code_lengths=8,8" -> ("code_lengths", (8, 8)), "classes=n02,n03" -> ("classes", ("n02",
    "n03")), "scaled=False" -> ("scaled", False); other text stays text.
    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE")
    parts = [_number(part) for part in value.rstrip(",").split(",")]
    if not any(isinstance(part, str) for part in parts):
        return name, tuple(parts) if "," in value else parts[0]
    if "," in value and (name == "backbone" or all(str(part).isidentifier() for part in parts)):
        return name, tuple(parts)
    return name, {"True": True, "False": False, "None": None}.get(value, value)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text  # norm=inf is a name
    return text


def slug(dataset: str) -> str:
    """A data set's name as part of a file name: "folder:my/photos" -> "photos"."""
    return Path(dataset.removeprefix("folder:")).name


def networks(backbones: str | Iterable[str]) -> str:
    """What a result says of its networks, beside the paper's: "two_conv from random weights", or of several "two_conv, dense
    from random weights".
    """
    names = {name: name.partition(":") for name in ([backbones] if isinstance(backbones, str) else backbones)}
    pretrained = [f"{network} from the weights {Path(weights).name}" for network, _, weights in names.values() if weights]
    random = ", ".join(network for network, _, weights in names.values() if not weights)
    return ", ".join(([f"{random} from random weights"] if random else []) + pretrained)


def place(dataset: str, backbone: str = "two_conv") -> str:
    """Part of a file name: the data set, and the network if it is not the usual one."""
    return slug(dataset) + ("" if backbone == "two_conv" else f"-{label(backbone)}")


def home(dataset: str, backbone: str = "two_conv", load: dict[str, object] | None = None) -> str:
    """Part of a work folder's name: `place`, and a digest of those options `load` of `pplkit.data.load` that choose images."""
    which = sorted((name, value) for name, value in (load or {}).items() if name not in SAME_RESULT)
    return place(dataset, backbone) + (f"-load{hashlib.sha256(repr(which).encode()).hexdigest()[:6]}" if which else "")


def label(backbone: str) -> str:
    """A backbone's name as part of a file name: "resnet18:x/imagenet13-1a2b.safetensors" -> "resnet18-imagenet13-1a2b"."""
    network, _, weights = backbone.partition(":")
    return network + (f"-{Path(weights).name.removesuffix('.safetensors')}" if weights else "")


def check_pretraining(backbones: Iterable[str], split: RetrievalSplit,
                      remedy: str = "pretrain with the same --seeds and --load") -> None:
    """ValueError if one of `backbones` has weights that `pplkit.experiments.pretrain` trained on this data set with other
    queries left out, or on other files: some of the queries of `split` would be images that it knows the labels of. `remedy`:
    what to do about other queries.
    """
    for backbone in dict.fromkeys(backbones):
        weights = parse_backbone(backbone)[2]
        if not weights or not Path(weights).is_file():
            continue
        trained = json.loads(read_metadata(weights).get("how", "{}")).get("split")
        if trained and trained["dataset"] == split.name:
            check_queries(weights, trained, split, remedy)
            if trained["source"].get("files") != split.manifest["source"].get("files"):
                raise ValueError(f"{weights} was trained on other files of {split.name}, perhaps with some of these queries: "
                                 "pretrain again")


def check_queries(what: str, trained: dict, split: RetrievalSplit, remedy: str) -> None:
    """ValueError if `what` was trained with other queries left out than those of `split`; `trained`: manifest of its split."""
    if trained["sha256"]["query"] != split.manifest["sha256"]["query"]:
        raise ValueError(f"{what} was trained on {split.name} with other queries left out (seed {trained['seed']}, "
                         f"{trained['counts']['query']} queries), so it may know these (seed {split.manifest['seed']}, "
                         f"{len(split.query)}): {remedy}")


def command(main: Callable[[], None]) -> None:
    """Run an experiment from the command line: what a user can mend is said in a line, without a traceback (exit status 2)."""
    try:
        main()
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if not isinstance(error, (ValueError, OSError)) and not devices.is_out_of_memory(error):
            raise
        print(f"{Path(sys.argv[0]).stem}: {str(error) or 'out of memory'}", file=sys.stderr)
        sys.exit(2)


def once(path: Path, compute: Callable[[], dict], key: dict, device: str = "auto") -> dict:
    """The JSON at `path` if it was computed for `key` (all settings), else compute on `device`, store atomically, return.

    Raises:
        ValueError: `path` was computed with other settings.
    """
    key = json.loads(json.dumps(key))
    if path.exists():
        stored = json.loads(path.read_text())
        if given(stored["key"]) != given(key):
            different = sorted(k for k in key.keys() | stored["key"].keys()
                               if given(key.get(k)) != given(stored["key"].get(k)))
            raise ValueError(f"{path} was computed with other settings ({', '.join(different)} differ): "
                             "give another --work folder, or remove the file")
        return stored
    start = time.perf_counter()
    result = {"key": key, **compute(), "seconds": round(time.perf_counter() - start, 1), "run": provenance(device)}
    save_json(path, result)
    return result


def given(settings: object) -> object:
    """Settings, and settings within them or in lists, without the device and without those that are None: what was added since
    with None as its default does not make an earlier step another one, and a run may go on on another device.
    """
    if isinstance(settings, dict):
        return {name: given(value) for name, value in settings.items() if value is not None and name != "device"}
    return [given(value) for value in settings] if isinstance(settings, list) else settings


def exact(value: float) -> str:
    """The shortest text that reads back as this number: "0.3", "1"."""
    return repr(float(value)).removesuffix(".0")


def over_seeds(found: dict[int, dict[str, float]]) -> dict:
    """seed -> a scenario of `summary`; their mean mAP, the envelope of the seeds' intervals, and each seed's mAP."""
    return {"mAP": round(sum(value["mAP"] for value in found.values()) / len(found), 4),
            "low": min(value["low"] for value in found.values()), "high": max(value["high"] for value in found.values()),
            "seeds": {str(seed): value["mAP"] for seed, value in found.items()}}


def how_run(cells: dict[str, dict]) -> dict:
    """Seconds in all of the steps that `once` kept, and the commits, versions, devices, dtypes and processors they had."""
    names = {"commits": "commit", **{name: name for name in ("torch", "device", "dtype", "cpu", "cores", "threads")}}
    return {"seconds": round(sum(cell["seconds"] for cell in cells.values()), 1),
            **{name: sorted({cell["run"].get(entry, "not recorded") for cell in cells.values()}, key=str)
               for name, entry in names.items()}}


def save_figure(path: Path, figure: Figure, dpi: int = 120) -> None:
    """Write a figure as PNG, atomically."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi)
    write_bytes(path, png.getvalue())


def entitle(figure: Figure, what: str) -> None:
    """Write above a figure what it shows, in as many lines as that takes."""
    figure.suptitle(textwrap.fill(what, 110), fontsize=9)


def make_victim(method: str, bits: int, seed: int, device: str = "auto", fast: bool = False,
                backbone: str = "two_conv", dataset: str = "") -> Victim:
    """The two victims of the paper with the settings that Table 1 is run with; deep networks get fewer passes, and from trained
    weights a smaller learning rate.
    """
    if method not in METHOD_SETTINGS:
        raise ValueError(f"unknown victim {method!r}: choose 'adsh' or 'dsdh'")
    victim, settings, passes = METHOD_SETTINGS[method]
    network = parse_backbone(backbone)[0]
    options = {**settings, **OF_BACKBONE.get(network, {}).get(method, {}), **OF_DATASET.get(dataset, {}).get(method, {})}
    if fast:
        options = {"outer_epochs": 2, "inner_epochs": 1} if method == "adsh" else {"epochs": 2}
    elif network not in SHALLOW:
        trained = bool(parse_backbone(backbone)[2])
        options[passes] = DEEP_PASSES if trained else PASSES.get(network, DEEP_PASSES)
        if trained:
            options["learning_rate"] = FINE_TUNING_RATE
    return victim(bits, seed=seed, device=str(devices.resolve(device)), backbone=backbone, **options)


ADSH_SETTINGS = {"sample_size": 10000, "outer_epochs": 50, "inner_epochs": 1, "batch_size": 128}
DSDH_SETTINGS = {"epochs": 15}
METHOD_SETTINGS = {"adsh": (ADSH, ADSH_SETTINGS, "outer_epochs"), "dsdh": (DSDH, DSDH_SETTINGS, "epochs")}
# 64-pixel images: see `pplkit.config.IMAGENET_RATES`; a third of the training images: three times the passes.
OF_DATASET = {"imagenet13": {"adsh": {"learning_rate": 2e-4}, "dsdh": {"learning_rate": 2e-4, "epochs": 45}}}
# Three times the features of two_conv. Both chosen on validation queries; no run of that is stored. DSDH was left as it was.
OF_BACKBONE = {"two_conv_3x3": {"adsh": {"learning_rate": 5e-4, "starts": 1000}}}
SHALLOW = ("two_conv", "two_conv_3x3", "dense")
# Passes of a deep network over the training images: batch normalisation makes it learn faster, and a pass of ResNet-18 costs
# over a hundred times more; one of a MobileNet is cheaper.
DEEP_PASSES = 5
FINE_TUNING_RATE = 2e-4  # from trained weights: smaller steps, as is usual; not compared with 1e-3
PASSES = dict.fromkeys(("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"), 10)


def fit_victim(victim: Victim, split: RetrievalSplit, train: ImageSet, progress: bool = True) -> Victim:
    """Train on `train` (the clean or the protected training images); ADSH also learns codes for the whole database."""
    if isinstance(victim, ADSH):
        return victim.fit(train.images, train.labels, database_labels=split.database.labels,
                          train_index=split.train_index, progress=progress)
    return victim.fit(train.images, train.labels, progress=progress)


def summary(result: dict[str, MeanAveragePrecision]) -> dict[str, dict[str, float]]:
    """Scenario -> mAP, its 95 % bootstrap interval over queries, and the worst and best tie order; JSON-able."""
    table = {}
    for scenario, value in result.items():
        low, high = value.interval()
        entries = {"mAP": value.expected, "low": low, "high": high, "worst": value.worst, "best": value.best}
        table[scenario] = {name: round(float(number), 5) for name, number in entries.items()}
    return table
