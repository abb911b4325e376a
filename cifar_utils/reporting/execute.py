"""Execute a run: papermill drives the notebook; this keeps its folder in order."""

import logging
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from rich.console import Console

from cifar_utils.errors import InputError
from cifar_utils.events import read_events
from cifar_utils.files import write_atomically
from cifar_utils.reporting.export import export_page
from cifar_utils.reporting.parameters import read_parameters
from cifar_utils.reporting.progress import shown_progress
from cifar_utils.reporting.runs import (
    Outcome,
    Run,
    UnwantedError,
    locked,
    read_identity,
    run_status,
    visible,
    write_identity,
)
from cifar_utils.runs.record import read_record
from cifar_utils.text import duration

KERNEL_START_SECONDS = 120
LOCK_SECONDS = 5
POLL_SECONDS = 0.2
DETAIL_LINES = 6
DIED, TIMED_OUT, UNWANTED = "DeadKernelError", "TimeoutError", "unwanted"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
log = logging.getLogger("papermill")
log.setLevel(logging.CRITICAL + 1)  # what goes wrong is in the notebook and in what is raised


def execute(
    run: Run,
    *,
    force: bool = False,
    series: str = "",
    console: Console | None = None,
    tell: Callable[[Mapping[str, Any]], None] | None = None,
    wanted: Callable[[], bool] = lambda: True,
) -> Outcome:
    """Execute a run and export its page; an interrupted one goes on, a done one is left alone.

    A notebook that fails leaves its executed part and a page that shows the error at its cell.

    Parameters
    ----------
    run
        What to run, as :func:`~cifar_utils.reporting.runs.plan_run` makes it.
    force
        Run it afresh, whatever run the folder holds, unless that one is of the same ``series``.
    series
        A name for the command that the run belongs to, kept in its ``run.json``.
    console
        Where progress is shown; None for the terminal.
    tell
        Takes the run's events, as :func:`~cifar_utils.reporting.progress.shown_progress` describes
        them, instead of ``console``.
    wanted
        Asked all the time, from another thread; once it says no, the kernel is ended.

    Raises
    ------
    InputError
        Where the folder holds something else or can't be written, or the notebook itself raised
        one. What this call made is removed then, and the folder is as it was before.
    KeyboardInterrupt
        At Ctrl-C; the kernel is gone then, all files are whole and the same call goes on.
    UnwantedError
        As at Ctrl-C, where the run is no longer ``wanted``.

    """
    if tell is None:
        with shown_progress(console or Console()) as show:
            return execute(
                run, force=force, series=series, tell=partial(show, run.name), wanted=wanted
            )
    if _status(run, force, series) == "done":
        return _done(run)
    try:
        with _held(run.folder) as lock:
            status = _status(run, force, series)  # again: another process may have ended meanwhile
            if status == "done":
                return _done(run)
            with _restored(run.folder, afresh=status == "stale"):
                watch = _Watch(run, tell, wanted)
                return _execute(run, series, watch, lock)
    except OSError as error:
        reason = f"can't be written ({error.strerror})"
        raise InputError(f"output folder {run.folder} {reason}; give --output another") from error


def _status(run: Run, force: bool, series: str) -> str:
    if force and (run.folder / "run.json").exists():
        try:
            begun = bool(series) and read_identity(run.folder).get("series") == series
        except InputError:  # broken; to be replaced
            begun = False
        if not begun:
            return "stale"
    return run_status(run)


def _done(run: Run) -> Outcome:
    if not run.page.exists():
        export_page(run.folder / "notebook.ipynb", run.page)
    return Outcome(run, "done")


def _execute(run: Run, series: str, watch: "_Watch", lock: int) -> Outcome:
    identity = run.identity() | {"started": _now()} | ({"series": series} if series else {})
    write_identity(run.folder, identity)
    with watch:
        outcome = _execute_notebook(run, watch, lock)
    if watch.verdict == UNWANTED:
        raise UnwantedError(run.name)
    if outcome.status == "finished" and (error := _record_error(run.folder)):
        outcome = Outcome(run, "failed", error)
    export_page(run.folder / "notebook.ipynb", run.page)
    ending = {"ended": _now(), "outcome": outcome.status, "error": outcome.error}
    write_identity(run.folder, identity | ending)
    return outcome


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


