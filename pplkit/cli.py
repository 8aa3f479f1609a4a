"""The command `pplkit`: train a generator, protect a folder of pictures, measure the protection on a labelled folder.

    pplkit train folder:photos generator.safetensors --epsilon 0.1
    pplkit protect photos photos-protected --generator generator.safetensors
    pplkit evaluate photos --protected photos-protected
"""

import argparse
import dataclasses
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from pplkit import __version__, photos, pretrained, processes
from pplkit import device as devices
from pplkit.budget import NORMS, format_epsilon
from pplkit.checkpoints import OtherCheckpoint
from pplkit.config import REGIMES
from pplkit.data import RetrievalSplit, load
from pplkit.folders import protect_folder
from pplkit.generator import PerturbationGenerator
from pplkit.paper import METHODS
from pplkit.storage import can_write, provenance, save_json
from pplkit.training import CollapseWarning, OutOfMemory, PPLConfig, PPLRun, train_ppl

FASHION_MNIST_SIZE = 28  # pixels
DOWNLOADS = ("fashion-mnist", "cifar10")  # data sets that `load` can fetch
DONE, SOME_FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130


def epsilon(text: str) -> float:
    """A budget as typed: "0.1" or "26/255".

    >>> epsilon("51/255")
    0.2
    """
    try:
        top, _, bottom = text.partition("/")
        value = float(top) / float(bottom or 1)
        format_epsilon(value)
    except (ValueError, ZeroDivisionError) as error:
        wanted = "a number from 0 to 1 in pixel units, as 0.1 or 26/255"
        raise argparse.ArgumentTypeError(f"{text!r} is no budget: {wanted}") from error
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _names(text: str) -> str | tuple[str, ...]:
    return tuple(text.split(",")) if "," in text else text


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    command = argparse.ArgumentParser(
        prog="pplkit", description="Protect pictures against image search before they are published.")
    command.add_argument("--version", action="version", version=f"pplkit {__version__}")
    commands = command.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train", help="train a generator on a data set or a labelled folder",
        description="Train a generator by one of the course's games and write it to GENERATOR. An interrupted call goes on "
                    "where it stopped (GENERATOR.run keeps its state). Several GPUs: accelerate launch -m pplkit.cli train ...")
    train.add_argument("dataset", metavar="DATASET", help="name for pplkit.data.load, as folder:PATH, fashion-mnist or cifar10")
    train.add_argument("output", metavar="GENERATOR", type=Path, help="file to write (safetensors)")
    train.add_argument("--root", metavar="FOLDER", help="folder of the data set's files")
    train.add_argument("--download", action="store_true",
                       help="fetch fashion-mnist or cifar10 if it is not on this machine")
    train.add_argument("--epsilon", type=epsilon, metavar="E",
                       help="budget in pixel units (default: the paper's for its data sets)")
    train.add_argument("--norm", choices=NORMS, default="inf", help="of the budget (default: %(default)s)")
    train.add_argument("--size", type=_positive, help="of the images of folder:PATH (32) and imagenet13 (64), in pixels")
    train.add_argument("--channels", type=int, choices=(1, 3), help="of the images of folder:PATH (3)")
    _add_decoding(train)
    train.add_argument("--regime", choices=list(REGIMES), default="reference",
                       help="how the game is played: all but the reference have six surrogates instead of four and three times "
                            "the steps; several, with surrogates of three networks, meets all cells of the paper's Table 1 on "
                            "Fashion-MNIST (default: %(default)s)")
    train.add_argument("--backbone", type=_names, metavar="NAME",
                       help="network of the surrogates, or one each, as NAME,NAME,...: the protection carries over best to "
                            "searchers with networks that it has met (default: two_conv, with several its own)")
    train.add_argument("--batch-size", type=_positive, default=128,
                       help="images per step, of all processes together (default: %(default)s)")
    train.add_argument("--warmup-steps", type=int, default=1500, help="of the surrogates alone (default: %(default)s)")
    train.add_argument("--warmup-learning-rate", type=float, metavar="RATE",
                       help="of the surrogates alone (default: 1e-3, for imagenet13 2e-4); 2e-4 for images of 64 pixels")
    train.add_argument("--steps", type=int, help="of the game (default: 800, other games than the reference 2400)")
    train.add_argument("--surrogate-learning-rate", type=float, metavar="RATE",
                       help="of the surrogates in the game (default: 3e-5, for imagenet13 6e-6); 6e-6 for images of 64 pixels; "
                            "those of the other games that learn from protected images alone change in proportion")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    train.add_argument("--checkpointing", action="store_true", help="less memory for more time, the same result")
    train.add_argument("--accumulation", type=_positive, default=1, metavar="PARTS",
                       help="parts that the surrogates take a batch in: less memory for more time (default: %(default)s)")
    train.add_argument("--compile", action="store_true",
                       help="let torch.compile fuse the networks' passes; a minute or more before the first step, and slower "
                            "on the CPU where it was measured")
    train.add_argument("--force", action="store_true",
                       help="overwrite GENERATOR; start anew if GENERATOR.run is of a call with other settings or images")
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.set_defaults(run=run_train)

    protect = commands.add_parser(
        "protect", help="write a protected copy of every picture in a folder",
        description="Write a protected copy of every picture below INPUT_DIR, as 8-bit PNG of the same size, alpha channel "
                    "kept, turned upright, without EXIF data. Of pictures whose names differ in the suffix alone neither is "
                    "written. A second call goes on where the first stopped. Exit status: 0 "
                    "all pictures are protected, 1 some files are not (they are listed), 2 nothing was done.")
    protect.add_argument("input_dir", metavar="INPUT_DIR", type=Path)
    protect.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path)
    _add_protection(protect)
    protect.add_argument("--pattern-size", metavar="PIXELS", type=int,
                         help="make the pattern on the picture reduced to this shorter side, and enlarge it: a coarse pattern "
                              "survives shrinking (default: the size of the images that the generator was trained on, if its "
                              "file says so); 0: at the picture's own size")
    protect.add_argument("--workers", type=_positive, default=min(4, os.cpu_count() or 1),
                         help="pictures in work at the same time (default: %(default)s)")
    protect.add_argument("--max-pixels", type=_positive, default=photos.MAX_PIXELS,
                         help="refuse larger pictures (default: %(default)s)")
    protect.add_argument("--report", type=Path, metavar="CSV",
                         help="what was done to each file: l_inf, PSNR, SSIM (default: OUTPUT_DIR-report.csv)")
    protect.add_argument("--force", action="store_true", help="overwrite files in OUTPUT_DIR that are not the result wanted")
    protect.set_defaults(run=run_protect)

    evaluate = commands.add_parser(
        "evaluate", help="measure the four search scenarios on a labelled folder",
        description="Train search engines on the images of FOLDER (one folder per class), clean and protected, and print the "
                    "mAP of the four scenarios, query->database with C clean and A protected.")
    evaluate.add_argument("folder", metavar="FOLDER", type=Path)
    _add_protection(evaluate)
    evaluate.add_argument("--protected", type=Path, metavar="FOLDER",
                          help="the copy of FOLDER that `pplkit protect` made; instead of --generator")
    evaluate.add_argument("--size", type=_positive, default=32,
                          help="the searcher's image size in pixels (default: %(default)s)")
    evaluate.add_argument("--channels", type=int, choices=(1, 3), help="grey or colour (default: the generator's, else 3)")
    _add_decoding(evaluate)
    evaluate.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="victims (default: all)")
    evaluate.add_argument("--bits", type=_positive, default=16, help="code length (default: %(default)s)")
    evaluate.add_argument("--backbone", default="two_conv", help="network of the victims (default: %(default)s)")
    evaluate.add_argument("--learning-rate", type=float, metavar="RATE",
                          help="of the victims (default: 1e-3); 2e-4 for images of 64 pixels")
    evaluate.add_argument("--batch-size", type=_positive, default=128,
                          help="images per step of the victims (default: %(default)s)")
    evaluate.add_argument("--query-share", type=float, default=0.1, help="of each class (default: %(default)s)")
    evaluate.add_argument("--train-share", type=float, default=0.5,
                          help="of each class's database images (default: %(default)s)")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="result file (default: FOLDER-evaluation.json)")
    evaluate.add_argument("--force", action="store_true", help="overwrite the result file")
    evaluate.add_argument("--fast", action="store_true", help="a few training steps only, to try the command")
    evaluate.set_defaults(run=run_evaluate)
    return command


