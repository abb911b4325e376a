"""Execute a run: papermill drives the notebook; this keeps its folder in order."""

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from rich.console import Console

from cifar_utils.files import write_atomically
from cifar_utils.parameters import InputError, read_parameters
from cifar_utils.record import read_record
from cifar_utils.reports.export import export_page
from cifar_utils.reports.progress import shown_progress
from cifar_utils.reports.runs import Run, run_status, visible, write_identity

KERNEL_START_SECONDS = 120
log = logging.getLogger("papermill")
log.setLevel(logging.CRITICAL + 1)  # what goes wrong is in the notebook and in what is raised


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``"finished"``, ``"failed"`` with a line of why, or ``"done"`` before."""

    run: Run
    status: Literal["finished", "failed", "done"]
    error: str = ""


def execute(run: Run, *, force: bool = False, console: Console | None = None) -> Outcome:
    """Execute a run and export its page; an interrupted one goes on, a done one is left alone.

    A notebook that fails leaves its executed part and a page that shows the error at its cell.

    Parameters
    ----------
    run
        What to run, as :func:`~cifar_utils.reports.runs.plan_run` makes it.
    force
        Run it afresh, whatever run the folder holds.
    console
        Where progress is shown; None for the terminal.

    Raises
    ------
    InputError
        Where the folder holds something else or can't be written, or the notebook itself raised
        one. What this call made is removed then, and the folder is as it was before.
    KeyboardInterrupt
        At Ctrl-C; the kernel is gone then, all files are whole and the same call goes on.

    """
    replaces = force and (run.folder / "run.json").exists()
    status = "stale" if replaces else run_status(run)
    if status == "done":
        if not run.page.exists():
            export_page(run.folder / "notebook.ipynb", run.page)
        return Outcome(run, "done")
    try:
        with _locked(run.folder), _restored(run.folder, afresh=status == "stale"):
            return _execute(run, console or Console())
    except OSError as error:
        reason = f"can't be written ({error.strerror})"
        raise InputError(f"output folder {run.folder} {reason}; give --output another") from error


def _execute(run: Run, console: Console) -> Outcome:
    identity = run.identity() | {"started": _now()}
    write_identity(run.folder, identity)
    with shown_progress(run.name, run.folder / "events.jsonl", console) as say:
        error = _execute_notebook(run, lambda index, count: say(f"cell {index + 1} of {count}"))
    error = error or _record_error(run.folder)
    export_page(run.folder / "notebook.ipynb", run.page)
    outcome = "failed" if error else "finished"
    ending = {"ended": _now(), "outcome": outcome, "error": error}
    write_identity(run.folder, identity | ending)
    return Outcome(run, outcome, error)


def _record_error(folder: Path) -> str:
    """What is wrong with the record that a notebook should have written, if anything."""
    if not (folder / "record.json").exists():
        return "the notebook ended without writing a record"
    try:
        read_record(folder)
    except InputError as error:
        return str(error)
    return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _execute_notebook(run: Run, on_cell: Callable[[int, int], None]) -> str:
    """Execute into the run's folder; return a line on the error that ended it, or nothing."""
    known = read_parameters(run.notebook)
    given = {key: value for key, value in run.parameters.items() if value != known[key].default}
    folder = run.folder.absolute()
    # Relative where it can be: a published notebook should not tell of a home folder.
    output = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    try:
        papermill.execute_notebook(
            str(run.notebook).replace("{", "{{").replace("}", "}}"),  # papermill formats it
            None,  # the engine saves
            parameters=given | {"output": str(output)},
            engine_name=WholeFilesEngine.NAME,
            kernel_name="python3",
            language="python",
            saved_as=folder / "notebook.ipynb",
            on_cell=on_cell,
        )
    except PapermillExecutionError as error:
        message = (error.evalue.strip().splitlines() or [""])[0]
        if error.ename == "InputError":
            raise InputError(message) from error
        return f"{error.ename}: {message}" if message else error.ename
    return ""


