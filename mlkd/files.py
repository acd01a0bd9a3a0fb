"""Files that are whole or absent, and the folder for what can be made again."""

from __future__ import annotations

import errno
import glob
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock

from mlkd.errors import WriteError

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is full",
    errno.EFBIG: "the file would grow larger than allowed",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.ENOTDIR: "a part of that path is a file, no folder",
    errno.EEXIST: "a part of that path is a file, no folder",
}


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends well, and goes when it does not.

    It may become a file or a folder; a folder must not be there yet. It is on the disk before it takes the place: a
    power cut leaves the old file or the new one, never an empty one.

    Raises:
        WriteError: the disk is full or read-only, or the like.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.unfinished")
    try:
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            # Not what is deeper in a folder: thousands of drawn pictures would take minutes, and it is told when a
            # broken one is read.
            _flush(unfinished, *(unfinished.iterdir() if unfinished.is_dir() else ()))
            os.replace(unfinished, path)
            _flush(path.parent)  # the new name
    finally:
        remove(unfinished)


def _flush(*paths: Path) -> None:
    """Waits until the files, and the names in the folders, are on the disk."""
    if os.name != "posix":  # elsewhere a folder cannot be opened, nor a file flushed that was opened to be read
        return
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Says in a sentence why `path` could not be written.

    Raises:
        WriteError: the disk is full or read-only, or the like.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REASONS or isinstance(error, WriteError):
            raise
        raise WriteError(
            f"{path}: could not be written, {REASONS[error.errno]}. Make room or choose another folder; the same "
            f"command then goes on."
        ) from error


def remove(path: Path) -> None:
    """Takes a file or folder away, if it is there."""
    with suppress(OSError):  # not there, or on a disk that is read-only by now
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def create_once(path: Path, make: Callable[[Path], object]) -> None:
    """Lets `make` write `path` whole where it is not there; of several processes one makes it and the others wait.

    Raises:
        WriteError: the disk is full or read-only, or the like.
    """
    with explain_write_errors(path):
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with FileLock(lock):
            try:
                if not path.exists():
                    for left in path.parent.glob(f".{glob.escape(path.name)}.*.unfinished"):
                        remove(left)  # of a process that was killed
                    with atomic_write(path) as unfinished:
                        make(unfinished)
            finally:
                lock.unlink(missing_ok=True)  # who waits for it gets it all the same, and looks again


def create_memmap(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file as a memory map to be filled; its room on the disk is taken at once.

    Raises:
        OSError: the disk is full. Without the room, writing to the map would kill the process.
    """
    table = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return table


def cache_dir() -> Path:
    """Where the drawn scenes and decoded pictures are kept: `$MLKD_CACHE`, else `mlkd` in the user's cache folder."""
    if chosen := os.environ.get("MLKD_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlkd"