def _add_decoding(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=_positive,
                         help="processes that decode picture files (folder:PATH, imagenet13; default: this one alone)")
    command.add_argument("--cache", type=Path, metavar="FOLDER",
                         help="keep decoded picture files there and map them from disk: for more of them than memory holds "
                              "(the training part is read into memory all the same)")


def _decoding(asked: argparse.Namespace) -> dict[str, object]:
    """What `_add_decoding` was given, as options of `pplkit.data.load`."""
    return {name: getattr(asked, name) for name in ("workers", "cache") if getattr(asked, name) is not None}


def _add_protection(command: argparse.ArgumentParser) -> None:
    command.add_argument("--generator", metavar="PATH|pretrained",
                         help="generator file (safetensors), or `pretrained`: the Fashion-MNIST one that comes with pplkit")
    command.add_argument("--epsilon", type=epsilon, metavar="E",
                         help="budget in pixel units, as 0.1 or 26/255 (default: what the generator was trained with)")
    command.add_argument("--norm", choices=NORMS, help="of the budget (default: what the generator was trained with)")
    command.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def load_generator(asked: argparse.Namespace) -> tuple[PerturbationGenerator, float, str]:
    """The generator on its device, ε and norm; what was not asked for is taken from the generator's own header.

    Raises:
        FileNotFoundError, ValueError: no or another file; no ε given and none in the header.
    """
    if asked.generator is None:
        raise ValueError("no generator: give --generator PATH, or --generator pretrained")
    generator = pretrained.generator() if asked.generator == "pretrained" else PerturbationGenerator.load(asked.generator)
    trained = generator.metadata.get("config", {})
    budget = asked.epsilon if asked.epsilon is not None else trained.get("epsilon")
    if budget is None:
        raise ValueError(f"{asked.generator} does not say with which budget it was trained: give --epsilon")
    return generator.to(devices.resolve(asked.device)), budget, asked.norm or trained.get("norm", "inf")


