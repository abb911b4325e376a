"""Runs on dask.distributed: workers of our own with this machine shared out, or anybody's."""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
from distributed import (
    CancelledError,
    Client,
    Future,
    LocalCluster,
    Status,
    Worker,
    WorkerPlugin,
    as_completed,
    get_worker,
)
from rich.console import Console

from cifar_utils.errors import InputError
from cifar_utils.reporting.progress import shown_progress
from cifar_utils.reporting.remote import mirrored
from cifar_utils.reporting.runs import Outcome, Run, UnwantedError

CONNECT_SECONDS = 10
SETTINGS = {
    # A worker gets its next run when it has done the last one, not before.
    "distributed.scheduler.worker-saturation": 1.0,
    # dask would hold each library to one thread; ours go by the cores that a worker may use.
    "distributed.nanny.pre-spawn-environ": {},
}


@dataclass(frozen=True)
class Task:
    """A run as it travels to a worker.

    Attributes
    ----------
    source
        The text of the notebook, so that what is run is what the command saw.
    force
        Run it afresh.
    remote
        The address of the folder that the runs' folders are in; None where ``run.folder`` itself is
        one that the worker shares.
    series
        Names the command; events go by it.

    """

    run: Run
    source: str
    force: bool = False
    remote: str | None = None
    series: str = ""


def default_jobs() -> int:
    """Runs at once on this machine: one on each GPU, or else on each two cores."""
    return len(_gpus()) or max(1, len(_cores()) // 2)


def _gpus() -> list[str]:
    """The GPUs that may be used, as ``CUDA_VISIBLE_DEVICES`` names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name not in ("", "-1")]
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    try:
        listed = subprocess.run(
            [command, "-L"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):  # a driver without a device
        return []
    return [str(number) for number in range(len(re.findall(r"^GPU \d", listed, re.MULTILINE)))]


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shares(cores: list[int], jobs: int) -> list[list[int]]:
    """Cores shared out among jobs, as evenly as can be; with more jobs than cores, some share."""
    if jobs >= len(cores):
        return [[cores[job % len(cores)]] for job in range(jobs)]
    cuts = [job * len(cores) // jobs for job in range(jobs + 1)]
    return [cores[start:end] for start, end in itertools.pairwise(cuts)]


class Share(WorkerPlugin):
    """Gives a worker, and with it the kernels that it starts, its cores and its GPU.

    It goes by the worker's name, a number, which one that is started again keeps.
    """

    name = "share"

    def __init__(self, jobs: int):
        self.cores, self.gpus = shares(_cores(), jobs), _gpus()

    def setup(self, worker: Worker) -> None:
        """Dask calls this in the thread that starts the worker's others."""
        number = int(worker.name)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cores[number])
        if self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[number % len(self.gpus)]
            if len(self.cores) > len(self.gpus):  # some share one, which TensorFlow would fill
                os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        # Ctrl-C goes to all processes of a terminal; the command itself sees to its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def connected(jobs: int | None, scheduler: str | None, runs: int) -> Iterator[Client]:
    """A client of the scheduler at an address, or of workers of our own for ``runs`` runs.

    Raises
    ------
    InputError
        Where the scheduler can't be reached.

    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            way_out = "start one: dask scheduler; or leave --scheduler out"
            raise InputError(f"no scheduler can be reached at {scheduler!r}; {way_out}") from error
        with client:
            yield client
        return
    jobs = min(jobs or default_jobs(), runs)
    with dask.config.set(SETTINGS):
        cluster = LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",  # any port of this machine alone
            scheduler_kwargs={"dashboard": False},
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster, set_as_default=False) as client:
            client.register_plugin(Share(jobs))
            yield client


def run_tasks(client: Client, tasks: list[Task], console: Console) -> Iterator[Outcome]:
    """Run tasks on a client's workers, and give their outcomes as they come.

    One with a transient cause of failure is tried again, as its run tells. A run whose worker is
    lost goes to another worker, as often as the scheduler allows.
    """
    series = f"run-{uuid.uuid4().hex[:12]}"
    tasks = [replace(task, series=series) for task in tasks]
    with shown_progress(console, total=len(tasks)) as show:
        client.subscribe_topic(series, lambda message: show(*message[1]))
        # All at once and of one group: so dask keeps in its queue what no worker is free for.
        keys = [(series, number, 0) for number in range(len(tasks))]
        futures = client.map(execute_task, tasks, key=keys, pure=False, retries=0)
        waiting = dict(zip(futures, tasks, strict=True))
        completed = as_completed(waiting, loop=client.loop)
        del futures  # a result that is still wanted would be made again, were its worker lost
        try:
            for future in completed:
                task = waiting.pop(future)
                outcome = _outcome(future, task)
                _, number, tries = future.key
                if outcome.transient and tries < task.run.retries:
                    show(task.run.name, {"event": "retry", "error": outcome.error})
                    key = (series, number, tries + 1)
                    again = client.submit(execute_task, task, key=key, pure=False, retries=0)
                    waiting[again] = task
                    completed.add(again)
                else:
                    show(task.run.name, {"event": "end", "status": outcome.status})
                    yield outcome
        finally:
            # Their workers notice, and end the kernels.
            with suppress(OSError, RuntimeError, CancelledError):  # the scheduler may be gone
                client.cancel(list(waiting), force=True)


def _outcome(future: Future, task: Task) -> Outcome:
    """What has become of a task, whatever that is."""
    if future.status == "finished":
        outcome = future.result()
        if not task.remote and not (task.run.folder / "run.json").exists() and not outcome.error:
            why = f"it ended on another machine, which does not share {task.run.folder}"
            return Outcome(task.run, "failed", f"{why}; give --output a folder that all share")
        return outcome
    if future.status == "error":
        error = future.exception()
        name, text = type(error).__name__, str(error).strip()
        if name == "KilledWorker":
            text = "its worker died, and so did those that it went to then, as when memory runs out"
        return Outcome(task.run, "failed", text.partition("\n")[0] or name)
    return Outcome(task.run, "failed", "the scheduler was lost; the same command goes on")


def execute_task(task: Task) -> Outcome:
    """Execute a run on a worker; dask calls this."""
    from cifar_utils.reporting.execute import (
        execute,  # seconds, which the command need not wait for
    )

    worker = get_worker()
    key = worker.get_current_task()
    name = task.run.name

    def tell(event: Mapping[str, Any]) -> None:
        worker.log_event(task.series, [name, dict(event)])

    def wanted() -> bool:
        """Whether the command still waits: where it has gone, dask has dropped the task."""
        state = worker.state.tasks.get(key)
        running = state is not None and state.state in ("executing", "long-running")
        return running and worker.status == Status.running

    try:
        with tempfile.TemporaryDirectory(
            dir=worker.local_directory, ignore_cleanup_errors=True
        ) as scratch:
            notebook = Path(scratch, task.run.notebook.name)
            notebook.write_text(task.source, "utf-8")
            run = replace(task.run, notebook=notebook)
            mirror = nullcontext()
            if task.remote:
                run = replace(run, folder=Path(scratch, "runs", name))
                mirror = mirrored(run.folder, f"{task.remote}/{name}")
            with mirror:
                outcome = execute(
                    run, force=task.force, series=task.series, tell=tell, wanted=wanted
                )
    except InputError as error:
        outcome = Outcome(task.run, "failed", str(error))
    except UnwantedError:
        outcome = Outcome(task.run, "failed", "nobody waited for it any more")
    except OSError as error:
        outcome = Outcome(task.run, "failed", f"{type(error).__name__}: {error}", transient=True)
    return replace(outcome, run=task.run)
