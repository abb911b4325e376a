"""A run: a folder and what lies in it, whether it is planned, found, loaded or compared."""

from __future__ import annotations

import ast
import hashlib
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
    FACTS,
    MODEL,
    PAGE,
    PART,
    PREDICTED,
    PREDICTIONS,
    RECORD,
    write_atomically,
)
from cifar_utils.provenance import changed_code
from cifar_utils.runs.record import RunRecord, read_record

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from cifar_utils.evaluation import Predicted, Scores

LOCK, KERNEL_LOCK = ".lock", ".kernel.lock"
BEFORE = ".before"  # what a run takes the place of, while it runs
DATA = ("dataset", "validation_fraction", "seed", "train_limit", "test_limit", "image_size")


class Status(NamedTuple):
    """How far a run has got, or how it ended, and why that is said.

    Attributes
    ----------
    word
        Before it is run: ``"new"``; ``"unfinished"`` (it failed or was stopped, and can go on);
        ``"done"``; ``"stale"`` (done, but its code or its data have changed since); ``"other"``
        (the folder holds another run); ``"refused"`` (the folder holds something else);
        ``"running"`` (another process runs it). After it was run: ``"finished"`` or ``"failed"``.
    why
        In words.
    details
        The last lines of the error that it failed with.
    transient
        Whether the cause lies outside of the notebook, so that another try may well succeed.

    """

    word: str
    why: str = ""
    details: tuple[str, ...] = ()
    transient: bool = False


class RunningError(InputError):
    """Another process runs it."""


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A run's folder; what lies in it is read when it is first asked for.

    Attributes
    ----------
    folder
        Where it lies, or is to lie.
    notebook
        Of a planned run, the source notebook's file; None where a run was found.
    parameters
        Of a planned run, all of its notebook's parameters, checked, but for ``output``: a folder
        that moves holds the same run.
    tags
        Words that a series picks its runs by.
    timeout
        Seconds after which one try of it is ended; None for no limit.

    """

    folder: Path
    notebook: Path | None = None
    parameters: dict[str, Any] | None = None
    tags: tuple[str, ...] = ()
    timeout: float | None = None

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    @property
    def page(self) -> Path:
        """Its exported page; runs of plain papermill or JupyterLab have none."""
        return self.folder / PAGE

    @property
    def facts(self) -> dict[str, Any]:
        """The content of ``run.json``: :meth:`identity` and how it ended; empty without one.

        Raises
        ------
        InputError
            Where it is broken.

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
        """The day it ended (``"2026-11-21"``); empty where no ``run.json`` tells."""
        with suppress(InputError):
            return str(self.facts.get("ended", ""))[:10]
        return ""

    @property
    def record(self) -> RunRecord | None:
        """What it claims; None where it failed, is not finished or is broken: see ``error``."""
        return self._record[0]

    @property
    def error(self) -> str:
        """A line of why it has no record; empty where it has one."""
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
        """What it said of the test images, exactly; raises InputError without predictions."""
        from cifar_utils.evaluation import read_scores

        path = self.folder / PREDICTIONS
        if not path.exists():
            raise InputError(f"run {self.folder} has no {path.name}; {self._way_out}")
        return read_scores(path)

    @cached_property
    def predicted(self) -> Predicted:
        """The class that it gave each test image; published runs keep this of their predictions."""
        from cifar_utils.evaluation import read_predicted

        path = self.folder / PREDICTED
        return read_predicted(path) if path.exists() else self.scores.predicted

    @cached_property
    def model(self) -> keras.Model:
        """The model that was tested, from uint8 images ``(N, H, W, 3)`` to logits ``(N, K)``.

        Made of Keras's own layers, in float32, without augmentation and not compiled
        (:func:`~cifar_utils.runs.record.write_model`). Training in another precision than float32
        gives logits that differ a little from those of the scores.

        Raises
        ------
        InputError
            Where the run has none, or it is broken.

        """
        path = self.folder / MODEL
        if not path.exists():
            raise InputError(
                f"run {self.folder} has no {MODEL} (published runs keep none); {self._way_out}"
            )
        from cifar_utils.backend import keras

        try:
            return keras.models.load_model(path)
        except Exception as error:  # Keras raises almost anything at what is no model
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"model {path} is broken ({reason}); {self._way_out}") from error

    def predict(self, *pictures: Path | str, top: int = 3) -> pd.DataFrame:
        """Classify pictures: see :func:`~cifar_utils.runs.predict.predict`."""
        from cifar_utils.runs.predict import predict

        return predict(self, *pictures, top=top)

    @property
    def _way_out(self) -> str:
        return f"run {self.record.notebook} again with its parameters"

    @property
    def left(self) -> list[Path]:
        """What a process that runs it keeps in its folder, and leaves there where it is killed."""
        names = LOCK, KERNEL_LOCK, BEFORE
        hidden = self.folder.rglob(".*")
        return [path for path in hidden if path.name in names or PART in path.suffixes]

    def identity(self) -> dict[str, Any]:
        """What makes a planned run another one than the next: the first keys of ``run.json``."""
        cells = read_cells(self.notebook)
        sources = json.dumps([_statements(source) for kind, source, _ in cells if kind == "code"])
        return {
            "notebook": self.notebook.stem,
            "parameters": self.parameters,
            "notebook_sha256": hashlib.sha256(sources.encode()).hexdigest(),
        }

    def status(self, *, held: bool = False) -> Status:
        """How far a planned run has got, by what lies in its folder.

        Where its data can't be read here, they are taken to be what they were.

        Parameters
        ----------
        held
            This process has it :meth:`locked`.

        """
        folder = self.folder
        if folder.exists() and not folder.is_dir():
            return Status("refused", f"output folder {folder} is a file; give --output a folder")
        if not held and (holder := self._holder()):
            return Status("running", holder)
        if not folder.is_dir() or not visible(folder):
            return Status("new", "not run yet")
        if not (folder / FACTS).exists():
            reason = "holds files but no run; give --output a new folder"
            return Status("refused", f"output folder {folder} {reason}")
        try:
            facts = self.facts
        except InputError as error:
            return Status("other", str(error))
        wanted = self.identity()
        old = {"notebook": facts.get("notebook")} | facts.get("parameters", {})
        new = {"notebook": wanted["notebook"]} | wanted["parameters"]
        differing = [
            f"{name} is {old.get(name, 'not set')!r}, not {new.get(name, 'not set')!r}"
            for name in {**new, **old}
            if name not in old or name not in new or old[name] != new[name]
        ]
        if differing:
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            return Status("other", "; ".join(differing[:3]) + more)
        stopped = self.left and not held  # its page may not be made yet
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
        return Status("done", f"finished on {self.date}")

    @contextmanager
    def locked(self, seconds: float = 0) -> Iterator[None]:
        """Keep other processes from the folder while the block lasts.

        The kernel of a run holds a second lock, :func:`hold`. So where a process was killed, no
        other one gets the folder before the kernel has ended.

        Parameters
        ----------
        seconds
            How long to wait for one who holds it.

        Raises
        ------
        RunningError
            Where another process holds it then.
        OSError
            Where the folder is not there, or can't be written.

        """
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
                    # Removed while they are held: nobody who waits for one gets an old file.
                    with suppress(OSError), kernel.acquire(timeout=1):
                        Path(kernel.lock_file).unlink(missing_ok=True)
                    with suppress(OSError):
                        Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout as error:
            raise RunningError(f"{self.folder}: {self._holder() or 'another process'}") from error

    def _holder(self) -> str:
        """Who runs it now, in words; empty where nobody does."""
        lock, kernel = self.folder / LOCK, self.folder / KERNEL_LOCK
        for path in (lock, kernel):
            try:
                if path.exists():
                    with FileLock(path, timeout=0):
                        pass
            except Timeout:
                if path == kernel:
                    return "a kernel that outlived its process is about to end"
                return f"being run by {path.read_text()}"
            except OSError:  # a folder that only others may write
                return ""
        return ""

    def __repr__(self) -> str:
        there = ", ".join(sorted(path.name for path in visible(self.folder)))
        return f"{self.record or self.error!r}; {self.folder} has {there}"

    def _repr_html_(self) -> str:
        record = self.record._repr_html_() if self.record else ""
        return f"<p>{escape(repr(self))}</p>{record}"