def run_train(asked: argparse.Namespace) -> int:
    """`pplkit train`: exit status."""
    if asked.output.is_dir():
        raise IsADirectoryError(f"{asked.output} is a folder: GENERATOR is a file to write")
    if asked.output.exists() and not asked.force:
        raise FileExistsError(f"{asked.output} exists: --force overwrites it")
    if asked.epsilon is None and asked.dataset.startswith("folder:"):
        raise ValueError(f"the paper has no epsilon for {asked.dataset!r}: give --epsilon, as in --epsilon 0.1")
    provenance()  # the commit of now: others may follow while this runs
    device = devices.resolve(asked.device)
    together = processes.current(device)
    if together.main:
        split = _load(asked)
    together.any(True, device)  # waits: the first process alone downloads
    if not together.main:
        split = _load(asked)
    config = _configuration(asked)
    state = asked.output.with_name(f"{asked.output.name}.run")
    run = _train(asked, split, config, state)
    if together.main:
        run.generator.save(asked.output, dataset=split.name, image_size=split.train.images.shape[-1],
                           config=dataclasses.asdict(config), split=split.manifest, run=provenance(device))
        state.unlink(missing_ok=True)
        print(f"written: {asked.output}; epsilon {format_epsilon(config.epsilon)}, norm {config.norm}, "
              f"{len(split.train)} images")
    return DONE


def _configuration(asked: argparse.Namespace) -> PPLConfig:
    """The game of `pplkit train`: the regime's but for what is asked for."""
    changes = {name: getattr(asked, name) for name in ("norm", "batch_size", "warmup_steps", "seed")}
    changes |= {name: getattr(asked, name) for name in ("backbone", "epsilon", "steps", "warmup_learning_rate")
                if getattr(asked, name) is not None}
    config = REGIMES[asked.regime](asked.dataset, **changes)
    if (rate := asked.surrogate_learning_rate) is not None:
        first, *others = config.per_surrogate("surrogate_learning_rate")
        rates = rate, *(rate if other == first else rate * other / first for other in others)
        config = dataclasses.replace(config, surrogate_learning_rate=rates if len(set(rates)) > 1 else rate)
    return config


def _load(asked: argparse.Namespace) -> RetrievalSplit:
    """The data set of `pplkit train`; what is missing is asked for in the words of the command line."""
    options = {name: getattr(asked, name) for name in ("size", "channels") if getattr(asked, name) is not None}
    try:
        return load(asked.dataset, asked.root, download=asked.download, seed=asked.seed, **options, **_decoding(asked))
    except FileNotFoundError as error:
        if asked.dataset not in (*DOWNLOADS, "imagenet13"):
            raise
        fetch = "--download fetches it, " if asked.dataset in DOWNLOADS and not asked.download else ""
        raise FileNotFoundError(f"{error}\nOn the command line: {fetch}--root FOLDER says where it is") from error


def _train(asked: argparse.Namespace, split: RetrievalSplit, config: PPLConfig, state: Path) -> PPLRun:
    """Train, going on from `state` if it is there; if it belongs to another call, --force starts anew."""
    def play() -> PPLRun:
        return train_ppl(split.train, config, device=asked.device, checkpoint=state, resume=True, progress=not asked.quiet,
                         checkpointing=asked.checkpointing, accumulation=asked.accumulation, compiled=asked.compile)

    try:
        return play()
    except OtherCheckpoint as error:
        if not asked.force:
            raise ValueError(f"{error.found}: delete {state} or give --force to start anew, or write to another "
                             "GENERATOR") from error
    together, device = processes.current(), devices.resolve(asked.device)
    together.any(True, device)  # waits: every process has read the file
    if together.main:
        state.unlink()
    together.any(True, device)  # and none looks for it before it is gone
    return play()


