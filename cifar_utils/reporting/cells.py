"""Makes the cells of an executed notebook ready for a page."""

import base64
import re
from html import escape
from inspect import cleandoc
from pathlib import Path

import nbformat
from nbconvert.filters import strip_ansi
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from cifar_utils.errors import InputError
from cifar_utils.reporting.fragments import Outline, clean, figure_in, markdown_html, note

NEEDS_SCRIPT = re.compile(r"application/(javascript|vnd\..*)")


def ready_cells(notebook: Path) -> tuple[NotebookNode, Outline]:
    """Read a notebook and make its cells ready for a page.

    Each cell has ``tags``. A code cell has ``outputs``, each of which is a stream, an error or has
    ``html``; every other cell has ``html``.

    Raises
    ------
    InputError
        Where the file is not a valid notebook, or no cell has been executed.

    """
    try:
        nb = nbformat.read(notebook, as_version=4)
        nbformat.validate(nb, relax_add_props=True)
    except Exception as error:  # a bad file may raise nearly anything
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{notebook} can't be read as a notebook ({reason})") from error
    if not any(cell.get("execution_count") or cell.get("outputs") for cell in nb.cells):
        raise InputError(f"{notebook} has not been executed; run it: cifar-reports run {notebook}")
    for cell in nb.cells:
        cell.tags = cell.metadata.get("tags", [])
    # Papermill marks an error with additional cells. The page has its own mark.
    nb.cells = [cell for cell in nb.cells if "papermill-error-cell-tag" not in cell.tags]
    outline, folder = Outline(), notebook.parent
    for cell in nb.cells:
        if cell.cell_type == "code":
            CoalesceStreamsPreprocessor().preprocess_cell(cell, {}, 0)
            for output in cell.outputs:
                if output.output_type in ("display_data", "execute_result"):
                    output.html = _displayed(output, folder, outline)
        elif cell.cell_type == "raw":
            cell.html = f'<pre tabindex="0">{escape(cell.source)}</pre>'
        else:
            attached = cell.get("attachments", {})
            cell.html = clean(markdown_html(cell.source), folder, outline, attached=attached)
    return nb, outline


def _displayed(output: NotebookNode, folder: Path, outline: Outline) -> str:
    """The HTML of an output: the form that JupyterLab would show, if a page can show it."""
    data = dict(output.data)
    plain = strip_ansi(data.pop("text/plain", ""))
    if data.get("text/html"):
        return f'<div class="html">{clean(data["text/html"], folder, outline)}</div>'
    for kind in ("text/markdown", "text/latex"):
        if data.get(kind):
            html = markdown_html(cleandoc(data[kind]) if kind == "text/latex" else data[kind])
            return f'<div class="markdown">{clean(html, folder, outline)}</div>'
    pictures = [kind for kind in data if kind.startswith("image/")]
    for kind in sorted(pictures, key="image/svg+xml".__ne__)[:1]:
        content = data[kind]
        if kind == "image/svg+xml":
            content = base64.b64encode(content.encode()).decode()
        alt = output.metadata.get(kind, {}).get("alt") or output.metadata.get("alt", "")
        source = escape(f"data:{kind};base64,{content}")
        figure = f'<figure class="report-figure"><img src="{source}" alt="{escape(alt)}"></figure>'
        return clean(figure, folder, outline, alt=figure_in(outline.section))
    if any(NEEDS_SCRIPT.fullmatch(kind) for kind in data):
        return note("interactive output", "it needs JavaScript")
    if data:
        return note("output", f"a page can't show {', '.join(data)}")
    return f'<pre tabindex="0">{escape(plain)}</pre>' if plain.strip() else ""