def hold(folder: Path | str) -> FileLock:
    """Take the lock that a run's kernel holds while it lives; wait for another kernel's end."""
    return FileLock(Path(folder, KERNEL_LOCK)).acquire().lock


def load_run(path: Path | str) -> Run:
    """Read a run back from its folder.

    >>> run = load_run("reports/published/resnet20-cifar10-s0")
    >>> run.record.scores["test"]["top1"], run.scores.confusion, run.model.predict(images)

    Raises
    ------
    InputError
        Where the folder holds no run, or one that has not come to its scores.

    """
    run = Run(Path(path))
    folder = run.folder
    if not folder.is_dir():
        raise InputError(f"run {folder} is not there; give a run's folder")
    if not any((folder / name).exists() for name in (RECORD, FACTS)):
        below = sorted(file.parent.name for file in folder.glob(f"*/{RECORD}"))
        near = f"one of those in it: {', '.join(below[:3])}" if below else "a run's folder"
        raise InputError(f"folder {folder} is no run's; give {near}")
    if not run.record:
        raise InputError(f"run {folder}: {run.error}")
    return run


def find_runs(folder: Path) -> list[Run]:
    """All runs below a folder: finished ones by dataset, best first; then the others, by name.

    Runs are known by their ``record.json`` or ``run.json``; hidden folders are not looked into.
    """
    files = [*folder.rglob(RECORD), *folder.rglob(FACTS)]
    found = {file.parent for file in files if "/." not in f"/{file.relative_to(folder).as_posix()}"}

    def order(run: Run) -> tuple[Any, ...]:
        if not run.record:
            return 1, "", 0.0, run.name
        top1 = run.record.scores.get("test", {}).get("top1")
        rank = -top1 if isinstance(top1, int | float) else 1.0
        return 0, str(run.record.dataset.get("name", "")), rank, run.name

    return sorted(map(Run, sorted(found)), key=order)


def read_cells(notebook: Path | str) -> list[tuple[str, str, list[str]]]:
    """Kind (``"code"``, ``"markdown"``), source and tags of each of a notebook's cells.

    Raises
    ------
    InputError
        Where the file is no notebook.

    """
    try:
        cells = json.loads(Path(notebook).read_text("utf-8"))["cells"]
        return [
            (cell["cell_type"], "".join(cell["source"]), cell.get("metadata", {}).get("tags") or [])
            for cell in cells
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{notebook} can't be read as a notebook ({error})") from error


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, but for hidden files."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _statements(source: str) -> str:
    """Code without its comments and layout, which change nothing of what a run does."""
    try:
        return ast.unparse(ast.parse(source))
    except SyntaxError:  # a magic command
        return source


@cache  # a series reads the same data for many runs
def _fingerprint(arguments: tuple[tuple[str, Any], ...]) -> str | None:
    """The fingerprint of a run's data as they are here; None where they are not."""
    from cifar_utils.data import load_dataset

    options = dict(arguments)
    try:
        return load_dataset(options.pop("dataset"), offline=True, **options).fingerprint
    except (InputError, KeyError, OSError):
        return None
