"""Plans a run: a notebook, all of its parameters, and the run's folder."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cifar_utils.choices import check_parameters
from cifar_utils.errors import InputError, known_name
from cifar_utils.reporting.parameters import read_parameters
from cifar_utils.runs.folder import Run
from cifar_utils.text import slug


def project_folder() -> Path:
    """The folder that has ``notebooks/``: the current one, or this package's parent."""
    choices = (Path.cwd(), Path(__file__).parents[2])
    return next((path for path in choices if (path / "notebooks").is_dir()), Path.cwd())


def list_notebooks() -> dict[str, Path]:
    """The project's notebooks in reading order: name -> file."""
    return {path.stem: path for path in sorted((project_folder() / "notebooks").glob("*.ipynb"))}


def relative_link(path: Path, folder: Path) -> str:
    """The address of a file in a page that lies in a folder."""
    return quote(Path(os.path.relpath(path, folder)).as_posix())


def find_notebook(name: str) -> Path:
    """A notebook by its path, its name (``"02_resnet"``), its number or a part of its name.

    Raises
    ------
    InputError
        Where no notebook or more than one fits.

    """
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        return path
    known, stem = list_notebooks(), name.removesuffix(".ipynb")
    ways = (  # the first way that fits any notebook counts
        lambda other: other == stem,
        lambda other: stem in (other.partition("_")[0].lstrip("0"), other.partition("_")[2]),
        lambda other: stem in other,
    )
    found = next(filter(None, (list(filter(way, known)) for way in ways)), [])
    if len(found) > 1:
        raise InputError(f"notebook {name!r} may be {' or '.join(found)}; write more of its name")
    return known[found[0] if found else known_name("notebook", stem, known)]


def plan_run(notebook: Path, given: Mapping[str, Any], folder: Path | None = None) -> Run:
    """Check a run before anything starts.

    Parameters
    ----------
    notebook
        Its source file.
    given
        Parameters to set; text is read as the command line gives it.
    folder
        The run's folder; None for :func:`default_folder`.

    Raises
    ------
    InputError
        Where the notebook or a parameter is wrong.

    """
    if "output" in given:
        raise InputError("output can't be given as a parameter; name the run's folder by --output")
    known = read_parameters(notebook)
    parameters, defaults = check_parameters(known, given), check_parameters(known, {})
    return Run(folder or default_folder(notebook, parameters, defaults), notebook, parameters)


def default_folder(
    notebook: Path, parameters: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Path:
    """``reports/<notebook>-<dataset>-<architecture>-s<seed>`` in the project.

    Parameters are written by :func:`slug`. Where others than these differ from the notebook's
    ``defaults``, six characters of their digest follow, so that each run has a folder of its own.
    """
    named = [str(parameters[key]) for key in ("dataset", "architecture") if parameters.get(key)]
    named = [name.rpartition("/")[2] for name in named]  # a folder of pictures by its name
    seed = [f"s{parameters['seed']}"] if "seed" in parameters else []
    others = {
        key: value
        for key, value in sorted(parameters.items())
        if key not in ("dataset", "architecture", "seed") and value != defaults[key]
    }
    digest = [hashlib.sha256(json.dumps(others).encode()).hexdigest()[:6]] if others else []
    parts = (slug(part) for part in (notebook.stem, *named, *seed, *digest))
    return project_folder() / "reports" / "-".join(filter(None, parts))
