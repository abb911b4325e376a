"""A run and its folder: its status, its locks, and reading it back."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from cifar_utils.errors import InputError
from cifar_utils.files import (
    CHECKPOINTS,
    FACTS,
    MODEL,
    PAGE,
    PART,
    PREDICTED,
    PREDICTIONS,
    RECORD,
    file_digest,
    weights_file,
    write_atomically,
)
from cifar_utils.provenance import changed_code
from cifar_utils.runs.cells import code_digest, read_cells
from cifar_utils.runs.record import RunRecord, read_record
from cifar_utils.text import first_three, listed

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from cifar_utils.data.dataset import Dataset
    from cifar_utils.evaluation import Predicted, Scores

LOCK, KERNEL_LOCK = ".lock", ".kernel.lock"
BEFORE = ".before"  # holds the earlier run while a new one replaces it
REPLACEABLE = {"stale", "done", "unfinished"}  # statuses of a run that can be replaced
DATA = ("dataset", "validation_fraction", "seed", "train_limit", "test_limit", "image_size")


class Status(NamedTuple):
    """The status of a run, and the reason for it.

    Attributes
    ----------
    word
        Before execution: ``"new"``; ``"unfinished"`` (it failed or was stopped, and can go on);
        ``"done"``; ``"stale"`` (it has other parameters or another notebook, or it is done, and
        its code, data or weights have changed since); ``"refused"`` (the folder holds something
        else); ``"running"`` (another process runs it). After execution: ``"finished"`` or
        ``"failed"``.
    why
        The reason in words.
    details
        The last lines of the error, if the run failed.
    transient
        Whether the cause lies outside of the notebook, so another try may succeed.

    """

    word: str
    why: str = ""
    details: tuple[str, ...] = ()
    transient: bool = False


class RunningError(InputError):
    """Another process executes the run."""


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A run's folder; its files are read when they are first used.

    Attributes
    ----------
    folder
        Its path; a planned run may not have it yet.
    notebook
        The source notebook of a planned run; None for a run that was found.
    parameters
        All parameters of a planned run, checked, except ``output``: a run stays the same when its
        folder moves.
    timeout
        Seconds after which a try is ended; None for no limit.

    """

    folder: Path
    notebook: Path | None = None
    parameters: dict[str, Any] | None = None
    timeout: float | None = None

    @property
    def name(self) -> str:
        """The folder's name, or that of a link to it."""
        return Path(os.path.abspath(self.folder)).name  # noqa: PTH100  (resolve would follow links)

    @property
    def page(self) -> Path:
        """Its exported page; a run by papermill or JupyterLab alone has none."""
        return self.folder / PAGE

    @property
    def facts(self) -> dict[str, Any]:
        """The content of ``run.json``: :meth:`identity` and how the run ended; empty without it.

        Raises
        ------
        InputError
            Where the file is broken.

        """
        file = self.folder / FACTS
        try:
            content = json.loads(file.read_text("utf-8"))
            if not isinstance(content.get("parameters", {}), dict):
                raise TypeError(f"its parameters are {content['parameters']!r}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{file} is broken ({error}); run its notebook again") from error
        return content

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        write_atomically(self.folder / FACTS, json.dumps(facts, indent=1) + "\n")

    @property
    def date(self) -> str:
        """The day it ended (``"2026-11-21"``); empty without a ``run.json``."""
        with suppress(InputError):
            return str(self.facts.get("ended", ""))[:10]
        return ""

    @property
    def record(self) -> RunRecord | None:
        """Its record; None where the run failed, is not finished or is broken: see ``error``."""
        return self._record[0]

    @property
    def error(self) -> str:
        """Why it has no record, in a line; empty where it has one."""
        return self._record[1]

    @cached_property
    def _record(self) -> tuple[RunRecord | None, str]:
        try:
            facts = self.facts
            if facts.get("outcome") == "failed":
                return None, str(facts.get("error"))
            if not (self.folder / RECORD).exists():
                return None, "not finished; the same command goes on with it"
            return read_record(self.folder), ""
        except InputError as error:
            return None, str(error)

    @cached_property
    def scores(self) -> Scores:
        """Its scores on the test images, exactly; raises InputError without predictions."""
        from cifar_utils.evaluation import read_scores

        return read_scores(self.folder / PREDICTIONS)

    @cached_property
    def predicted(self) -> Predicted:
        """Its predicted class of each test image; raises InputError without ``predicted.npz``."""
        from cifar_utils.evaluation import read_predicted

        return read_predicted(self.folder / PREDICTED)

    @cached_property
    def model(self) -> keras.Model:
        """The model that was tested, from uint8 images ``(N, H, W, 3)`` to logits ``(N, K)``.

        It has Keras's own layers, in float32, without augmentation, and is not compiled
        (:func:`~cifar_utils.runs.record.write_model`). If training had another precision, logits
        differ a little from those of the scores.

        Raises
        ------
        InputError
            Where the run has no model, or a broken one.

        """
        path = self.folder / MODEL
        if not path.exists():
            raise InputError(
                f"run {self.folder} has no {MODEL} (published runs keep none); {self._way_out}"
            )
        from cifar_utils.backend import keras

        try:
            return keras.models.load_model(path)
        except Exception as error:  # for a bad file, Keras raises almost anything
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"model {path} can't be read ({reason}); {self._way_out}") from error

    def predict(self, *pictures: Path | str, top: int = 3) -> pd.DataFrame:
        """Classify pictures: see :func:`~cifar_utils.runs.predict.predict`."""
        from cifar_utils.runs.predict import predict

        return predict(self, *pictures, top=top)

    @property
    def _way_out(self) -> str:
        notebook = self.record.notebook if self.record else "its notebook"
        return f"run {notebook} again with its parameters"

    @property
    def leftovers(self) -> list[Path]:
        """Files that a killed process may have left in the folder."""
        names = LOCK, KERNEL_LOCK, BEFORE
        # Other folders in it may be runs.
        kept = (file for name in CHECKPOINTS for file in (self.folder / name).rglob(".*"))
        hidden = [*self.folder.glob(".*"), *kept]
        return [path for path in hidden if path.name in names or PART in path.suffixes]

    def identity(self) -> dict[str, Any]:
        """The values that identify a planned run: the first keys of ``run.json``."""
        return {
            "notebook": self.notebook.stem,
            "parameters": self.parameters,
            "notebook_sha256": code_digest(read_cells(self.notebook)),
        }

    def status(self, *, held: bool = False) -> Status:
        """The status of a planned run, by the files in its folder.

        Data that can't be read here count as unchanged.

        Parameters
        ----------
        held
            Whether this process has it :meth:`locked`.

        """
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            return Status("refused", f"output folder {folder} is a file; give --output a folder")
        if not held and (holder := self._holder()):
            return Status("running", holder)
        if not visible(folder):
            return Status("new", "not run yet")
        if not (folder / FACTS).exists():
            another = (folder / RECORD).exists()
            what = "a run of papermill or JupyterLab" if another else "files but no run"
            reason = f"output folder {folder} holds {what}; give --output a new folder"
            return Status("refused", reason)
        try:
            facts = self.facts
        except InputError as error:
            return Status("stale", str(error))
        wanted = self.identity()
        old = {"notebook": facts.get("notebook")} | facts.get("parameters", {})
        new = {"notebook": wanted["notebook"]} | wanted["parameters"]
        differing = [
            f"{name} is {old.get(name, 'not set')!r}, not {new.get(name, 'not set')!r}"
            for name in {**new, **old}
            if name not in old or name not in new or old[name] != new[name]
        ]
        if differing:
            return Status("stale", "; ".join(first_three(differing)))
        stopped = self.leftovers and not held  # its page may be missing
        if facts.get("outcome") != "finished" or stopped:
            error = facts.get("error")
            return Status("unfinished", f"it failed: {error}" if error else "it was stopped")
        try:
            record = read_record(folder)
        except InputError as error:
            return Status("unfinished", str(error))
        if facts.get("notebook_sha256") != wanted["notebook_sha256"]:
            return Status("stale", "its notebook has changed")
        if changed := changed_code(record.code):
            return Status("stale", f"the code of {', '.join(changed)} has changed")
        then = record.dataset.get("fingerprint")
        given = tuple((key, self.parameters[key]) for key in DATA if key in self.parameters)
        now = then and _fingerprint(given)
        if now and then != now:
            return Status("stale", f"its data were {then[:12]}…, and are {now[:12]}… now")
        weights = weights_file(self.parameters.get("weights") or "")
        began = record.model.get("weights_sha256")
        if began and weights.is_file() and file_digest(weights) != began:
            return Status("stale", f"the weights in {weights}, with which it began, have changed")
        return Status("done", f"finished on {self.date}")

    @contextmanager
    def locked(self, seconds: float = 0) -> Iterator[None]:
        """Keep other processes from the folder while the block lasts.

        The kernel of a run holds a second lock, :func:`hold`. So after a process was killed, no
        other process gets the folder before the kernel has ended.

        Parameters
        ----------
        seconds
            How long to wait for another process.

        Raises
        ------
        RunningError
            Where another process still holds the folder.
        OSError
            Where the folder is missing or can't be written.

        """
        self.folder.stat()  # a lock would make a missing folder
        lock, kernel = (
            FileLock(self.folder / name, timeout=seconds) for name in (LOCK, KERNEL_LOCK)
        )
        try:
            with lock:
                try:
                    holder = f"process {os.getpid()} on {socket.gethostname()}"
                    Path(lock.lock_file).write_text(holder)
                    with kernel:
                        pass
                    yield
                finally:
                    # Removed while held, so that a waiting process does not get an old file.
                    with suppress(OSError), kernel.acquire(timeout=1):
                        Path(kernel.lock_file).unlink(missing_ok=True)
                    with suppress(OSError):
                        Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout as error:
            raise RunningError(f"{self.folder}: {self._holder() or 'another process'}") from error

    def _holder(self) -> str:
        """The process that runs it now, in words; empty if there is none."""
        lock, kernel = self.folder / LOCK, self.folder / KERNEL_LOCK
        for path in (lock, kernel):
            try:
                if path.exists():
                    with FileLock(path, timeout=0):
                        pass
            except Timeout:
                if path == kernel:
                    return "a kernel that outlived its process is about to end"
                with suppress(OSError):  # it has ended since
                    return f"being run by {path.read_text()}"
            except OSError:  # the folder is not writable
                return ""
        return ""

    def __repr__(self) -> str:
        there = ", ".join(sorted(path.name for path in visible(self.folder)))
        return f"{self.record or self.error}; {self.folder} has {there or 'nothing yet'}"

    def _repr_html_(self) -> str:
        record = self.record._repr_html_() if self.record else ""
        return f"<p>{escape(repr(self))}</p>{record}"


