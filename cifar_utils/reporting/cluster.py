"""Executes a series by dask.distributed: on workers of this machine, or of any scheduler."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import distributed
from distributed import (
    CancelledError,
    Client,
    Future,
    LocalCluster,
    Worker,
    WorkerPlugin,
    as_completed,
    get_worker,
)

from cifar_utils.errors import InputError
from cifar_utils.files import FACTS
from cifar_utils.provenance import gpu_names, usable_cores
from cifar_utils.reporting.kernel import short_folder
from cifar_utils.reporting.progress import Show
from cifar_utils.runs.folder import Run, RunningError, Status

CONNECT_SECONDS = 10
RELEASE_SECONDS = 10
SETTINGS = {
    # A worker gets its next run only when it has finished the last one.
    "distributed.scheduler.worker-saturation": 1.0,
    # dask would limit libraries to one thread; they use all cores that a worker may use.
    "distributed.nanny.pre-spawn-environ": {},
    # It would look at a run's stack a hundred times a second.
    "distributed.worker.profile.enabled": False,
}


def _gpus() -> list[str]:
    """The GPUs that may be used, as ``CUDA_VISIBLE_DEVICES`` names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(number) for number in range(len(gpu_names()))]
    return [name for name in chosen.split(",") if name not in ("", "-1")]


