"""Execute a run: papermill drives the notebook; this keeps its folder in order."""

import errno
import json
import logging
import os
import re
import shutil
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
import psutil
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import Engine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError
from rich.console import Console

from cifar_utils.data.folder import PREFIX
from cifar_utils.errors import InputError
from cifar_utils.events import read_events
from cifar_utils.files import PART, write_atomically
from cifar_utils.reporting import kernel as kernel_lock
from cifar_utils.reporting.export import export_page
from cifar_utils.reporting.parameters import read_parameters
from cifar_utils.reporting.progress import shown_progress
from cifar_utils.runs.folder import (
    BEFORE,
    CHECKPOINTS,
    EVENTS,
    FACTS,
    NOTEBOOK,
    PAGE,
    Run,
    RunningError,
    Status,
    visible,
)
from cifar_utils.text import duration

KERNEL_START_SECONDS = 120
LOCK_SECONDS = 5
POLL_SECONDS = 0.2
DETAIL_LINES = 6
DIED, TIMED_OUT, UNWANTED = "DeadKernelError", "TimeoutError", "unwanted"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
ERRNO = re.compile(r"[Ee]rrno\s*=?\s*(\d+)")  # "[Errno 28]" of Python, "errno = 28" of HDF5
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
log = logging.getLogger("papermill")
log.setLevel(logging.CRITICAL + 1)  # what goes wrong is in the notebook and in what is raised


class UnwantedError(Exception):
    """Nobody waits for the run any more; its kernel has been ended and its folder is whole."""


def execute(
    run: Run,
    *,
    force: bool = False,
    series: str = "",
    console: Console | None = None,
    tell: Callable[[Mapping[str, Any]], None] | None = None,
    wanted: Callable[[], bool] = lambda: True,
) -> Status:
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

    Returns
    -------
    Status
        ``"finished"``, ``"failed"``, ``"done"`` (before) or ``"running"`` (in another process).

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
        with shown_progress(console or Console(), [run.name]) as show:
            return execute(
                run, force=force, series=series, tell=partial(show, run.name), wanted=wanted
            )
    try:
        if _checked(run, force, series).word == "done":
            if not run.page.exists():
                export_page(run.folder / NOTEBOOK, run.page)
            return Status("done")
        with _held(run):
            status = _checked(run, force, series, held=True)
            if status.word == "done":  # another process has ended it, or was killed at its page
                export_page(run.folder / NOTEBOOK, run.page)
                return status
            if status.word == "stale" and status.why:
                tell({"event": "start"})
                tell({"event": "note", "text": f"{status.why}; it runs afresh"})
            with _restored(run.folder, afresh=status.word == "stale"):
                return _execute(run, series, _Watch(run, tell, wanted))
    except RunningError as error:
        return Status("running", str(error))
    except OSError as error:
        begun = any((run.folder / name).exists() for name in CHECKPOINTS)
        reason = f"{error.filename or run.folder}: {error.strerror} (errno {error.errno})"
        full = "make room; the same command goes on"
        other = "mend that; the same command goes on" if begun else "give --output another"
        way_out = full if error.errno in FULL else other
        raise InputError(
            f"output folder {run.folder} can't be written ({reason}); {way_out}"
        ) from error


def _checked(run: Run, force: bool, series: str, held: bool = False) -> Status:
    """The status of a run that may be run: ``"stale"`` where it is to be run afresh."""
    status = run.status(held=held)
    if status.word == "refused":
        raise InputError(status.why)
    if force and status.word not in ("new", "running"):
        with suppress(InputError):  # a broken run.json
            if series and run.facts.get("series") == series:
                return status
        return Status("stale")
    if status.word == "other":
        way_out = "give --output another folder, or --force to replace it"
        raise InputError(f"output folder {run.folder} holds another run ({status.why}); {way_out}")
    return status


def _execute(run: Run, series: str, watch: "_Watch") -> Status:
    facts = run.identity() | {"started": _now()} | ({"series": series} if series else {})
    run.write_facts(facts)
    with watch:
        status = _execute_notebook(run, watch)
    if watch.verdict == UNWANTED:
        raise UnwantedError(run.name)
    if status.word == "finished" and not (found := Run(run.folder)).record:
        missing = "the notebook ended without writing a record"
        status = Status("failed", found.error if found.has_record else missing)
    run.write_facts(facts | {"ended": _now(), "outcome": status.word, "error": status.why})
    try:
        export_page(run.folder / NOTEBOOK, run.page)
    except (InputError, ValueError, LookupError, TypeError, AttributeError) as error:
        watch.tell({"event": "note", "text": f"its page can't be made ({error!r})"})
    return status


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
        self.events = run.folder / EVENTS
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
        with suppress(psutil.NoSuchProcess):
            if process is not None and process.poll() is None:
                kernel = psutil.Process(process.pid)
                # Its children first: those of a process that has ended can't be found.
                for each in (*kernel.children(recursive=True), kernel):
                    with suppress(psutil.NoSuchProcess):
                        each.kill()


