"""An output folder that one process at a time writes to, and a run's temporary folder in it."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing tells a killed run's folder from a live one's, so all stay
    fcntl = None

SCRATCH = ".pplkit-"  # what the name of a run's temporary folder begins with


@contextmanager
def scratch(target: Path) -> Iterator[Path]:
    """A temporary folder in `target`, locked while it is in use: the system ends the lock with the process, however that ends.

    First those that killed runs left are removed: folders that nobody has locked and that hold only our temporary pictures.
    """
    for left in target.glob(f"{SCRATCH}*"):
        with suppress(OSError):  # in use, gone meanwhile, or somebody else's
            if not left.is_symlink() and left.is_dir() and (lock := _lock(left)) is not None:
                if _is_ours(left):
                    shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
    made = Path(tempfile.mkdtemp(dir=target, prefix=f".new{SCRATCH}"))
    lock = _lock(made)
    try:
        made = made.rename(target / made.name.removeprefix(".new"))  # locked first: others look for this name
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Nobody else protects pictures into `target` meanwhile: two calls would each lose the other's rows of the report."""
    try:
        lock = _lock(target)
    except BlockingIOError as error:
        raise BlockingIOError(f"another call is writing to {target}: wait for its end") from error
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _is_ours(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return all(re.fullmatch(r"\d+\.png", entry.name) and entry.is_file(follow_symlinks=False) for entry in entries)
    except OSError:  # gone meanwhile
        return False


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock of `folder` until it is closed; None: there are no locks here.

    Raises:
        BlockingIOError: another one has it.
        OSError: no such folder, or somebody else's.
    """
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise
        return None  # a disk without locks
    return handle