def hold(folder: Path | str) -> FileLock:
    """Take the lock that a kernel holds while it lives; wait until another kernel has ended."""
    return FileLock(Path(folder, KERNEL_LOCK)).acquire().lock


def load_run(path: Path | str) -> Run:
    """Read a run back from its folder.

    >>> run = load_run("reports/published/resnet20-cifar10-s0")
    >>> run.record.scores["test"]["top1"], run.scores.confusion, run.model.predict(images)

    Raises
    ------
    InputError
        Where the folder holds no run, or a run without scores.

    """
    run = Run(Path(path))
    folder = run.folder
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise InputError(f"run {folder} is {what}; give a run's folder")
    if not any((folder / name).exists() for name in (RECORD, FACTS)):
        if any((folder / name).is_dir() for name in CHECKPOINTS):
            raise InputError(f"run {folder} is not finished; run its notebook or script again")
        below = sorted(file.parent.name for file in folder.glob(f"*/{RECORD}"))
        near = f"one of those in it: {listed(first_three(below))}" if below else "a run's folder"
        raise InputError(f"folder {folder} holds no run; give {near}")
    if not run.record:
        raise InputError(f"run {folder}: {run.error}")
    return run


def find_runs(folder: Path) -> list[Run]:
    """All runs below a folder: finished ones by dataset, best first; then the others, by name.

    A folder with ``record.json`` or ``run.json`` is a run. Hidden folders are skipped, and links
    are followed.
    """
    found, seen = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)  # by links, a folder may be met twice
        folders[:] = sorted(name for name in folders if real not in seen and name[0] != ".")
        if real not in seen and {RECORD, FACTS} & {*files}:
            found.append(Run(Path(place)))
        seen.add(real)

    def order(run: Run) -> tuple[Any, ...]:
        if not run.record:
            return 1, "", 0.0, run.name
        return 0, run.record.dataset["name"], -run.record.scores["test"]["top1"], run.name

    return sorted(found, key=order)


def visible(folder: Path) -> list[Path]:
    """The files in a folder, without hidden ones; none where it is missing."""
    there = folder.iterdir() if folder.is_dir() else ()
    return [path for path in there if not path.name.startswith(".")]


def local_data(parameters: Mapping[str, Any]) -> Dataset | None:
    """The data of a run with these parameters; None where this machine does not have them."""
    from cifar_utils.data import load_dataset

    options = {key: parameters[key] for key in DATA if key in parameters}
    try:
        return load_dataset(options.pop("dataset"), offline=True, **options)
    except (InputError, KeyError, OSError):
        return None


@cache  # a series reads the same data for many runs
def _fingerprint(given: tuple[tuple[str, Any], ...]) -> str | None:
    data = local_data(dict(given))
    return data.fingerprint if data else None
