"""What a run's kernel needs: a folder for its sockets, and a lock for as long as it lives."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from cifar_utils.runs.folder import hold

SOCKETS_BELOW = 60  # bytes of a folder's path; a socket's, some folders deeper, may have 107
VARIABLE = "CIFAR_RUN_FOLDER"
held = []


@contextmanager
def short_folder() -> Iterator[str]:
    """A temporary folder whose path is short enough for sockets in it, whatever ``TMPDIR`` is."""
    place = tempfile.gettempdir()
    place = place if len(os.fsencode(place)) <= SOCKETS_BELOW else "/tmp"
    with tempfile.TemporaryDirectory(prefix="c-", dir=place, ignore_cleanup_errors=True) as folder:
        yield folder


def load_ipython_extension(shell: object) -> None:
    """Take the lock of the run's folder; IPython calls this in the kernel, before the first cell.

    So where the process that started the kernel is killed, no other one gets the folder before the
    kernel has noticed that, and ended.
    """
    held.append(hold(os.environ[VARIABLE]))
