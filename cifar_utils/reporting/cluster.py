"""Executes runs on the workers of a dask scheduler."""

import logging
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import distributed
from distributed import CancelledError, Client, Future, Worker, as_completed, get_worker

from cifar_utils.errors import InputError
from cifar_utils.reporting.progress import Show
from cifar_utils.runs.folder import Run, RunningError, Status

CONNECT_SECONDS = 10
RELEASE_SECONDS = 10


def execute_by(
    scheduler: str, texts: Mapping[Run, str], show: Show, afresh: Collection[str]
) -> Iterator[tuple[Run, Status]]:
    """Execute runs on the workers of the scheduler at an address; yield each when it ends.

    A run whose worker is lost goes to another worker, as often as the scheduler allows.

    Parameters
    ----------
    scheduler
        Its address, as in ``"tcp://10.0.0.1:8786"``.
    texts
        The text of each run's notebook: a worker may be on another machine.
    show
        Receives their events.
    afresh
        As for :func:`~cifar_utils.reporting.execute.execute`.

    Raises
    ------
    InputError
        Where the scheduler can't be reached.

    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if not re.fullmatch(r"(\w+://)?[^/]+:\d+", scheduler):
        raise InputError(f"--scheduler is {scheduler!r}; give an address as tcp://host:8786")
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        way_out = "start one: dask scheduler; or leave --scheduler out"
        raise InputError(f"no scheduler can be reached at {scheduler!r}; {way_out}") from error
    with client:
        series = f"run-{uuid.uuid4().hex[:12]}"
        client.subscribe_topic(series, lambda message: show(*message[1]))
        runs = [*texts]
        # One group, given at once: dask then queues runs until a worker is free.
        futures = client.map(
            _execute_on_worker,
            [replace(run, folder=run.folder.absolute()) for run in runs],  # a worker is elsewhere
            [*texts.values()],
            afresh=afresh,
            series=series,
            key=[(series, number) for number in range(len(runs))],
            pure=False,
        )
        waiting = dict(zip(futures, runs, strict=True))
        try:
            for future in as_completed(futures, loop=client.loop):
                run, status = waiting.pop(future), _status(future)
                if status.word in ("finished", "done") and not _shared(run, status, series):
                    why = f"it ended on another machine, which does not share {run.folder}"
                    status = Status("failed", f"{why}; give --output a folder that all share")
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


def _shared(run: Run, status: Status, series: str) -> bool:
    """Whether this machine sees the run that ended: a finished one has the series' name."""
    with suppress(InputError):  # the file of another run is broken
        return run.facts.get("series") == series if status.word == "finished" else bool(run.facts)
    return False


def _execute_on_worker(run: Run, text: str, afresh: Collection[str], series: str) -> Status:
    """Execute a run whose notebook has this text; dask calls this.

    Its events are sent under the name ``series``.
    """
    from cifar_utils.reporting.execute import execute_text  # takes seconds

    worker: Worker = get_worker()
    key = worker.get_current_task()

    def tell(event: Mapping[str, Any]) -> None:
        worker.log_event(series, [run.name, dict(event)])

    def wanted() -> bool:
        """Whether the command still waits. Dask drops the task of a command that has ended."""
        state = worker.state.tasks.get(key)
        running = state is not None and state.state in ("executing", "long-running")
        return running and worker.status == distributed.Status.running

    return execute_text(run, text, tell, afresh=afresh, series=series, wanted=wanted)
