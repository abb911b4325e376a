"""Execute a run, and keep its folder in order."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jupyter_core.utils import ensure_event_loop

from cifar_utils.errors import InputError
from cifar_utils.files import CHECKPOINTS, FACTS, NO_ROOM, NOTEBOOK, PAGE, PART, RECORD, RUN_FILES
from cifar_utils.reporting.engine import UNWANTED, Watch, execute_notebook
from cifar_utils.reporting.export import export_page
from cifar_utils.runs.folder import BEFORE, Run, RunningError, Status

LOCK_SECONDS = 5


def execute(
    run: Run,
    tell: Callable[[Mapping[str, Any]], None],
    *,
    afresh: Collection[str] = (),
    series: str = "",
    wanted: Callable[[], bool] = lambda: True,
    environment: Mapping[str, str] | None = None,
) -> Status:
    """Execute a run and export its page. An interrupted run goes on; a finished one stays as it is.

    A notebook that fails leaves its executed part and a page that shows the error at its cell. If
    it fails before its first checkpoint, a finished run that it would have replaced is restored.

    Parameters
    ----------
    run
        The run, from :func:`~cifar_utils.reporting.notebooks.plan_run`.
    tell
        Receives the run's events, and the additional ones that
        :func:`~cifar_utils.reporting.progress.shown_progress` describes.
    afresh
        The statuses at which the folder's run is replaced by a new one: ``REPLACEABLE`` of them, or
        ``"stale"`` alone, for example. A run of the same ``series`` in the folder is not replaced.
    series
        A name for the command to which the run belongs, kept in its ``run.json``.
    wanted
        Called again and again, from another thread. When it returns False, the kernel is ended, and
        the folder is as after Ctrl-C.
    environment
        Variables for the kernel, in addition to those of this process.

    Returns
    -------
    Status
        ``"finished"``, ``"failed"``, ``"done"`` (before) or ``"running"`` (in another process).

    Raises
    ------
    InputError
        Where the folder holds something else, or this run of older code or data; where it can't be
        written; or where the notebook itself raised one. The folder is then as it was before this
        call, except that a new run keeps its checkpoints.
    KeyboardInterrupt
        At Ctrl-C. The kernel has ended, all files are complete, and the same call goes on.

    """
    try:
        if _checked(run, afresh, series).word == "done":
            if not run.page.exists():
                export_page(run.folder / NOTEBOOK, run.page)
            return Status("done")
        with _held(run):
            status = _checked(run, afresh, series, held=True)
            if status.word == "done":  # another process finished it, perhaps without its page
                export_page(run.folder / NOTEBOOK, run.page)
                return status
            tell({"event": "start"})
            try:
                with _restored(run.folder, afresh=status.word == "stale"):
                    status = _execute(run, series, Watch(run, tell, wanted), environment or {})
                    if status.word == "failed":
                        raise _FailedError
            except _FailedError:
                if _is_finished(run.folder):
                    return status._replace(why=f"{status.why}; the earlier run is kept")
            # A page that can't be written, or a stop here, does not undo the run.
            try:
                export_page(run.folder / NOTEBOOK, run.page)
            except InputError as error:
                tell({"event": "note", "text": str(error)})
            return status
    except RunningError as error:
        return Status("running", str(error))
    except _UnwantedError as error:
        return Status("failed", str(error))
    except OSError as error:
        way_out = "correct that, or give --output another folder"
        if error.errno in NO_ROOM:
            way_out = "make room; the same command goes on"
        reason = f"{error.filename or run.folder}: {error.strerror} (errno {error.errno})"
        raise InputError(
            f"output folder {run.folder} can't be written ({reason}); {way_out}"
        ) from error


def execute_text(
    run: Run, text: str, tell: Callable[[Mapping[str, Any]], None], **options: Any
) -> Status:
    """Execute a run of a series, whose notebook has this text. An error becomes its status.

    A run that ends by a transient cause is tried once more. The thread must not have an event loop
    of its own.

    Parameters
    ----------
    run, tell, options
        As for :func:`execute`.
    text
        JSON. The notebook's file may have changed since the series began, or be on another machine.

    """
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            notebook = Path(scratch, run.notebook.name)
            notebook.write_text(text, "utf-8")
            run = replace(run, notebook=notebook)
            status = execute(run, tell, **options)
            if status.transient:
                tell({"event": "retry", "error": status.why})
                status = execute(run, tell, **options)
            return status
    except InputError as error:
        return Status("failed", str(error))
    except Exception as error:  # a failed run does not affect the others
        reason = str(error).strip().partition("\n")[0]
        return Status("failed", f"{type(error).__name__}: {reason}")
    finally:
        ensure_event_loop().close()  # jupyter_client's in this thread; nothing else closes it


def _checked(run: Run, afresh: Collection[str], series: str, held: bool = False) -> Status:
    """The status of a run that may be executed: ``"stale"`` if it is to be run afresh."""
    status = run.status(held=held)
    if status.word == "refused":
        raise InputError(status.why)
    if status.word in afresh:
        with suppress(InputError):  # a broken run.json
            if series and run.facts.get("series") == series:
                return status
        return Status("stale")
    way_out = "give --output another folder, or --force to replace it"
    if status.word == "stale":
        raise InputError(
            f"output folder {run.folder} holds a run that differs: {status.why}; {way_out}"
        )
    return status


class _FailedError(Exception):
    """A run has failed, and may have replaced a finished one."""


class _UnwantedError(Exception):
    """The command that wanted a run has ended, and the run with it."""


def _execute(run: Run, series: str, watch: Watch, environment: Mapping[str, str]) -> Status:
    facts = run.identity() | {"started": _now()} | ({"series": series} if series else {})
    run.write_facts(facts)
    with watch:
        status = execute_notebook(run, watch, environment)
    if watch.verdict == UNWANTED:
        raise _UnwantedError(UNWANTED)
    if status.word == "finished" and not (found := Run(run.folder)).record:
        missing = "the notebook ended without writing a record"
        status = Status("failed", found.error if (run.folder / RECORD).exists() else missing)
    run.write_facts(facts | {"ended": _now(), "outcome": status.word, "error": status.why})
    return status


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _held(run: Run) -> Iterator[None]:
    """Make and lock a run's folder; remove it at the end if it is empty."""
    made = [path for path in (run.folder, *run.folder.parents) if not path.exists()]
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        # A kernel whose process was killed ends within about a second.
        with run.locked(LOCK_SECONDS):
            for path in run.leftovers:
                if path.is_dir():
                    shutil.rmtree(path)
                elif PART in path.suffixes:
                    path.unlink(missing_ok=True)
            yield
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _is_finished(folder: Path) -> bool:
    with suppress(InputError):  # a broken run.json
        return Run(folder).facts.get("outcome") == "finished"
    return False


