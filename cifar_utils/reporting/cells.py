"""The cells of an executed notebook, made ready for a page, whatever the notebook holds."""

import base64
import json
import re
from html import escape
from inspect import cleandoc
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode

from cifar_utils.errors import InputError
from cifar_utils.reporting.fragments import Outline, clean, figure_in, markdown_html, note

NEEDS_SCRIPT = re.compile(r"application/(javascript|vnd\..*)")


def read_cells(notebook: Path) -> tuple[NotebookNode, Outline]:
    """Read a notebook and make its cells ready for a page.

    Each cell has ``source`` and ``tags``. A code cell has ``outputs``, each of which is a stream,
    an error or has ``html``; every other cell has ``html``. Whatever is of another type than the
    notebook format asks for is taken as absent.

    Raises
    ------
    InputError
        Where the file is no notebook, or none of its cells has been executed.

    """
    try:
        content = json.loads(notebook.read_bytes())
        content = json.loads(without_surrogates(json.dumps(content, ensure_ascii=False)))
        if mapping(content).get("nbformat") != 4:
            content = nbformat.reads(json.dumps(content), as_version=4)
        cells = [mapping(cell) for cell in content["cells"]]
    except Exception as error:  # each way of being no notebook raises another one
        reason = str(error).partition("\n")[0]
        raise InputError(f"{notebook} can't be read as a notebook ({reason})") from error
    if not any(cell.get("execution_count") or cell.get("outputs") for cell in cells):
        raise InputError(f"{notebook} has not been executed; run it: cifar-reports run {notebook}")
    outline, shown = Outline(), []
    for cell in cells:
        # Papermill marks an error with cells of its own; the page does it in its own way.
        if "papermill-error-cell-tag" not in _tags(cell):
            shown.append(_ready(cell, notebook.parent, outline))
    whole = {"nbformat": 4, "nbformat_minor": 4, "metadata": mapping(content.get("metadata"))}
    return nbformat.from_dict(whole | {"cells": shown}), outline


def without_surrogates(text: str) -> str:
    """A text that UTF-8 can hold: halves of characters, as broken output has them, become �."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def mapping(value: Any) -> dict[str, Any]:
    """A value that should be a JSON object; an empty one where it is not."""
    return value if isinstance(value, dict) else {}


def text_of(value: Any) -> str:
    """A text, or lines of it, as the notebook format has them; empty where it is neither."""
    if isinstance(value, list):
        return "".join(line for line in value if isinstance(line, str))
    return value if isinstance(value, str) else ""


def _tags(cell: dict[str, Any]) -> list[Any]:
    tags = mapping(cell.get("metadata")).get("tags")
    return tags if isinstance(tags, list) else []


def _ready(cell: dict[str, Any], folder: Path, outline: Outline) -> dict[str, Any]:
    """One cell, each part of the type that a page expects."""
    kind, source = cell.get("cell_type"), text_of(cell.get("source"))
    ready = {"cell_type": kind, "source": source, "tags": _tags(cell)}
    if kind == "code":
        outputs = cell.get("outputs")
        outputs = _coalesced(outputs if isinstance(outputs, list) else [])
        shown = [_ready_output(output, folder, outline) for output in outputs]
        return ready | {"outputs": shown, "execution_count": cell.get("execution_count")}
    if kind == "raw":
        return ready | {"html": f'<pre tabindex="0">{escape(source)}</pre>'}
    if kind != "markdown":
        return ready | {"html": note("cell", "its type is unknown")}
    try:
        attached = mapping(cell.get("attachments"))
        html = clean(markdown_html(source), folder, outline, attached=attached)
    except Exception as error:  # several libraries read any text; one cell never costs the page
        reason = f"it can't be read ({type(error).__name__})"
        html = f'<pre tabindex="0">{escape(source)}</pre>{note("formatted text", reason)}'
    return ready | {"html": html}


def _coalesced(outputs: list[Any]) -> list[dict[str, Any]]:
    """Outputs, adjacent streams of one name made one, with their control characters applied."""
    done = []
    for output in map(mapping, outputs):
        if output.get("output_type") == "stream":
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            text = text_of(output.get("text"))
            output = {"output_type": "stream", "name": name, "text": text}
            if done and done[-1].get("output_type") == "stream" and done[-1]["name"] == name:
                output["text"] = done.pop()["text"] + text
        done.append(output)
    for output in done:
        if output.get("output_type") == "stream":
            lines = strip_ansi(output["text"]).replace("\r\n", "\n").split("\n")
            output["text"] = "\n".join(map(_typed, lines))
    return done


def _typed(line: str) -> str:
    r"""A line as a terminal shows it: ``\r`` goes to its start, ``\b`` one place back."""
    if "\r" not in line and "\b" not in line:
        return line
    shown, place = [], 0
    for piece in re.split("([\r\b])", line):
        if piece in ("\r", "\b"):
            place = max(place - 1, 0) if piece == "\b" else 0
        else:
            shown[place : place + len(piece)] = piece
            place += len(piece)
    return "".join(shown).rstrip()


def _ready_output(output: dict[str, Any], folder: Path, outline: Outline) -> dict[str, Any]:
    kind = output.get("output_type")
    if kind == "stream":
        return output
    if kind == "error":
        lines = output.get("traceback")
        lines = lines if isinstance(lines, list) else []
        error = {key: strip_ansi(text_of(output.get(key))) for key in ("ename", "evalue")}
        trace = strip_ansi("\n".join(line for line in lines if isinstance(line, str)))
        return {"output_type": kind, "traceback": trace} | error
    try:
        html = _displayed(output, folder, outline)
    except Exception as error:  # several libraries read any markup; no output costs the page
        html = note("output", f"it can't be shown ({type(error).__name__})")
    return {"output_type": "display_data", "html": html}


def _displayed(output: dict[str, Any], folder: Path, outline: Outline) -> str:
    """The HTML of the best form of an output: the one that JupyterLab would show, if a page can."""
    if not isinstance(output.get("data"), dict):
        return note("output", "its type is unknown")
    data = {kind: text_of(value) for kind, value in output["data"].items()}
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
        metadata = mapping(output.get("metadata"))
        alt = text_of(mapping(metadata.get(kind)).get("alt")) or text_of(metadata.get("alt"))
        source = escape(f"data:{kind};base64,{content}")
        figure = f'<figure class="report-figure"><img src="{source}" alt="{escape(alt)}"></figure>'
        return clean(figure, folder, outline, alt=figure_in(outline.section, plain))
    if any(NEEDS_SCRIPT.fullmatch(kind) for kind in data):
        return note("interactive output", "it needs JavaScript")
    if data:
        return note("output", f"a page can't show {', '.join(data)}")
    return f'<pre tabindex="0">{escape(plain)}</pre>' if plain.strip() else ""
