"""Paths of a data folder: inside it, existing, readable."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

from mlkd.errors import DataError

REASONS = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.EISDIR: "a folder, not a file",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "a link that leads to itself",
}


def safe_join(root: Path, path: str | Path) -> Path:
    """`root / path`, which must not lead out of `root`: names in annotation files are not trusted.

    Raises:
        DataError: it leads out of `root`.
    """
    full = root / path
    if ".." in full.parts or not full.is_relative_to(root):
        raise DataError(f"{path}: lies outside the data folder {root}; expected a path inside that folder.")
    return full


def check_file(path: Path, expected: str = "an image. Is the data set unpacked completely?") -> None:
    """Raises DataError if there is no file at `path`: nothing, a folder, or a pipe, which would wait for a writer.

    Args:
        path: the file.
        expected: what it should be, for the error message.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise file_error(path, error, expected) from error
    if stat.S_ISDIR(mode):
        raise file_error(path, IsADirectoryError(errno.EISDIR, ""), expected)
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: a pipe or a device, not a file; expected {_sentence(expected)}")


def read_file(path: Path, expected: str) -> bytes:
    """The content of a file.

    Args:
        path: the file.
        expected: what it should be, for the error message.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    check_file(path, expected)
    try:
        return path.read_bytes()
    except OSError as error:
        raise file_error(path, error, expected) from error


def check_folder(path: Path, expected: str) -> None:
    """Raises DataError if `path` is not a folder.

    Args:
        path: the folder.
        expected: what it should be, for the error message: "one that contains `annotations`".
    """
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
        reason = "a file, not a folder"
    except (OSError, ValueError) as error:
        is_folder, reason = False, _reason(path, error).replace("no such file", "no such folder")
    if not is_folder:
        raise DataError(f"{path}: {reason}; expected {expected}.")


def file_error(path: Path, error: OSError | ValueError, expected: str) -> DataError:
    """The error of a file that does not exist or cannot be read, with the reason in words."""
    return DataError(f"{path}: {_reason(path, error)}; expected {_sentence(expected)}")


def _reason(path: Path, error: OSError | ValueError) -> str:
    if not isinstance(error, OSError) or error.errno is None:  # ValueError: a null byte in the name
        return "no such file"
    if error.errno == errno.ENOENT and path.is_symlink():
        return "a link to a file that does not exist"
    return REASONS.get(error.errno, f"cannot be read ({error.strerror})")


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."