@contextmanager
def _restored(folder: Path, afresh: bool) -> Iterator[None]:
    """Clear a run's files for a run ``afresh``; restore them if the run ends in bad input.

    Also restore them if it is stopped before its first checkpoint, and a finished run if the new
    one fails before that. Other files in the folder stay as they are. What a new run has trained
    stays, too.
    """
    aside = folder / BEFORE
    cleared = False

    def own() -> list[Path]:
        return [folder / name for name in RUN_FILES if os.path.lexists(folder / name)]

    try:
        aside.mkdir()
        for path in own():
            if afresh:
                path.replace(aside / path.name)
            elif path.name in (FACTS, NOTEBOOK, PAGE):
                shutil.copy2(path, aside)
        cleared = not own()
        yield
    except BaseException as error:
        # Hours of training are not thrown away: the same command goes on, once it can.
        trained = any(path.is_file() for name in CHECKPOINTS for path in (folder / name).rglob("*"))
        new = cleared and not [*aside.glob("*")]
        if isinstance(error, InputError):
            can_go_on = trained and new
        elif isinstance(error, OSError):
            can_go_on = trained
        elif isinstance(error, _FailedError) and not _is_finished(aside):
            can_go_on = True  # its page shows the error, which is of more use than an older one
        else:
            can_go_on = trained or not afresh
        if aside.is_dir() and not can_go_on:
            for path in own() if cleared else []:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in aside.iterdir():
                path.replace(folder / path.name)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
