"""Files that are complete or absent, and the cache folder."""

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
from platformdirs import user_cache_path

from mlkd.errors import WriteError

REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is exceeded",
    errno.EFBIG: "the file would exceed the size limit",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "a parent folder in the path is a file",
    errno.EEXIST: "a parent folder in the path is a file",
}


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` if the block succeeds and is removed if it fails.

    The block may create a file or a folder; a folder can only be new. The content is flushed to the disk before the
    path is replaced: after a power failure there is the old file or the new one, never an empty one.

    Raises:
        WriteError: the disk is full, read-only or the like.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.unfinished")
    try:
        with explain_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            # Subfolders are not flushed: with thousands of images this would take minutes, and a broken image is
            # reported when it is read.
            _flush(unfinished, *(unfinished.iterdir() if unfinished.is_dir() else ()))
            os.replace(unfinished, path)
            _flush(path.parent)  # the new name
    finally:
        remove(unfinished)


def _flush(*paths: Path) -> None:
    """Waits until the files, and the entries of the folders, are on the disk."""
    if os.name != "posix":  # other systems cannot open a folder, or flush a file that is open for reading
        return
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError of the block into a one-line error with the reason why `path` could not be written.

    Raises:
        WriteError: the disk is full, read-only or the like.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REASONS or isinstance(error, WriteError):
            raise
        raise WriteError(
            f"{path}: could not be written: {REASONS[error.errno]}. Free some space or choose another folder, then "
            f"run the same command again to resume."
        ) from error


def remove(path: Path) -> None:
    """Removes a file or folder if it exists."""
    with suppress(OSError):  # it does not exist, or the disk has become read-only
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def create_once(path: Path, create: Callable[[Path], object]) -> None:
    """Calls `create` to write `path` if it does not exist; of several processes one writes, the others wait.

    Args:
        path: a file or folder.
        create: writes the file or folder at the temporary path it is given.

    Raises:
        WriteError: the disk is full, read-only or the like.
    """
    with explain_write_errors(path):
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with FileLock(lock):
            try:
                if not path.exists():
                    for unfinished in path.parent.glob(f".{glob.escape(path.name)}.*.unfinished"):
                        remove(unfinished)  # left by a process that was killed
                    with atomic_write(path) as unfinished:
                        create(unfinished)
            finally:
                lock.unlink(missing_ok=True)  # a waiting process still gets the lock, and then finds `path`


def create_memmap(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap:
    """Creates an .npy file as a memory map to be filled; its disk space is reserved at once.

    Raises:
        OSError: the disk is full. Without reserved space, writing to the map would kill the process.
    """
    table = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return table


def cache_dir() -> Path:
    """The folder for data that can be recreated: `$MLKD_CACHE`, or `mlkd` in the user's cache folder."""
    return Path(os.environ.get("MLKD_CACHE") or user_cache_path("mlkd"))
