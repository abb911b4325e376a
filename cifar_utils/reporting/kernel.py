"""The lock of a run's folder that its kernel holds while it lives."""

import os

from cifar_utils.runs.folder import hold

VARIABLE = "CIFAR_RUN_FOLDER"
held = []


def load_ipython_extension(shell: object) -> None:
    """Take the lock of the run's folder; IPython calls this in the kernel, before the first cell.

    If the process that started the kernel is killed, no other process gets the folder before the
    kernel has ended.
    """
    held.append(hold(os.environ[VARIABLE]))
