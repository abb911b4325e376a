"""Remove what runs left and nobody needs: checkpoints of done runs, runs that were never done."""

import os
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from cifar_utils.errors import InputError
from cifar_utils.reporting.runs import locked, read_identity
from cifar_utils.runs.record import read_record

ASIDE = ".removed"
# For going on from; a run that is done needs them no more.
STATE = (ASIDE, "checkpoint", "features", "tuning")
# All that a run writes, run.json last: as long as there is anything, it says what that is.
WRITTEN = (
    *STATE, ".before", ".model.keras", "events.jsonl", "report.html", "notebook.ipynb",
    "predictions.npz", "predicted.npz", "model.keras", "record.json", "run.json",
)  # fmt: skip


@dataclass(frozen=True)
class Leftover:
    """What may be removed of a run.

    Attributes
    ----------
    folder
        The run's.
    why
        In words: what is to go, and what the run is.
    paths
        Files and folders in it, in the order of their removal.
    size
        Bytes in all.

    """

    folder: Path
    why: str
    paths: tuple[Path, ...]
    size: int


def find_leftovers(folder: Path, spared: Path | None = None) -> list[Leftover]:
    """What may be removed of the runs in and below a folder.

    Of done runs that is checkpoints and features, of others all that runs write. What runs don't
    write is left alone, as are runs that another process holds.

    Parameters
    ----------
    folder
        Where to look; not where links lead.
    spared
        Runs in or below this folder are left alone, unless ``folder`` is in it too.

    """
    folder = folder.resolve()
    if spared is not None and folder.is_relative_to(spared.resolve()):
        spared = None
    found = []
    for run in sorted({path.parent for name in WRITTEN[-2:] for path in folder.rglob(name)}):
        hidden = any(part.startswith(".") for part in run.relative_to(folder).parts)
        if hidden or (spared is not None and run.is_relative_to(spared.resolve())):
            continue
        with suppress(BlockingIOError, FileNotFoundError), locked(run):
            leftover = _leftover(run)
            found += [leftover] if leftover else []
    return found


def remove(leftover: Leftover) -> bool:
    """Remove it, and the folder if nothing else is in it.

    Returns
    -------
    bool
        False, and nothing is removed, where the run has changed since or another process holds it.

    Raises
    ------
    OSError
        Where a file can't be removed.

    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(leftover.folder))
        except (BlockingIOError, FileNotFoundError):
            return False
        if _leftover(leftover.folder) != leftover:
            return False
        aside = leftover.folder / ASIDE
        for path in leftover.paths:
            if path.is_symlink() or not path.is_dir():
                path.unlink()
                continue
            # At once, so that a kill leaves no half of a checkpoint to go on from.
            if path != aside:
                path.rename(aside)
            shutil.rmtree(aside)
        if not any(leftover.folder.iterdir()):
            leftover.folder.rmdir()
    return True


def _leftover(folder: Path) -> Leftover | None:
    """What may be removed of a run; None where that is nothing, or the folder is no run's."""
    try:
        known = (folder / "run.json").exists()
        outcome = read_identity(folder).get("outcome") if known else "finished"
        if outcome == "finished":
            read_record(folder)
    except InputError:
        return None
    if outcome == "finished":
        names, why = STATE, "checkpoints and features of a done run"
    else:
        names = WRITTEN
        why = "a failed run" if outcome == "failed" else "an unfinished run, which could go on"
        # What a killed process was about to write, beside the file that it was for.
        halves = [path for name in WRITTEN for path in folder.glob(f".{name}.*")]
        names = (*(path.name for path in halves), *names)
    paths = tuple(folder / name for name in names if os.path.lexists(folder / name))
    return Leftover(folder, why, paths, sum(map(_size, paths))) if paths else None


def _size(path: Path) -> int:
    within = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(each.lstat().st_size for each in within)
