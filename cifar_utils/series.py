"""The series: the runs that a file names, executed one after another unless they are done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cifar_utils.parameters import InputError, known_name
from cifar_utils.reports.runs import Run, find_notebook, plan_run, run_status

if TYPE_CHECKING:
    from rich.console import Console

    from cifar_utils.reports.execute import Outcome

FIELDS = {"name": str, "notebook": str, "parameters": dict}


def read_series(file: Path, profile: str, folder: Path) -> list[Run]:
    """Read the runs of a profile and check them all.

    Parameters
    ----------
    file
        YAML: ``profiles`` maps names to lists of runs, each with ``name``, ``notebook`` and, where
        they differ from the notebook's own, ``parameters``.
    profile
        Which of the lists.
    folder
        Each run goes to its name below it.

    Raises
    ------
    InputError
        Where the file is not as it should be: one line for each mistake in the profile.

    """
    try:
        content = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{file} can't be read ({error.strerror}); name a series file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no YAML ({' '.join(str(error).split())})") from error
    profiles = content.get("profiles") if isinstance(content, dict) else None
    if not isinstance(profiles, dict):
        raise InputError(f"{file} has no 'profiles', which map names to lists of runs")
    rows = profiles[known_name("profile", profile, [str(name) for name in profiles])]
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{file}: profile {profile!r} is not a list of runs")
    runs: dict[str, Run] = {}
    mistakes = []
    for number, row in enumerate(rows, 1):
        try:
            run = _read_run(row, folder)
            if run.name in runs:
                raise InputError(f"name {run.name!r} is another run's already; give each its own")
            runs[run.name] = run
        except InputError as error:
            mistakes.append(f"{file}, profile {profile!r}, run {number}: {error}")
    if mistakes:
        raise InputError("\n".join(mistakes))
    return list(runs.values())


def _read_run(row: Any, folder: Path) -> Run:
    if not isinstance(row, dict):
        raise InputError(f"{row!r} is not a run; it takes {', '.join(FIELDS)}")
    for key, value in row.items():
        kind = FIELDS[known_name("key", str(key), FIELDS)]
        if not isinstance(value, kind):
            wanted = "a mapping" if kind is dict else "text"
            raise InputError(f"{key} is {value!r}; it must be {wanted}")
    for key in ("name", "notebook"):
        if not row.get(key):
            raise InputError(f"it has no {key}; a run takes {', '.join(FIELDS)}")
    if Path(row["name"]).name != row["name"] or row["name"].startswith("."):
        raise InputError(f"name {row['name']!r} names no folder; leave out slashes and first dots")
    given = {str(key): value for key, value in row.get("parameters", {}).items()}
    return plan_run(find_notebook(row["notebook"]), given, folder / row["name"])


def run_series(runs: list[Run], *, force: bool = False, console: Console) -> Iterator[Outcome]:
    """Execute runs in order: done ones are left alone, and one that fails stops no other.

    A run whose notebook or parameters have changed since it was done is run afresh. One that an
    InputError ends has failed like any other here.

    Parameters
    ----------
    runs
        As :func:`read_series` gives them.
    force
        Run all of them afresh.
    console
        Where progress is shown.

    """
    from cifar_utils.reports.execute import Outcome, execute

    for run in runs:
        try:
            yield execute(run, force=force or _holds_another(run), console=console)
        except InputError as error:
            yield Outcome(run, "failed", str(error))


def _holds_another(run: Run) -> bool:
    """Whether a run's folder holds one of other parameters: the series has changed since."""
    try:
        run_status(run)
    except InputError:
        return (run.folder / "run.json").exists()
    return False
