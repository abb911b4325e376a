"""A notebook's question, its parameters, and the options of their choices."""

import inspect
import json
import re
from pathlib import Path

from cifar_utils.choices import (
    REGISTRIES,
    Parameter,
    describe_option,
    parse_parameters,
    source_file,
)
from cifar_utils.errors import InputError, known_name
from cifar_utils.runs.folder import read_cells


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
    function = known.read(known_name(kind, name, known))
    own, meanings = inspect.getdoc(function), {}
    source = source_file(function.__module__).read_text("utf-8")
    for text in [own, *map(inspect.cleandoc, re.findall(r'"""(.*?)"""', source, re.S))]:
        section = text.partition("\nParameters\n----------\n")[2].partition("\n---")[0]
        for option, meaning in re.findall(r"^(\w+)\n((?: +.+\n?)+)", section, re.M):
            meanings.setdefault(option, " ".join(_plain(meaning).split()))
    rows = []
    options = [*inspect.signature(function).parameters.values()][known.given :]
    names = {each.name: each.name for each in options}
    for each in options:
        default = "" if each.default is each.empty else repr(each.default)
        row = describe_option(each, each.name, names)
        meaning = ": ".join(filter(None, [row.allowed, meanings.get(each.name)]))
        rows.append((each.name, row.type, default, meaning))
    return _plain(own.partition("\nParameters\n")[0]).strip(), rows


def _plain(text: str) -> str:
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`|``(.+?)``", r"\1\2", text)
