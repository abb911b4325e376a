"""Delete the checkpoints of finished runs, which need them no more."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cifar_utils.files import CHECKPOINTS
from cifar_utils.runs.folder import RunningError, find_runs


def clean(folder: Path, delete: bool) -> Iterator[tuple[Path, int]]:
    """The folders of checkpoints and features of the finished runs below a folder.

    Parameters
    ----------
    delete
        Whether to delete them.

    Yields
    ------
    tuple
        The path, and its size in bytes.

    """
    for run in find_runs(folder):
        if not run.record:
            continue
        with suppress(RunningError), run.locked():
            if run.facts.get("outcome") != "finished":
                continue
            for path in [run.folder / name for name in CHECKPOINTS]:
                if path.is_dir() and not path.is_symlink():
                    files = [each for each in path.rglob("*") if each.is_file()]
                    yield path, sum(each.lstat().st_size for each in files)
                    if delete:
                        shutil.rmtree(path)
