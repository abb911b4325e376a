"""Execute a notebook in a kernel of its own: papermill drives it, file and kernel are ours."""

import errno
import json
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
from cifar_utils.files import EVENTS, NOTEBOOK, write_atomically
from cifar_utils.reporting import kernel as kernel_lock
from cifar_utils.reporting.parameters import read_parameters
from cifar_utils.runs.folder import Run, Status
from cifar_utils.text import duration

KERNEL_START_SECONDS = 120
POLL_SECONDS = 0.2
DETAIL_LINES = 6
DIED, TIMED_OUT, UNWANTED = "DeadKernelError", "TimeoutError", "unwanted"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
ERRNO = re.compile(r"[Ee]rrno\s*=?\s*(\d+)")  # "[Errno 28]" of Python, "errno = 28" of HDF5
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
log = logging.getLogger("papermill")
log.setLevel(logging.CRITICAL + 1)  # what goes wrong is in the notebook and in what is raised


class Watch:
    """Tells a run's events as they are written; ends its kernel when its time is over.

    In the end ``verdict`` says why the kernel was ended, if it was.

    Parameters
    ----------
    run
        What is executed while the block lasts.
    tell
        Takes the events.
    wanted
        Asked all the time; once it says no, the kernel is ended.

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
        started, last = time.monotonic(), False
        while not last:
            last = self.ended.wait(POLL_SECONDS)  # once more after the end, for what came last
            fresh, self.position = read_events(self.events, self.position)
            for event in fresh:
                self.tell(event)
            if not last:
                self.verdict = self.verdict or self._judge(time.monotonic() - started)
                if self.verdict:
                    self._end_kernel()

    def _judge(self, seconds: float) -> str:
        if not self.wanted():
            return UNWANTED
        if self.run.timeout is not None and seconds > self.run.timeout:
            return f"not done within its timeout of {duration(self.run.timeout)}"
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


def execute_notebook(run: Run, watch: Watch) -> Status:
    """Execute a run's notebook into its folder, up to the first error.

    Returns
    -------
    Status
        ``"finished"`` or ``"failed"``.

    Raises
    ------
    InputError
        Where the notebook raised one.

    """
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
        why = f"{error.ename}: {message}" if message else error.ename
        for number in {int(each) for each in ERRNO.findall(error.evalue)} & FULL:
            why += f"; {os.strerror(number)} (errno {number}); make room; the same command goes on"
        transient = error.ename == DIED or bool(watch.verdict)
        return Status("failed", why, tuple(lines[-DETAIL_LINES:]), transient)
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
        watch: Watch,
        **_: Any,
    ) -> nbformat.NotebookNode:
        """Execute a notebook's cells up to the first error; papermill calls this."""
        book = _Book(nb, run, watch.tell)
        nb.metadata.papermill.update(input_path=run.notebook.name, output_path=NOTEBOOK)
        book.notebook_start()
        with (
            kernel_lock.short_folder() as folder,
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
            Path(folder, "stdio").open("w+b") as stdio,
        ):
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
            # A kernel is ended before it removes its temporary files.
            environment |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), scratch)
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
