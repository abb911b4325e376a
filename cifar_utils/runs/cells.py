"""The cells of a notebook's file."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from cifar_utils.errors import InputError
from cifar_utils.provenance import bare_code


def read_cells(notebook: Path | str) -> list[tuple[str, str, list[str]]]:
    """Kind (``"code"``, ``"markdown"``), source and tags of each of a notebook's cells.

    Raises
    ------
    InputError
        Where the file is not a notebook.

    """
    try:
        return cells_of(Path(notebook).read_text("utf-8"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise no_notebook(notebook, error) from error


def cells_of(text: str) -> list[tuple[str, str, list[str]]]:
    """What :func:`read_cells` returns, from a file's text."""
    return [
        (cell["cell_type"], "".join(cell["source"]), cell.get("metadata", {}).get("tags") or [])
        for cell in json.loads(text)["cells"]
    ]


def code_digest(cells: Iterable[tuple[str, str, list[str]]]) -> str:
    """A digest of the bare code in a result of :func:`read_cells`."""
    sources = json.dumps([bare_code(source) for kind, source, _ in cells if kind == "code"])
    return hashlib.sha256(sources.encode()).hexdigest()


def no_notebook(notebook: Path | str, error: Exception) -> InputError:
    """The error for a file that can't be read as a notebook."""
    reason = error.strerror if isinstance(error, OSError) else str(error).strip()
    reason = reason.partition("\n")[0]
    return InputError(f"{notebook} can't be read as a notebook ({reason})")
