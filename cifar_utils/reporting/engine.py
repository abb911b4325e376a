"""Execute a notebook in its own kernel, by papermill with an engine of this project."""

import logging
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
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

from cifar_utils.data.folder import PREFIX
from cifar_utils.errors import InputError
from cifar_utils.events import read_events
from cifar_utils.files import EVENTS, NO_ROOM, NOTEBOOK, write_atomically
from cifar_utils.reporting import kernel as kernel_lock
from cifar_utils.reporting.notebooks import read_notebook, read_parameters, written
from cifar_utils.runs.folder import Run, Status
from cifar_utils.text import duration

KERNEL_START_SECONDS = 120
POLL_SECONDS = 0.2
DETAIL_LINES = 6
SOCKETS = "/tmp" if os.access("/tmp", os.W_OK) else None
DIED, TIMED_OUT = "DeadKernelError", "TimeoutError"
UNWANTED = "the command that wanted it has ended"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
ERRNO = re.compile(r"[Ee]rrno\s*=?\s*(\d+)")  # "[Errno 28]" of Python, "errno = 28" of HDF5
log = logging.getLogger("papermill")
log.setLevel(logging.CRITICAL + 1)  # errors are in the notebook and raised, too


class Watch:
    """Passes a run's events on as they are written; ends its kernel after its timeout.

    ``verdict`` says at the end why the kernel was ended, if it was.

    Parameters
    ----------
    run
        The run that is executed while the block lasts.
    tell
        Receives the events.
    wanted
        Called again and again. When it returns False, the kernel is ended.

    """

    def __init__(
        self, run: Run, tell: Callable[[Mapping[str, Any]], None], wanted: Callable[[], bool]
    ):
        self.run, self.tell, self.wanted = run, tell, wanted
        self.kernel: AsyncKernelManager | None = None
        self.verdict = ""
        self.events = run.folder / EVENTS
        self.position = self.events.stat().st_size if self.events.exists() else 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _follow(self) -> None:
        started = time.monotonic()
        while True:
            last = self.ended.wait(POLL_SECONDS)  # once more after the end, for the last events
            with suppress(OSError):  # a shared disk may fail for a moment
                fresh, self.position = read_events(self.events, self.position)
                for event in fresh:
                    # A reader's notebook may write other events; the watch goes on.
                    with suppress(LookupError, TypeError, ValueError, OverflowError):
                        self.tell(event)
            if last:
                return
            timeout = self.run.timeout
            if not self.wanted():
                self.verdict = self.verdict or UNWANTED
            elif timeout is not None and time.monotonic() - started > timeout:
                self.verdict = f"not done within its timeout of {duration(timeout)}"
            if self.verdict:
                self._end_kernel()

    def _end_kernel(self) -> None:
        process = getattr(self.kernel and self.kernel.provisioner, "process", None)
        with suppress(psutil.NoSuchProcess):
            if process is not None and process.poll() is None:
                kernel = psutil.Process(process.pid)
                # Children first: after the end of their parent they can't be found.
                for each in (*kernel.children(recursive=True), kernel):
                    with suppress(psutil.NoSuchProcess):
                        each.kill()


def execute_notebook(run: Run, watch: Watch, environment: Mapping[str, str]) -> Status:
    """Execute a run's notebook into its folder, up to the first error.

    Parameters
    ----------
    run
        The run; its folder exists.
    watch
        Follows its events, and may end its kernel.
    environment
        Variables for the kernel, in addition to those of this process.

    Returns
    -------
    Status
        ``"finished"`` or ``"failed"``.

    Raises
    ------
    InputError
        Where the notebook raised an InputError.

    """
    read_notebook(run.notebook)  # before papermill, whose errors would not say what is wrong
    known = read_parameters(run.notebook)
    given = {key: value for key, value in run.parameters.items() if value != known[key].default}
    folder = run.folder.absolute()
    # Relative if possible: a published notebook should not name a home folder.
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
            environment=environment,
        )
    except PapermillExecutionError as error:
        message = (error.evalue.strip().splitlines() or [""])[0]
        if error.ename == "InputError":
            raise InputError(message) from error
        text = ANSI.sub("", "\n".join(error.traceback))
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        why = f"{error.ename}: {message}" if message else error.ename
        for number in {int(each) for each in ERRNO.findall(error.evalue)} & NO_ROOM:
            why += f"; {os.strerror(number)} (errno {number}); make room; the same command goes on"
        # An error that shows itself in one line has no more details than this line.
        details = () if lines == [why] else tuple(lines[-DETAIL_LINES:])
        return Status("failed", why, details, error.ename == DIED or bool(watch.verdict))
    return Status("finished")


