"""A run: one notebook, all of its parameters, and the folder that keeps what comes of it."""

import ast
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cifar_utils.choices import Parameter, check_parameters
from cifar_utils.errors import InputError, known_name
from cifar_utils.files import write_atomically
from cifar_utils.provenance import changed_code
from cifar_utils.reporting.parameters import read_parameters
from cifar_utils.text import slug

Status = Literal["new", "unfinished", "done", "stale"]
IDENTITY = {"notebook": str, "parameters": dict, "notebook_sha256": str}


@dataclass(frozen=True)
class Run:
    """What is to be run, and where.

    Attributes
    ----------
    notebook
        The source notebook's file.
    parameters
        All of its parameters, checked, but for ``output``: a folder that moves holds the same run.
    folder
        Gets ``run.json``, ``notebook.ipynb``, ``report.html`` and what the notebook itself writes
        (``record.json``, ``events.jsonl``, ``checkpoint/``).
    tags
        Words that a series picks its runs by.
    timeout
        Seconds after which one try of it is ended; None for no limit.
    retries
        How often it is tried again where its kernel dies or its time runs out.

    """

    notebook: Path
    parameters: dict[str, Any]
    folder: Path
    tags: tuple[str, ...] = ()
    timeout: float | None = None
    retries: int = 1

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def page(self) -> Path:
        """The exported page."""
        return self.folder / "report.html"

    def identity(self) -> dict[str, Any]:
        """What makes this run another one than the next: the first keys of ``run.json``."""
        cells = read_cells(self.notebook)
        sources = json.dumps([_statements(source) for kind, source in cells if kind == "code"])
        return {
            "notebook": self.notebook.stem,
            "parameters": self.parameters,
            "notebook_sha256": hashlib.sha256(sources.encode()).hexdigest(),
        }


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``"finished"``, ``"failed"`` with a line of why, or ``"done"`` before.

    Attributes
    ----------
    details
        The last lines of the error.
    transient
        Whether the cause lies outside of the notebook, so that another try may well succeed.

    """

    run: Run
    status: Literal["finished", "failed", "done"]
    error: str = ""
    details: tuple[str, ...] = ()
    transient: bool = False


class UnwantedError(Exception):
    """Nobody waits for the run any more; its kernel has been ended and its folder is whole."""


class AnotherRunError(InputError):
    """A folder holds a run of another notebook or of other parameters; ``differing`` says which."""

    def __init__(self, folder: Path, differing: list[str]):
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        self.differing = "; ".join(differing[:3]) + more
        super().__init__(
            f"output folder {folder} holds another run ({self.differing}); "
            "give --output another folder, or --force to replace it"
        )


def read_cells(notebook: Path) -> list[tuple[str, str]]:
    """Kind (``"code"``, ``"markdown"``) and source of each of a notebook's cells.

    Raises
    ------
    InputError
        Where the file is no notebook.

    """
    try:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{notebook} can't be read as a notebook ({error})") from error


def _statements(source: str) -> str:
    """Code without its comments and layout, which change nothing of what a run does."""
    try:
        return ast.unparse(ast.parse(source))
    except SyntaxError:  # a magic command
        return source


def project_folder() -> Path:
    """The folder of ``notebooks/``: the current one, or the one that this package lies in."""
    choices = (Path.cwd(), Path(__file__).parents[2])
    return next((path for path in choices if (path / "notebooks").is_dir()), Path.cwd())


def list_notebooks() -> dict[str, Path]:
    """The project's notebooks in reading order: name -> file."""
    return {path.stem: path for path in sorted((project_folder() / "notebooks").glob("*.ipynb"))}


def find_notebook(name: str) -> Path:
    """A notebook by its path, its name (``"01_vgg_like"``) or the beginning of one (``"01"``).

    Raises
    ------
    InputError
        Where there is none, or several begin so.

    """
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        return path
    if len(path.parts) > 1:
        raise InputError(f"notebook {name!r} is not there; cifar-reports list shows those that are")
    known = list_notebooks()
    stem = name.removesuffix(".ipynb")
    begun = [stem] if stem in known else [other for other in known if other.startswith(stem)]
    if len(begun) > 1:
        raise InputError(f"notebook {name!r} may be {' or '.join(begun)}; write more of its name")
    return known[begun[0] if begun else known_name("notebook", stem, known)]


