"""The parameters of a notebook file, read from its tagged cell."""

from pathlib import Path

from cifar_utils.choices import Parameter, parse_parameters
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