class _Watch(threading.Thread):
    """Tells a run's events as they are written; ends its kernel when its time is over."""

    def __init__(
        self, run: Run, tell: Callable[[Mapping[str, Any]], None], wanted: Callable[[], bool]
    ):
        super().__init__(daemon=True)
        self.run_, self.tell, self.wanted = run, tell, wanted
        self.kernel: AsyncKernelManager | None = None
        self.verdict = ""
        self.ended = threading.Event()
        self.events = run.folder / "events.jsonl"
        self.position = self.events.stat().st_size if self.events.exists() else 0
        self.started = time.monotonic()

    def __enter__(self) -> None:
        self.tell({"event": "start"})
        self.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        last = False
        while not last:
            last = self.ended.wait(POLL_SECONDS)  # once more after the end, for what came last
            fresh, self.position = read_events(self.events, self.position)
            for event in fresh:
                self.tell(event)
            self.verdict = self.verdict or self._judge()
            if self.verdict and not last:
                self._end_kernel()

    def _judge(self) -> str:
        limit = self.run_.timeout
        if not self.wanted():
            return UNWANTED
        if limit is not None and time.monotonic() - self.started > limit:
            return f"not done within its timeout of {duration(limit)}"
        return ""

    def _end_kernel(self) -> None:
        process = getattr(self.kernel and self.kernel.provisioner, "process", None)
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it leads a group, with its own children


def _execute_notebook(run: Run, watch: _Watch, lock: int) -> Outcome:
    """Execute into the run's folder, up to the first error."""
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
            watch=watch,
            lock=lock,
        )
    except PapermillExecutionError as error:
        message = (error.evalue.strip().splitlines() or [""])[0]
        if error.ename == "InputError":
            raise InputError(message) from error
        text = ANSI.sub("", "\n".join(error.traceback))
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return Outcome(
            run,
            "failed",
            f"{error.ename}: {message}" if message else error.ename,
            tuple(lines[-DETAIL_LINES:]),
            transient=error.ename == DIED or bool(watch.verdict),
        )
    return Outcome(run, "finished")


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
        watch: _Watch,
        lock: int,
        **_: Any,
    ) -> nbformat.NotebookNode:
        """Execute a notebook's cells up to the first error; papermill calls this."""
        book = _Book(nb, saved_as, watch.tell)
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
            watch.kernel = kernel
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
                # The kernel has a hand on the lock too: should this process be killed, nobody else
                # gets the folder before the kernel has noticed, and ended.
                client.execute(cleanup_kc=True, stdout=stdio, stderr=stdio, pass_fds=(lock,))
            except (DeadKernelError, RuntimeError):  # the latter: it never answered
                stdio.seek(0)
                book.kernel_died(stdio.read().decode("utf-8", "replace"), watch.verdict)
            finally:
                book.notebook_complete()
        return book.nb


papermill_engines.register(WholeFilesEngine.NAME, WholeFilesEngine)


class _Book(NotebookExecutionManager):
    """Papermill's bookkeeping of cells, saved whole."""

    def __init__(
        self, nb: nbformat.NotebookNode, path: Path, tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        super().__init__(nb, output_path=path, progress_bar=False)
        self.tell = tell
        self.current = next((cell for cell in nb.cells if cell.cell_type == "code"), None)

    def save(self, **_: Any) -> None:
        write_atomically(self.output_path, nbformat.writes(self.nb))
        self.last_save_time = self.now()

    def cell_start(self, cell: nbformat.NotebookNode, cell_index: int = 0, **_: Any) -> None:
        super().cell_start(cell, cell_index)
        self.current = cell
        self.tell({"event": "cell", "phase": f"cell {cell_index + 1} of {len(self.nb.cells)}"})

    def kernel_died(self, last_words: str, verdict: str) -> None:
        """Show the end of the kernel as an error of the cell that it was at."""
        error = nbformat.v4.new_output(
            "error",
            ename=TIMED_OUT if verdict else DIED,
            evalue=verdict
            or "the kernel died, as it does when memory runs out or somebody kills it",
            traceback=last_words.strip().splitlines()[-30:],
        )
        self.current.outputs.append(error)
        self.cell_exception(self.current)


@contextmanager
def _held(folder: Path) -> Iterator[int]:
    """A folder, made if need be and locked; gone in the end if it is empty."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A kernel whose process was killed notices it within a second or so, and ends.
        with locked(folder, LOCK_SECONDS) as lock:
            yield lock
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
        kept = any((folder / name).exists() for name in ("checkpoint", "tuning"))
        hours_may_hang_on_it = isinstance(error, OSError) and kept
        if aside.is_dir() and not hours_may_hang_on_it:
            for path in visible(folder) if cleared else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in aside.iterdir():
                path.replace(folder / path.name)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