def run_protect(asked: argparse.Namespace) -> int:
    """`pplkit protect`: exit status."""
    generator, budget, norm = load_generator(asked)
    if asked.pattern_size is None:
        size = FASHION_MNIST_SIZE if generator.metadata.get("dataset") == "fashion-mnist" else 0  # files without the entry
        asked.pattern_size = generator.metadata.get("image_size", size)
    if asked.pattern_size < 0:
        raise ValueError(f"--pattern-size must be at least 0 pixels, got {asked.pattern_size}")
    result = protect_folder(asked.input_dir, asked.output_dir, generator, budget, norm, pattern_size=asked.pattern_size or None,
                            max_pixels=asked.max_pixels, workers=asked.workers, force=asked.force, report=asked.report,
                            progress=not asked.quiet)
    print(f"{result.protected} protected, {result.kept} done before, {len(result.failed)} failed; "
          f"epsilon {format_epsilon(budget)}, norm {norm}, pattern made at "
          f"{f'{asked.pattern_size} pixels' if asked.pattern_size else 'own size'}; report: {result.report}")
    for name, note in result.notes.items():
        print(f"note: {name}: {note}", file=sys.stderr)
    for name, why in result.failed.items():
        print(f"NOT PROTECTED: {name}: {why}", file=sys.stderr)
    return SOME_FAILED if result.failed else DONE


def run_evaluate(asked: argparse.Namespace) -> int:
    """`pplkit evaluate`: exit status."""
    from pplkit.experiments.folder import evaluate_folder, table

    folder = asked.folder.expanduser().resolve()
    path = asked.json or folder.with_name(f"{folder.name}-evaluation.json")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: --json names a file to write")
    if path.exists() and not asked.force:
        raise FileExistsError(f"{path} exists: --force overwrites it, --json names another file")
    if not can_write(path.absolute()):  # training comes first
        raise PermissionError(f"cannot write {path}: --json names another file")
    if asked.protected is not None:
        for option in ("generator", "epsilon", "norm"):
            if getattr(asked, option) is not None:
                raise ValueError(f"--protected has pictures that are protected already: leave --{option} out")
    generator, budget, norm = (None, None, "inf") if asked.protected is not None else load_generator(asked)
    channels = asked.channels or (generator.channels if generator is not None else 3)
    protected = asked.protected.expanduser().resolve() if asked.protected is not None else None
    result = evaluate_folder(folder, generator, budget, norm, protected=protected, methods=tuple(asked.methods),
                             bits=asked.bits, backbone=asked.backbone, learning_rate=asked.learning_rate,
                             batch_size=asked.batch_size, seed=asked.seed,
                             device=asked.device, fast=asked.fast, progress=not asked.quiet, size=asked.size,
                             channels=channels, query_share=asked.query_share, train_share=asked.train_share,
                             **_decoding(asked))
    protection = {"protected": protected.name} if protected is not None else {
        "generator": asked.generator, "epsilon": budget, "norm": norm}
    print(table(result["rows"]))
    save_json(path, {"folder": folder.name, **protection, "fast": asked.fast, **result})
    print(f"written: {path}")
    return DONE


def _memory_help(asked: argparse.Namespace) -> str:
    """What to lower where a command, not a step of the game, ran out of memory."""
    lower = {"train": "--batch-size (now {batch_size}) or, where DATASET takes it, --size",
             "protect": "--workers (now {workers})",
             "evaluate": "--batch-size (now {batch_size}) or --size (now {size})"}[asked.command]
    elsewhere = ", or give --device cpu" if devices.resolve(asked.device).type != "cpu" else ""
    return f"out of memory: lower {lower.format_map(vars(asked))}{elsewhere}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    asked = parser().parse_args(arguments)

    def show(message: Warning | str, *_: object) -> None:
        print(f"pplkit {asked.command}: warning: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", CollapseWarning)
            warnings.showwarning = show
            return asked.run(asked)
    except (ValueError, OSError) as error:
        print(f"pplkit {asked.command}: {error}", file=sys.stderr)
        return WRONG_USE
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        named = isinstance(error, OutOfMemory) and asked.command == "train"  # evaluate's may name one that no option sets
        print(f"pplkit {asked.command}: {error if named else _memory_help(asked)}", file=sys.stderr)
        return WRONG_USE
    except KeyboardInterrupt:
        then = "nothing was kept" if asked.command == "evaluate" else "the same command goes on from here"
        print(f"pplkit {asked.command}: interrupted; {then}", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
