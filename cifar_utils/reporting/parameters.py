"""What a notebook asks and can be told: its parameters, and the options of their choices."""

import inspect
import re
from pathlib import Path

from cifar_utils.choices import (
    REGISTRIES,
    Parameter,
    parse_parameters,
    source_file,
)
from cifar_utils.errors import InputError, known_name
from cifar_utils.runs.folder import read_cells


def read_parameters(notebook: Path | str) -> dict[str, Parameter]:
    """The parameters of a notebook file but for ``output``, by name, in the order of its cell.

    Raises
    ------
    InputError
        Where the file is no notebook, a line of its parameters cell is not typed and commented, or
        it has no ``output``, which every notebook of runs must have.

    """
    tagged = [source for _, source, tags in read_cells(notebook) if "parameters" in tags]
    if not tagged:
        raise InputError(f"{notebook} has no cell tagged 'parameters'; tag the cell that sets them")
    known = parse_parameters(tagged[0], where=str(notebook))
    if known.pop("output", None) is None:
        raise InputError(f"{notebook} has no parameter 'output'; add: output: str = None  # folder")
    return known


def read_question(notebook: Path) -> str:
    """The first question in a notebook's prose, or its first sentence where it asks none."""
    prose = "\n".join(source for kind, source, _ in read_cells(notebook) if kind == "markdown")
    lines = " ".join(line for line in prose.splitlines() if not line.startswith("#"))
    sentences = re.split(r"(?<=[.?!])\s+", lines.replace("*", "").strip())
    return next((sentence for sentence in sentences if sentence.endswith("?")), sentences[0])


def read_options(kind: str, name: str) -> tuple[str, list[tuple[str, str, str, str]]]:
    """What the docstring of a registered function says of it, and its options.

    Returns
    -------
    The docstring's text without markup; and a row for each option: name, type, default, meaning.
    What its own section "Parameters" leaves out is told by others of its module.

    """
    known = REGISTRIES[kind]
    function = known.read(known_name(kind, name, known))
    own, meanings = inspect.getdoc(function), {}
    source = source_file(function.__module__).read_text("utf-8")
    for text in [own, *map(inspect.cleandoc, re.findall(r'"""(.*?)"""', source, re.S))]:
        section = text.partition("\nParameters\n----------\n")[2].partition("\n---")[0]
        for option, meaning in re.findall(r"^(\w+)\n((?: +.+\n?)+)", section, re.M):
            meanings.setdefault(option, " ".join(_plain(meaning).split()))
    rows = []
    for each in [*inspect.signature(function).parameters.values()][known.given :]:
        default = "" if each.default is each.empty else repr(each.default)
        rows.append((each.name, each.annotation, default, meanings.get(each.name, "")))
    return _plain(own.partition("\nParameters\n")[0]).strip(), rows


def _plain(text: str) -> str:
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`|``(.+?)``", r"\1\2", text)
