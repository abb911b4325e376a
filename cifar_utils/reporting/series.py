"""A series: runs executed one after another or several at once, independently of one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from cifar_utils.errors import InputError
from cifar_utils.reporting.progress import Show
from cifar_utils.runs.folder import Run, Status


def select(runs: list[Run], only: Sequence[str], tags: Sequence[str]) -> list[Run]:
    """The runs whose name fits one of the globs ``only``, if any, and that have one of ``tags``.

    Raises
    ------
    InputError
        Where no run fits. The message lists the names and tags.

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
        from cifar_utils.reporting.cluster import connected, execute_all

        with connected(jobs, scheduler, len(runs), len(afresh)) as client:
            yield from execute_all(client, afresh, show)