def plan_run(notebook: Path, given: Mapping[str, Any], folder: Path | None = None) -> Run:
    """Check a run before anything starts.

    Parameters
    ----------
    notebook
        Its source file.
    given
        Parameters to set; text is read as the command line gives it.
    folder
        Where the run goes; None for :func:`default_folder`.

    Raises
    ------
    InputError
        Where the notebook or a parameter is not as it should be.

    """
    known = known_parameters(notebook)
    if "output" in given:
        raise InputError("output is no parameter to give; name the run's folder with --output")
    parameters = check_parameters(known, given)
    return Run(notebook, parameters, folder or default_folder(notebook, parameters))


def known_parameters(notebook: Path) -> dict[str, Parameter]:
    """A notebook's parameters but for ``output``, which every notebook of runs must have.

    Raises
    ------
    InputError
        Where it has none, or the file is no notebook.

    """
    known = read_parameters(notebook)
    if known.pop("output", None) is None:
        raise InputError(f"{notebook} has no parameter 'output'; add: output: str = None  # folder")
    return known


def default_folder(notebook: Path, parameters: Mapping[str, Any]) -> Path:
    """``reports/<notebook>-<dataset>-<architecture>-s<seed>`` in the project.

    Parameters are written as :func:`slug` does.
    """
    named = [str(parameters[key]) for key in ("dataset", "architecture") if parameters.get(key)]
    named = [name.rpartition("/")[2] for name in named]  # a folder's pictures go by its name
    seed = [f"s{parameters['seed']}"] if "seed" in parameters else []
    parts = (slug(part) for part in (notebook.stem, *named, *seed))
    return project_folder() / "reports" / "-".join(filter(None, parts))


def write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    """Write a folder's ``run.json``: :meth:`Run.identity` and, in time, how the run ended."""
    write_atomically(folder / "run.json", json.dumps(identity, indent=1) + "\n")


def read_identity(folder: Path) -> dict[str, Any]:
    """The ``run.json`` of a folder.

    Raises
    ------
    InputError
        Where there is none, or it is broken.

    """
    file = folder / "run.json"
    try:
        content = json.loads(file.read_text("utf-8"))
        return content | {key: kind(content[key]) for key, kind in IDENTITY.items()}
    except FileNotFoundError as error:
        reason = "holds files but no run; give --output a new folder"
        raise InputError(f"output folder {folder} {reason}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is broken ({error!r}); give --output a new folder") from error


def run_status(run: Run) -> Status:
    """How far a run has got, by what lies in its folder.

    Returns
    -------
    str
        ``"new"``; ``"unfinished"`` (it failed or was stopped, and can go on); ``"done"``;
        ``"stale"`` (done, but by other code: :func:`changed_since`).

    Raises
    ------
    InputError
        Where the folder is not one, holds another run, or holds something else.

    """
    folder = run.folder
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output folder {folder} is a file; give --output a folder")
    if not folder.is_dir() or not visible(folder):
        return "new"
    found, wanted = read_identity(folder), run.identity()
    old, new = ({"notebook": each["notebook"]} | each["parameters"] for each in (found, wanted))
    differing = [
        f"{name} is {old.get(name, 'not set')!r}, not {new.get(name, 'not set')!r}"
        for name in {**new, **old}
        if name not in old or name not in new or old[name] != new[name]
    ]
    if differing:
        raise AnotherRunError(folder, differing)
    if found.get("outcome") != "finished" or not (folder / "record.json").exists():
        return "unfinished"
    return "stale" if changed_since(run, found) else "done"


def changed_since(run: Run, identity: Mapping[str, Any]) -> str:
    """What of a finished run's code is another now than it was then, in words; else nothing.

    That is the statements of its notebook, and the code of this package that took part in training
    (:func:`~cifar_utils.provenance.code_of`), as far as its record tells.
    """
    if identity["notebook_sha256"] != run.identity()["notebook_sha256"]:
        return "its notebook has changed"
    try:
        code = json.loads((run.folder / "record.json").read_text("utf-8")).get("code", {})
        changed = changed_code(code)
    except (OSError, ValueError, AttributeError):
        return ""
    return f"the code of {', '.join(changed)} has changed" if changed else ""


@contextmanager
def locked(folder: Path, seconds: float = 0) -> Iterator[int]:
    """Keep other processes from a run's folder.

    Yields the lock, a file descriptor: it holds for all who have it.

    Parameters
    ----------
    seconds
        How long to wait for one who holds it.

    Raises
    ------
    BlockingIOError
        Where another process holds it then.
    FileNotFoundError
        Where there is no such folder.

    """
    import fcntl  # which Windows has not

    lock = os.open(folder, os.O_RDONLY)
    try:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.1)
        yield lock
    finally:
        os.close(lock)


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, but for hidden files."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]
