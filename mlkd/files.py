"""Files that are whole or absent, and the folder for what can be made again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class WriteError(OSError):
    """A file that could not be written; the message names it and says why and what to do."""


REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk is full",
    errno.EFBIG: "the file would grow larger than allowed",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "you may not write there",
    errno.EPERM: "you may not write there",
    errno.ENOTDIR: "a part of that path is a file, no folder",
}


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends well, and goes when it does not.

    It may become a file or a folder; a folder must not be there yet.

    Raises:
        WriteError: the disk is full or read-only, or the like.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno not in REASONS or isinstance(error, WriteError):
            raise
        raise WriteError(
            f"{path}: could not be written, {REASONS[error.errno]}. Make room or choose another folder; the same "
            f"command then goes on."
        ) from error
    finally:
        remove(unfinished)


def remove(path: Path) -> None:
    """Takes a file or folder away, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # not there, or on a disk that is read-only by now
            path.unlink()


def cache_folder() -> Path:
    """Where the drawn scenes and decoded pictures are kept: `$MLKD_CACHE`, else `mlkd` in the user's cache folder."""
    if chosen := os.environ.get("MLKD_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlkd"
