"""Finds notebooks, reads their questions and parameters, and plans their runs."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cifar_utils.choices import (
    REGISTRIES,
    Parameter,
    check_parameters,
    describe_option,
    parse_parameters,
    source_file,
)
from cifar_utils.errors import InputError, known_name
from cifar_utils.runs.cells import no_notebook, read_cells
from cifar_utils.runs.folder import Run
from cifar_utils.text import slug

if TYPE_CHECKING:
    from nbformat import NotebookNode


def project_folder() -> Path:
    """The folder that has ``notebooks/``: the current one, or this package's parent."""
    choices = (Path.cwd(), Path(__file__).parents[2])
    return next((path for path in choices if (path / "notebooks").is_dir()), Path.cwd())


def read_notebook(notebook: Path) -> NotebookNode:
    """A notebook as Jupyter reads it; an InputError where it can't."""
    import nbformat  # takes a while

    try:
        nb = nbformat.read(notebook, as_version=4)
        nbformat.validate(nb, relax_add_props=True)
    except Exception as error:  # a bad file may raise nearly anything
        raise no_notebook(notebook, error) from error
    return nb


def list_notebooks() -> dict[str, Path]:
    """The project's notebooks in reading order: name -> file."""
    return {path.stem: path for path in sorted((project_folder() / "notebooks").glob("*.ipynb"))}


def relative_link(path: Path, folder: Path) -> str:
    """The address of a file in a page that lies in a folder."""
    return quote(os.fsencode(Path(os.path.relpath(path, folder)).as_posix()))


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
    if path.name != name:
        raise InputError(
            f"notebook {name} is not there; give a file's path or one of these: {', '.join(known)}"
        )
    ways = (  # the first way that fits any notebook counts
        lambda other: other == stem,
        lambda other: stem in (other.partition("_")[0].lstrip("0"), other.partition("_")[2]),
        lambda other: stem in other,
    )
    found = next(filter(None, (list(filter(way, known)) for way in ways)), [])
    if len(found) > 1:
        raise InputError(f"notebook {name!r} may be {' or '.join(found)}; write more of its name")
    return known[found[0] if found else known_name("unknown notebook", stem, known)]


def read_parameters(notebook: Path | str) -> dict[str, Parameter]:
    """A notebook's parameters without ``output``, by name, in the order of its cell.

    Raises
    ------
    InputError
        Where the file is not a notebook, a line of its parameters cell has no type or no comment,
        or the parameter ``output`` is missing.

    """
    tagged = [source for _, source, tags in read_cells(notebook) if "parameters" in tags]
    if not tagged:
        raise InputError(f"{notebook} has no cell tagged 'parameters'; tag the cell that sets them")
    known = parse_parameters(tagged[0], where=str(notebook))
    if known.pop("output", None) is None:
        raise InputError(f"{notebook} has no parameter 'output'; add: output: str = None  # folder")
    return known


def written(text: str) -> tuple[str, str]:
    """A parameter's text in a notebook's file: as a value, and in papermill's code."""
    code = text.encode("unicode_escape").decode().replace('"', r"\"")
    return tuple(json.dumps(each, ensure_ascii=False)[1:-1] for each in (text, code))


def read_question(notebook: Path) -> str:
    """The first question in a notebook's prose, or its first sentence if it has no question."""
    prose = "\n".join(source for kind, source, _ in read_cells(notebook) if kind == "markdown")
    lines = " ".join(line for line in prose.splitlines() if not line.startswith("#"))
    sentences = re.split(r"(?<=[.?!])\s+", lines.replace("*", "").strip())
    return next((sentence for sentence in sentences if sentence.endswith("?")), sentences[0])


def read_options(kind: str, name: str) -> tuple[str, list[tuple[str, str, str, str]]]:
    """The description of a registered function, and its options.

    Returns
    -------
    The docstring's text without markup; and a row for each option: name, type, default, meaning. A
    meaning begins with the allowed values. If the docstring does not have it, it is taken from
    another docstring of the module.

    """
    known = REGISTRIES[kind]
    function = known.read(known_name(f"unknown {kind}", name, known))
    own, meanings = inspect.getdoc(function), {}
    source = source_file(function.__module__).read_text("utf-8")
    for text in [own, *map(inspect.cleandoc, re.findall(r'"""(.*?)"""', source, re.S))]:
        section = text.partition("\nParameters\n----------\n")[2].partition("\n---")[0]
        for option, meaning in re.findall(r"^(\w+)\n((?: +.+\n?)+)", section, re.M):
            meanings.setdefault(option, " ".join(_plain(meaning).split()))
    rows = []
    options = known.options(name)
    for each in options.values():
        default = "" if each.default is each.empty else repr(each.default)
        row = describe_option(each, each.name, {other: other for other in options})
        meaning = ": ".join(filter(None, [row.allowed, meanings.get(each.name)]))
        rows.append((each.name, row.type, default, meaning))
    return _plain(own.partition("\nParameters\n")[0]).strip(), rows


def _plain(text: str) -> str:
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text).replace("``", "`")


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

    Parameters are written by :func:`slug`, and a folder of pictures by its last name. Where others
    than these differ from the notebook's ``defaults``, or that folder lies in another one, six
    characters of their digest follow, so that each run has a folder of its own.
    """
    named = [str(parameters[key]) for key in ("dataset", "architecture") if parameters.get(key)]
    named = [name.rstrip("/").rpartition("/")[2] for name in named]
    seed = [f"s{parameters['seed']}"] if "seed" in parameters else []
    others = {
        key: value
        for key, value in sorted(parameters.items())
        if key not in ("dataset", "architecture", "seed") and value != defaults[key]
    }
    if "/" in str(parameters.get("dataset")):
        others["dataset"] = parameters["dataset"]
    digest = [hashlib.sha256(json.dumps(others).encode()).hexdigest()[:6]] if others else []
    parts = (slug(part) for part in (notebook.stem, *named, *seed, *digest))
    return project_folder() / "reports" / "-".join(filter(None, parts))
