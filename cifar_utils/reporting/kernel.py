"""The needs of a run's kernel: a folder for its sockets, and a lock while it lives."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from cifar_utils.runs.folder import hold

SOCKETS_BELOW = 60  # bytes of a folder's path; a socket's path, which is longer, may have 107
VARIABLE = "CIFAR_RUN_FOLDER"
held = []


@contextmanager
def short_folder() -> Iterator[str]:
    """A temporary folder with a path short enough for sockets, whatever ``TMPDIR`` is."""
    place = tempfile.gettempdir()
    place = place if len(os.fsencode(place)) <= SOCKETS_BELOW else "/tmp"
    with tempfile.TemporaryDirectory(prefix="c-", dir=place, ignore_cleanup_errors=True) as folder:
        yield folder


def load_ipython_extension(shell: object) -> None:
    """Take the lock of the run's folder; IPython calls this in the kernel, before the first cell.

    If the process that started the kernel is killed, no other process gets the folder before the
    kernel has ended.
    """
    held.append(hold(os.environ[VARIABLE]))