class WholeFilesEngine(Engine):
    """An engine for papermill: a kernel of the running interpreter, the notebook saved atomically.

    Papermill's own engine uses the kernel installed as ``python3``, and overwrites the file.
    """

    NAME = "cifar-reports"

    @classmethod
    def execute_notebook(
        cls,
        nb: nbformat.NotebookNode,
        kernel_name: str,
        *,
        run: Run,
        watch: Watch,
        environment: Mapping[str, str],
        **_: Any,
    ) -> nbformat.NotebookNode:
        """Execute a notebook's cells up to the first error; papermill calls this."""
        book = _Book(nb, run, watch.tell)
        nb.metadata.papermill.update(input_path=run.notebook.name, output_path=NOTEBOOK)
        book.notebook_start()
        with (
            # A socket's path may have 107 bytes, and TMPDIR may be long.
            tempfile.TemporaryDirectory(dir=SOCKETS, ignore_cleanup_errors=True) as folder,
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
            Path(folder, "stdio").open("w+b") as stdio,
        ):
            kernel = AsyncKernelManager(
                kernel_name=kernel_name,
                # Without folders to search, the kernel is this interpreter's.
                kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
                connection_file=str(Path(folder, "kernel.json")),
                # Files instead of ports: runs need no network and don't collide.
                transport="tcp" if os.name == "nt" else "ipc",
            )
            watch.kernel = kernel
            client = PapermillNotebookClient(
                book,
                km=kernel,
                log=log,
                timeout=None,
                startup_timeout=KERNEL_START_SECONDS,
                iopub_timeout=KERNEL_START_SECONDS,  # saving the notebook on a slow disk delays it
                shutdown_kernel="immediate",
                coalesce_streams=True,
                # The kernel locks the folder, too. If this process is killed, no other process gets
                # the folder before the kernel has ended.
                extra_arguments=[f"--ext={kernel_lock.__name__}"],
            )
            variables = os.environ | environment
            variables[kernel_lock.VARIABLE] = str(run.folder.absolute())
            # An ended kernel does not remove its temporary files.
            variables |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), scratch)
            try:
                client.execute(cleanup_kc=True, stdout=stdio, stderr=stdio, env=variables)
            except (DeadKernelError, RuntimeError):  # RuntimeError: it never answered
                stdio.seek(0)
                book.kernel_died(stdio.read().decode("utf-8", "replace"), watch.verdict)
            finally:
                book.notebook_complete()
        return book.nb


papermill_engines.register(WholeFilesEngine.NAME, WholeFilesEngine)


class _Book(NotebookExecutionManager):
    """Papermill's bookkeeping of cells, saved atomically."""

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
        """Show the end of the kernel as an error of its last cell."""
        error = nbformat.v4.new_output(
            "error",
            ename=TIMED_OUT if verdict else DIED,
            evalue=verdict or "the kernel died; perhaps memory ran out, or it was killed",
            traceback=last_words.strip().splitlines()[-30:],
        )
        self.current.outputs.append(error)
        self.cell_exception(self.current)


def _without_path(text: str, dataset: str) -> str:
    """A notebook's JSON in which a name replaces the path of a folder of pictures."""
    path = dataset.removeprefix(PREFIX)
    if path in (dataset, ""):
        return text
    name = PREFIX + Path(path).expanduser().resolve().name
    for old, new in zip(written(dataset), written(name), strict=True):
        text = text.replace(old, new)
    return text
