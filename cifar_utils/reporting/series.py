"""The series: the runs that a file names, and how far each of them has got."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from cifar_utils.errors import InputError
from cifar_utils.reporting.runs import (
    AnotherRunError,
    Outcome,
    Run,
    Status,
    changed_since,
    read_identity,
    run_status,
)

if TYPE_CHECKING:
    from rich.console import Console


def select(runs: list[Run], only: Sequence[str], tags: Sequence[str]) -> list[Run]:
    """The runs whose name fits one of the globs ``only``, if any, and that have one of ``tags``.

    Raises
    ------
    InputError
        Where none does; it names what there is.

    """
    chosen = [
        run
        for run in runs
        if (not only or any(fnmatchcase(run.name, glob) for glob in only))
        and (not tags or set(tags) & set(run.tags))
    ]
    if not chosen:
        asked = [f"--only {glob}" for glob in only] + [f"--tag {tag}" for tag in tags]
        known = sorted({tag for run in runs for tag in run.tags})
        there = f"runs: {', '.join(run.name for run in runs)}; tags: {', '.join(known) or 'none'}"
        raise InputError(f"no run fits {' '.join(asked)}; there are {there}")
    return chosen


@dataclass(frozen=True)
class State:
    """How far a run has got, and why that is said, in words.

    ``refused`` is one whose folder holds something else, or can't be read.
    """

    run: Run
    status: Status | Literal["refused"]
    why: str


def run_state(run: Run) -> State:
    """How far a run has got; unlike a single one, a run of other parameters is stale here.

    So is one that was done on other data than are here now. Where the data can't be read here, they
    are taken to be the same.
    """
    try:
        status = run_status(run)
        if status == "new":
            return State(run, status, "not run yet")
        found = read_identity(run.folder)
    except AnotherRunError as error:
        return State(run, "stale", error.differing)
    except InputError as error:
        status = "stale" if (run.folder / "run.json").exists() else "refused"
        return State(run, status, str(error))
    if status == "unfinished":
        error = found.get("error")
        return State(run, status, f"it failed: {error}" if error else "it was stopped")
    if status == "stale":
        return State(run, status, changed_since(run, found))
    then, now = _recorded_fingerprint(run), _fingerprint_now(run)
    if then and now and then != now:
        return State(run, "stale", f"its data were {then[:12]}…, and are {now[:12]}… now")
    return State(run, status, f"finished on {str(found.get('ended'))[:10]}")


def _recorded_fingerprint(run: Run) -> str | None:
    from cifar_utils.runs.record import read_record

    try:
        return read_record(run.folder).dataset.get("fingerprint")
    except InputError:
        return None


def _fingerprint_now(run: Run) -> str | None:
    """The fingerprint of a run's data as they are here; None where they are not."""
    names = ("dataset", "validation_fraction", "seed", "train_limit", "test_limit", "image_size")
    return _fingerprint(tuple((key, run.parameters[key]) for key in names if key in run.parameters))


@cache  # a series reads the same data for many runs
def _fingerprint(arguments: tuple[tuple[str, Any], ...]) -> str | None:
    from cifar_utils.data import load_dataset

    options = dict(arguments)
    try:
        return load_dataset(options.pop("dataset"), offline=True, **options).fingerprint
    except (InputError, KeyError, OSError):
        return None


def run_series(
    runs: list[Run],
    *,
    force: bool = False,
    jobs: int | None = None,
    scheduler: str | None = None,
    remote: str | None = None,
    console: Console,
) -> Iterator[Outcome]:
    """Execute runs, several at once; give each outcome as it comes.

    Done runs are left alone; one whose notebook, parameters or data have changed since is run
    afresh; one that fails, for whatever reason, costs no other run anything.

    Parameters
    ----------
    runs
        As :func:`read_series` gives them.
    force
        Run all of them afresh.
    jobs
        How many at once; None for one on each GPU, or on each two cores.
    scheduler
        The address of a dask scheduler whose workers, instead of ones of our own, run them.
    remote
        The address of a folder that :mod:`fsspec` knows, where ``runs`` have their folders in
        truth: ``"s3://bucket/reports"``. Theirs here then hold only what was read from there.
    console
        Where progress is shown.

    Raises
    ------
    InputError
        Where the scheduler can't be reached.

    """
    states = [run_state(run) for run in runs]
    todo = []
    for state in states:
        if state.status == "refused":
            yield Outcome(state.run, "failed", state.why)
        elif state.status == "done" and not force:
            yield Outcome(state.run, "done")
        else:
            todo.append(state)
    if todo:
        from cifar_utils.reporting.cluster import Task, connected, run_tasks

        afresh = {state.run.name for state in todo if force or state.status == "stale"}
        tasks = [
            Task(state.run, state.run.notebook.read_text("utf-8"), state.run.name in afresh, remote)
            for state in todo
        ]
        with connected(jobs, scheduler, len(tasks)) as client:
            yield from run_tasks(client, tasks, console)