def _execute_notebook(run: Run, watch: _Watch) -> Status:
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
            run=run,
            watch=watch,
        )
    except PapermillExecutionError as error:
        message = (error.evalue.strip().splitlines() or [""])[0]
        if error.ename == "InputError":
            raise InputError(message) from error
        text = ANSI.sub("", "\n".join(error.traceback))
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        numbers = {int(number) for number in ERRNO.findall(error.evalue)} & FULL
        reasons = [f"{os.strerror(number)} (errno {number})" for number in numbers]
        room = [*reasons, "make room; the same command goes on"] if reasons else []
        why = f"{error.ename}: {message}" if message else error.ename
        return Status(
            "failed",
            "; ".join([why, *room]),
            tuple(lines[-DETAIL_LINES:]),
            transient=error.ename == DIED or bool(watch.verdict),
        )
    return Status("finished")


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
        run: Run,
        watch: _Watch,
        **_: Any,
    ) -> nbformat.NotebookNode:
        """Execute a notebook's cells up to the first error; papermill calls this."""
        book = _Book(nb, run, watch.tell)
        nb.metadata.papermill.update(input_path=run.notebook.name, output_path=NOTEBOOK)
        book.notebook_start()
        with kernel_lock.short_folder() as folder, Path(folder, "stdio").open("w+b") as stdio:
            kernel = AsyncKernelManager(
                kernel_name=kernel_name,
                # Without folders to look in, the kernel is that of this very interpreter.
                kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
                connection_file=str(Path(folder, "kernel.json")),
                # By files, not ports: runs need no network and don't collide.
                transport="tcp" if os.name == "nt" else "ipc",
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
                # The kernel holds the folder too: should this process be killed, nobody else gets
                # it before the kernel has noticed, and ended.
                extra_arguments=[f"--ext={kernel_lock.__name__}"],
            )
            environment = os.environ | {kernel_lock.VARIABLE: str(run.folder.absolute())}
            try:
                client.execute(cleanup_kc=True, stdout=stdio, stderr=stdio, env=environment)
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
        self, nb: nbformat.NotebookNode, run: Run, tell: Callable[[Mapping[str, Any]], None]
    ) -> None:
        super().__init__(nb, output_path=run.folder / NOTEBOOK, progress_bar=False)
        self.tell = tell
        self.dataset = str(run.parameters.get("dataset"))
        self.current = next((cell for cell in nb.cells if cell.cell_type == "code"), None)

    def save(self, **_: Any) -> None:
        write_atomically(self.output_path, _without_path(nbformat.writes(self.nb), self.dataset))
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


def _without_path(text: str, dataset: str) -> str:
    """A notebook's JSON in which a folder of pictures goes by its name, as in a record."""
    path = dataset.removeprefix(PREFIX)
    if path in (dataset, ""):
        return text
    name = Path(path).expanduser().resolve().name
    for _ in range(2):  # as a value, and as text in the code of a cell
        dataset, name = (json.dumps(each, ensure_ascii=False)[1:-1] for each in (dataset, name))
        text = text.replace(dataset, PREFIX + name)
    return text


@contextmanager
def _held(run: Run) -> Iterator[None]:
    """A run's folder, made if need be and locked; gone in the end if it is empty."""
    made = [path for path in (run.folder, *run.folder.parents) if not path.exists()]
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        # A kernel whose process was killed notices it within a second or so, and ends.
        with run.locked(LOCK_SECONDS):
            for path in run.left:
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.suffix == PART:
                    path.unlink(missing_ok=True)
            yield
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


@contextmanager
def _restored(folder: Path, afresh: bool) -> Iterator[None]:
    """A run's folder, emptied for a run ``afresh``; put back where that ends in bad input."""
    aside = folder / BEFORE
    cleared = False
    # What a killed process has begun to clear must still be a run, and not go on.
    order = {FACTS: 2} | dict.fromkeys(CHECKPOINTS, 0)
    try:
        aside.mkdir()
        for path in sorted(visible(folder), key=lambda path: order.get(path.name, 1)):
            if afresh:
                path.rename(aside / path.name)
            elif path.name in (FACTS, NOTEBOOK, PAGE):
                shutil.copy2(path, aside)
        cleared = not visible(folder)
        yield
    except (InputError, OSError) as error:
        kept = any((folder / name).exists() for name in CHECKPOINTS)
        hours_may_hang_on_it = isinstance(error, OSError) and kept
        if aside.is_dir() and not hours_may_hang_on_it:
            for path in visible(folder) if cleared else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in aside.iterdir():
                path.replace(folder / path.name)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