class WholeFilesEngine(Engine):
    """An engine for papermill: a kernel of the running interpreter, the notebook saved whole.

    Papermill's own takes whatever kernel is installed as ``python3``, and writes over the file.
    """

    NAME = "cifar-reports"

    @classmethod
    def execute_notebook(
        cls,
        nb: nbformat.NotebookNode,
        kernel_name: str,
        *,
        saved_as: Path,
        on_cell: Callable[[int, int], None],
        **_: Any,
    ) -> nbformat.NotebookNode:
        """Execute a notebook's cells up to the first error; papermill calls this."""
        book = _Book(nb, saved_as, on_cell)
        source = Path(nb.metadata.papermill.input_path).name
        nb.metadata.papermill.update(input_path=source, output_path=saved_as.name)
        book.notebook_start()
        with tempfile.TemporaryDirectory() as folder, Path(folder, "stdio").open("w+b") as stdio:
            kernel = AsyncKernelManager(
                kernel_name=kernel_name,
                # Without folders to look in, the kernel is that of this very interpreter.
                kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
                connection_file=str(Path(folder, "kernel.json")),
                transport="ipc",  # by files, not ports: runs need no network and don't collide
            )
            client = PapermillNotebookClient(
                book,
                km=kernel,
                log=log,
                timeout=None,
                startup_timeout=KERNEL_START_SECONDS,
                shutdown_kernel="immediate",
                coalesce_streams=True,
            )
            try:
                client.execute(cleanup_kc=True, stdout=stdio, stderr=stdio)
            except DeadKernelError:
                stdio.seek(0)
                book.kernel_died(stdio.read().decode("utf-8", "replace"))
            finally:
                book.notebook_complete()
        return book.nb


papermill_engines.register(WholeFilesEngine.NAME, WholeFilesEngine)


class _Book(NotebookExecutionManager):
    """Papermill's bookkeeping of cells, saved whole."""

    def __init__(
        self, nb: nbformat.NotebookNode, path: Path, on_cell: Callable[[int, int], None]
    ) -> None:
        super().__init__(nb, output_path=path, progress_bar=False)
        self.on_cell = on_cell
        self.current: nbformat.NotebookNode | None = None

    def save(self, **_: Any) -> None:
        write_atomically(self.output_path, nbformat.writes(self.nb))
        self.last_save_time = self.now()

    def cell_start(self, cell: nbformat.NotebookNode, cell_index: int = 0, **_: Any) -> None:
        super().cell_start(cell, cell_index)
        self.current = cell
        self.on_cell(cell_index, len(self.nb.cells))

    def kernel_died(self, last_words: str) -> None:
        """Show the death of the kernel as an error of the cell that it was at."""
        error = nbformat.v4.new_output(
            "error",
            ename="DeadKernelError",
            evalue="the kernel died, as it does when memory runs out or somebody kills it",
            traceback=last_words.strip().splitlines()[-30:],
        )
        self.current.outputs.append(error)
        self.cell_exception(self.current)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A folder, made if need be and kept from other processes; gone in the end if it is empty."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(lock)
    except BlockingIOError as error:
        way_out = "wait for its end, or give --output another"
        raise InputError(f"output folder {folder} is another process's now; {way_out}") from error
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


@contextmanager
def _restored(folder: Path, afresh: bool) -> Iterator[None]:
    """A run's folder, emptied for a run ``afresh``; put back where that ends in bad input."""
    aside = folder / ".before"
    cleared = False
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for path in visible(folder):
            if afresh:
                path.rename(aside / path.name)
            elif path.name in ("run.json", "notebook.ipynb", "report.html"):
                shutil.copy2(path, aside)
        cleared = not visible(folder)
        yield
    except (InputError, OSError) as error:
        hours_may_hang_on_it = isinstance(error, OSError) and (folder / "checkpoint").exists()
        if aside.is_dir() and not hours_may_hang_on_it:
            for path in visible(folder) if cleared else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in aside.iterdir():
                path.replace(folder / path.name)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
