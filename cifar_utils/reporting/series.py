"""Executes a series: several runs at once, on this machine or by a dask scheduler."""

import os
import queue
import sys
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing

from cifar_utils.provenance import gpu_names, usable_cores
from cifar_utils.reporting.progress import Show
from cifar_utils.runs.folder import REPLACEABLE, Run, Status


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
        Number of runs at once; None for one for each GPU, or for every two cores. They share the
        cores equally.
    scheduler
        The address of a dask scheduler, whose workers then execute the runs. All of its workers
        must be able to write to the runs' folders.

    Raises
    ------
    InputError
        Where the scheduler can't be reached.

    """
    texts: dict[Run, str] = {}
    afresh = REPLACEABLE if force else {"stale"}
    for run in runs:
        status = run.status()
        if status.word == "refused":
            status = Status("failed", status.why)
        elif force or status.word not in ("done", "running"):
            # The runs execute the notebooks as they are now.
            texts[run] = run.notebook.read_text("utf-8")
            continue
        show(run.name, {"event": "end", "status": status.word})
        yield run, status
    if not texts:
        return
    if scheduler is None:
        cores, gpus = usable_cores(), _gpus()
        jobs = min(jobs or len(gpus) or max(1, len(cores) // 2), len(runs))
        ended = _execute_here(texts, show, afresh, shares(cores, jobs), gpus)
    else:
        from cifar_utils.reporting.cluster import execute_by  # takes seconds

        ended = execute_by(scheduler, texts, show, afresh)
    with closing(ended):
        for run, status in ended:
            show(run.name, {"event": "end", "status": status.word})
            yield run, status


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


def _execute_here(
    texts: Mapping[Run, str],
    show: Show,
    afresh: Collection[str],
    cores: list[list[int]],
    gpus: list[str],
) -> Iterator[tuple[Run, Status]]:
    """Execute runs in threads, each run in a kernel of its own; ``cores`` are those of each job."""
    from cifar_utils.reporting.execute import execute_text  # takes seconds

    series, jobs = uuid.uuid4().hex, len(cores)
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for job in range(jobs):
        free.put(job)
    stopped = threading.Event()

    def execute(run: Run, text: str) -> Status:
        job = free.get()
        if sys.platform == "linux":
            os.sched_setaffinity(0, cores[job])  # of this thread, and so of the kernel it starts
        environment = {"CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} if gpus else {}
        if gpus and jobs > len(gpus):  # TensorFlow and JAX would fill a shared GPU
            environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        try:
            return execute_text(
                run,
                text,
                lambda event: show(run.name, event),
                afresh=afresh,
                series=series,
                wanted=lambda: not stopped.is_set(),
                environment=environment,
            )
        finally:
            free.put(job)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            waiting = {pool.submit(execute, *each): each[0] for each in texts.items()}
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            stopped.set()  # kernels that still run are ended
            pool.shutdown(cancel_futures=True)
