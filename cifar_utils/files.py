"""Files that are whole or not there at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PART = ".part"  # ends the names of files that are being written; a killed process leaves them


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Write a file so that a reader always finds a complete one, the old or the new.

    Raises
    ------
    OSError
        Where the folder can't be written or the disk is full; the old file, if any, stays.

    """
    with written_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_atomically(path: Path | str) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of the one at ``path`` when the block has ended.

    Raises
    ------
    OSError
        As :func:`write_atomically`.

    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        sync(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders, and needs no such thing
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
