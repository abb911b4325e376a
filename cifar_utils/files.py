"""Files that are whole or not there at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path | str, content: str | bytes) -> None:
    """Write a file so that who reads it, even after a kill, finds the old or the new one whole.

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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
