"""Finds the official archives on this machine, and downloads a missing one."""

import contextlib
import os
import socket
import ssl
import sys
from pathlib import Path

from cifar_utils.data.archive import Archive
from cifar_utils.errors import InputError

SILENCE = 30  # seconds without a byte until a connection counts as cut


def keras_datasets() -> Path:
    """The folder of Keras's datasets: ``~/.keras/datasets``, or below ``KERAS_HOME``."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "datasets"


def find(archive: Archive) -> Path | None:
    """The path of the archive or its extracted folder; None where it is missing from the cache.

    The search is in ``CIFAR_DATA_DIR`` if that is set, else in Keras's cache, under the names that
    versions of Keras have used. ``CIFAR_DATA_DIR`` may also name the archive itself. A complete
    folder is preferred to an archive, and an archive to an incomplete folder.

    Raises
    ------
    InputError
        Where ``CIFAR_DATA_DIR`` does not hold it. The message says what is there instead.
    """
    given = os.environ.get("CIFAR_DATA_DIR")
    inner = archive.folder
    packed = f"{inner}{archive.file[archive.file.index('.') :]}"
    archives = [archive.file, packed, f"{inner}_archive", f"{inner}-target_archive"]
    try:
        base = Path(given).expanduser() if given else keras_datasets()
        if base.name in archives and base.is_file():
            return base
        folders = [base / inner, base / inner / inner, base / f"{inner}-target" / inner, base]
        there = {f: [(f / name).is_file() for name in archive.members] for f in folders}
        found = [f for f in folders if all(there[f])]
        found += [base / name for name in archives if (base / name).is_file()]
        found += [f for f in folders[:-1] if any(there[f])]
        if given and not found:
            without = f" without {', '.join(archive.members)}" * (base / inner).is_dir()
            raise InputError(
                f"CIFAR_DATA_DIR is {given!r}, which {what_is_at(base)}{without}; put "
                f"{archive.file} or {inner}/ there, or leave it unset to download {archive.url}"
            )
    except (OSError, RuntimeError) as error:  # RuntimeError: "~nobody" has no home
        reason = getattr(error, "strerror", None) or error
        folder = f"CIFAR_DATA_DIR {given!r}" if given else "Keras's folder"
        raise InputError(f"{folder} can't be read ({reason}); set CIFAR_DATA_DIR") from error
    return found[0] if found else None


def what_is_at(path: Path) -> str:
    """The content of a path in words: ``"holds train.7z, test.7z"``.

    Raises
    ------
    OSError
        Where it can't be read.
    """
    if not path.is_dir():
        return "is a file" if path.exists() else "does not exist"
    names = sorted(each.name for each in path.iterdir() if each.name[0] != ".")
    return f"holds {', '.join(names[:5])}{', ...' * (len(names) > 5)}" if names else "is empty"


def download(archive: Archive) -> Path:
    """Download an archive into Keras's cache and check it; return its path.

    The file gets its name once it is complete and its checksum is right. If several processes call
    this at once, one downloads and the others wait.

    Raises
    ------
    InputError
        Without a network, with a wrong checksum, or where the cache can't be written.
    """
    from filelock import FileLock

    target = keras_datasets() / archive.file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{archive.file}.lock")):
            if not target.exists():
                _get(archive, target)
    except OSError as error:
        raise InputError(
            f"{target.parent} can't be written ({error.strerror or error}); make room for "
            f"{archive.file} there, or set KERAS_HOME to another folder"
        ) from error
    return target


def _get(archive: Archive, target: Path) -> None:
    from cifar_utils.backend import keras

    part = target.with_name(f"{archive.file}.part")
    part.unlink(missing_ok=True)  # of a process that was killed
    patience = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(SILENCE)
        with contextlib.redirect_stdout(sys.stderr):  # keeps its progress out of a command's output
            keras.utils.get_file(
                part.name,
                archive.url,
                cache_subdir=str(part.parent.absolute()),
                file_hash=archive.md5,
                hash_algorithm="md5",
            )
        part.replace(target)
    except Exception as error:  # get_file raises Exception itself where a site can't be reached
        network = ConnectionError, TimeoutError, ssl.SSLError
        if isinstance(error, OSError) and not isinstance(error, network):
            raise
        raise InputError(
            f"{archive.file} could not be downloaded from {archive.url} ({error}); try again "
            f"later, or put it into {target.parent}, or set CIFAR_DATA_DIR to its folder"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
        part.unlink(missing_ok=True)
