"""What a notebook can be told: the parameters of its tagged cell, and the options of choices."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

from cifar_utils.choices import Parameter, parse_parameters, source_file
from cifar_utils.errors import InputError


def read_parameters(notebook: Path | str) -> dict[str, Parameter]:
    """The parameters of a notebook file but for ``output``, by name, in the order of its cell.

    Raises
    ------
    InputError
        Where the file is no notebook, a line of its parameters cell is not typed and commented, or
        it has no ``output``, which every notebook of runs must have.

    """
    import nbformat

    try:
        cells = nbformat.read(notebook, as_version=4).cells
        tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    except Exception as error:  # nbformat raises almost anything at what is no notebook
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{notebook} can't be read as a notebook ({reason})") from error
    if not tagged:
        raise InputError(f"{notebook} has no cell tagged 'parameters'; tag the cell that sets them")
    known = parse_parameters(tagged[0], where=str(notebook))
    if known.pop("output", None) is None:
        raise InputError(f"{notebook} has no parameter 'output'; add: output: str = None  # folder")
    return known


def describe(function: Callable) -> tuple[str, dict[str, str]]:
    """The docstring of a registered function without markup, and what its options mean.

    What its own section "Parameters" leaves out is told by others of its module.
    """
    own, meanings = inspect.getdoc(function), {}
    source = source_file(function.__module__).read_text("utf-8")
    for text in [own, *map(inspect.cleandoc, re.findall(r'"""(.*?)"""', source, re.S))]:
        section = text.partition("\nParameters\n----------\n")[2].partition("\n---")[0]
        for name, meaning in re.findall(r"^(\w+)\n((?: +.+\n?)+)", section, re.M):
            meanings.setdefault(name, " ".join(_plain(meaning).split()))
    return _plain(own.partition("\nParameters\n")[0]).strip(), meanings


def _plain(text: str) -> str:
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`|``(.+?)``", r"\1\2", text)
