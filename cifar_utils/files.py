"""The names of the files in a run's folder, and atomic writing."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from cifar_utils.errors import InputError
from cifar_utils.text import encodable

RECORD, FACTS, NOTEBOOK, PAGE = "record.json", "run.json", "notebook.ipynb", "report.html"
PREDICTED, PREDICTIONS, MODEL = "predicted.npz", "predictions.npz", "model.keras"
EVENTS = "events.jsonl"
CHECKPOINTS = ("checkpoint", "features", "tuning")  # to resume from; a finished run needs none
# In the order in which they are cleared: a process that is stopped in between leaves neither a
# finished run nor one that goes on.
RUN_FILES = (*CHECKPOINTS, RECORD, NOTEBOOK, PAGE, PREDICTED, PREDICTIONS, MODEL, EVENTS, FACTS)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # errors of a disk without room
PART = ".part"  # in the names of files that are being written; a killed process leaves them


def made_folder(folder: Path) -> Path:
    """Make a folder and those above it, and return it.

    Raises
    ------
    InputError
        Where it can't be made.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} can't be written ({error.strerror}); choose another folder"
        ) from error
    return folder


def weights_file(weights: Path | str) -> Path:
    """A file of pretrained weights, or a run's folder, as the file that has the weights."""
    path = Path(weights)
    return path / MODEL if path.is_dir() else path


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Write a file so that a reader always finds a complete one, the old or the new.

    Text is written in UTF-8, as :func:`~cifar_utils.text.encodable`.

    Raises
    ------
    OSError
        Where the folder can't be written or the disk is full; the old file, if any, stays.

    """
    with written_atomically(path) as file:
        file.write(encodable(content).encode() if isinstance(content, str) else content)


@contextmanager
def written_atomically(path: Path | str) -> Iterator[BinaryIO]:
    """A file to write; it replaces the one at ``path`` when the block ends.

    Its ``name`` has the suffix of ``path``, for libraries that write files by their paths.

    Raises
    ------
    OSError
        As :func:`write_atomically`.

    """
    path = Path(path)
    ending = PART + "".join(path.suffixes)  # Keras chooses the format by them
    temporary = path.with_name(f".{path.stem}.{token_hex(4)}{ending}")
    try:
        file = temporary.open("xb")
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        # A user does not know the temporary one. A name would hide a message without a number.
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows can't open folders, and need not
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