def shares(cores: list[int], jobs: int) -> list[list[int]]:
    """Divide cores among jobs, the same number to each; with more jobs than cores, some share one.

    A resumed run therefore has as many cores as before, on any job.
    """
    each = max(1, len(cores) // jobs)
    return [
        [cores[(job * each + core) % len(cores)] for core in range(each)] for job in range(jobs)
    ]


class Share(WorkerPlugin):
    """Gives a worker, and the kernels that it starts, its cores and its GPU.

    The worker's name, a number, decides which. A restarted worker keeps its name.
    """

    name = "share"

    def __init__(self, jobs: int, scratch: str):
        self.cores, self.gpus, self.scratch = shares(usable_cores(), jobs), _gpus(), scratch

    def setup(self, worker: Worker) -> None:
        """Dask calls this in the thread that starts the worker's other threads."""
        number = int(worker.name)
        if sys.platform == "linux":
            os.sched_setaffinity(0, self.cores[number])
        if self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[number % len(self.gpus)]
            if len(self.cores) > len(self.gpus):  # TensorFlow would fill a shared GPU
                os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        tempfile.tempdir = self.scratch
        # A terminal, or one who stops a whole process group, sends these to all of its processes.
        # The command itself ends its workers.
        for name in {"SIGINT", "SIGHUP", "SIGTERM"} & set(dir(signal)):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def run_series(
    runs: list[Run],
    show: Show,
    *,
    force: bool = False,
    jobs: int | None = None,
    scheduler: str | None = None,
) -> Iterator[tuple[Run, Status]]:
    """Execute runs, several at once; yield each run with its status when it ends.

    Finished runs are skipped. A run whose notebook, parameters, code or data have changed since is
    run afresh. A failed run does not affect the others.

    Parameters
    ----------
    runs
        The runs, from :func:`~cifar_utils.reporting.series_file.read_series`.
    show
        Receives their events: :func:`~cifar_utils.reporting.progress.shown_progress`.
    force
        Whether to run all of them afresh.
    jobs
        Number of runs at once; None for one for each GPU, or for every two cores.
    scheduler
        The address of a dask scheduler, whose workers then execute the runs. All of its workers
        must be able to write to the runs' folders.

    Raises
    ------
    InputError
        Where the scheduler can't be reached.

    """
    afresh: dict[Run, bool] = {}
    for run in runs:
        status = run.status()
        if status.word == "refused":
            status = Status("failed", status.why)
        elif force or status.word not in ("done", "running"):
            afresh[run] = force or status.word in ("stale", "other")
            continue
        show(run.name, {"event": "end", "status": status.word})
        yield run, status
    if afresh:
        with connected(jobs, scheduler, len(runs), len(afresh)) as client:
            yield from _execute_all(client, afresh, show)


@contextmanager
def connected(jobs: int | None, scheduler: str | None, runs: int, left: int) -> Iterator[Client]:
    """A client of the scheduler at an address, or of this machine's own workers.

    No more jobs than ``runs`` share the cores, and no more workers are started than are ``left``.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler is not None:
        if not re.fullmatch(r"(\w+://)?[^/]+:\d+", scheduler):
            raise InputError(f"--scheduler is {scheduler!r}; give an address as tcp://host:8786")
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            way_out = "start one: dask scheduler; or leave --scheduler out"
            raise InputError(f"no scheduler can be reached at {scheduler!r}; {way_out}") from error
        with client:
            yield client
        return
    jobs = min(jobs or len(_gpus()) or max(1, len(usable_cores()) // 2), runs)
    _start_tracker()
    with short_folder() as scratch, dask.config.set({**SETTINGS, "temporary-directory": scratch}):
        cluster = LocalCluster(
            n_workers=min(jobs, left),
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",  # any port, on this machine only
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            client.register_plugin(Share(jobs, scratch))
            yield client


def _start_tracker() -> None:
    """Start multiprocessing's tracker so that the end of a terminal does not end it."""
    if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
        handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        resource_tracker.ensure_running()
        signal.signal(signal.SIGHUP, handler)


def _execute_all(
    client: Client, runs: Mapping[Run, bool], show: Show
) -> Iterator[tuple[Run, Status]]:
    """Execute runs on a client's workers. ``runs`` says of each whether it is run afresh.

    A run whose worker is lost goes to another worker, as often as the scheduler allows.
    """
    series = f"run-{uuid.uuid4().hex[:12]}"
    client.subscribe_topic(series, lambda message: show(*message[1]))
    # The workers get the notebooks' texts, so they run the notebooks that this command read.
    texts = [run.notebook.read_text("utf-8") for run in runs]
    # One group, given at once: dask then queues runs until a worker is free.
    futures = client.map(
        _execute_on_worker,
        [replace(run, folder=run.folder.absolute()) for run in runs],  # a worker is elsewhere
        texts,
        [*runs.values()],
        [series] * len(runs),
        key=[(series, number) for number in range(len(runs))],
        pure=False,
    )
    waiting = dict(zip(futures, runs, strict=True))
    try:
        for future in as_completed(futures, loop=client.loop):
            run, status = waiting.pop(future), _status(future)
            if status.word == "finished" and not (run.folder / FACTS).exists():
                why = f"it ended on another machine, which does not share {run.folder}"
                status = Status("failed", f"{why}; give --output a folder that all share")
            show(run.name, {"event": "end", "status": status.word})
            yield run, status
    finally:
        # The workers notice this and end the kernels. Then wait until the folders are free.
        with suppress(OSError, RuntimeError, CancelledError):  # the scheduler may be gone
            client.cancel(list(waiting), force=True)
        for run in waiting.values():
            with suppress(RunningError, OSError), run.locked(RELEASE_SECONDS):
                pass


def _status(future: Future) -> Status:
    """The status of a run that has ended in any way."""
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        error = future.exception()
        name, text = type(error).__name__, str(error).strip()
        if name == "KilledWorker":
            text = "its worker died, and so did the next ones; memory may have run out"
        return Status("failed", text.partition("\n")[0] or name)
    return Status("failed", "the scheduler was lost; the same command goes on")


def _execute_on_worker(run: Run, source: str, afresh: bool, series: str) -> Status:
    """Execute a run; dask calls this. A run that ends by a transient cause is tried once more.

    ``source`` is the text of its notebook. Events are sent under the name ``series``.
    """
    from cifar_utils.reporting.execute import execute  # takes seconds

    worker: Worker = get_worker()
    key = worker.get_current_task()

    def tell(event: Mapping[str, Any]) -> None:
        worker.log_event(series, [run.name, dict(event)])

    def wanted() -> bool:
        """Whether the command still waits. Dask drops the task of a command that has ended."""
        state = worker.state.tasks.get(key)
        running = state is not None and state.state in ("executing", "long-running")
        return running and worker.status == distributed.Status.running

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        notebook = Path(scratch, run.notebook.name)
        notebook.write_text(source, "utf-8")
        run = replace(run, notebook=notebook)
        for again in (True, False):
            try:
                status = execute(run, tell, force=afresh, series=series, wanted=wanted)
            except InputError as error:
                return Status("failed", str(error))
            if not (status.transient and again):
                break
            tell({"event": "retry", "error": status.why})
    return status
