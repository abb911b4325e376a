"""The progress of a run: a line under the notebook's cell, and events in a file."""

import contextlib
import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from cifar_utils.errors import InputError
from cifar_utils.files import EVENTS, FACTS, made_folder

PATIENCE = 5  # seconds until a progress bar appears


def write_event(output: Path | str | None, event: str, **values) -> None:
    """Append one event, a line of JSON, to a run's ``events.jsonl`` (``None``: nowhere)."""
    if output is None:
        return
    with (made_folder(Path(output)) / EVENTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), "event": event, **values}) + "\n")


def read_events(path: Path, position: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Read a file's events from a byte position on; return them and the next position.

    Only whole lines are read. A missing file has no events. A broken line, which a killed run
    leaves, is skipped.
    """
    try:
        with path.open("rb") as file:
            file.seek(position)
            text = file.read()
    except FileNotFoundError:
        return [], position
    lines = text[: text.rfind(b"\n") + 1]
    events = []
    for line in lines.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events, position + len(lines)


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this code."""
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def display_line(text: str) -> Callable[..., None]:
    """Show a line under the notebook's cell; return the function that replaces its text.

    That function also takes a drawing, as HTML. It stands below the line until the next call.
    Outside of a notebook the line is the last one of the terminal, if there is one.
    """
    from IPython.display import display

    if not in_notebook():
        _write_over(text)
        return _write_over
    handle = display({"text/plain": text}, raw=True, display_id=True)

    def replace(text: str, drawing: str = "") -> None:
        html = {"text/html": f"<p>{escape(text)}</p>{drawing}"} if drawing else {}
        handle.update({"text/plain": text} | html, raw=True)

    return replace


def _write_over(text: str, drawing: str = "") -> None:
    """Replace the terminal's last line, if a terminal shows the standard error."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)


def show_note(output: Path | str | None, text: str) -> None:
    """Tell a fact once: below the notebook's cell, and to other programs by an event."""
    if in_notebook():
        display_line(text)
    else:
        _write_over("")  # a line of progress may stand there
        print(text, file=sys.stderr)
    write_event(output, "note", text=text)


def progress_bar(label: str, total: int | None, **options: Any):
    """A tqdm bar on a terminal, or as a line below a notebook's cell; silent elsewhere.

    It appears after some seconds and disappears at the end. ``options`` are tqdm's.
    """
    from tqdm import tqdm

    class CellBar(tqdm):
        line = None

        def display(self, msg=None, pos=None):
            self.line = self.line or display_line("")
            self.line(str(self) if msg is None else msg)

    options |= {"desc": label, "total": total, "leave": False, "delay": PATIENCE}
    if in_notebook():
        return CellBar(**options, file=io.StringIO())  # hides tqdm's own output
    return tqdm(**options, disable=None)


def is_watched() -> bool:
    """Whether a person runs the current cell, rather than papermill or nbconvert.

    Jupyter allows a cell to ask for input only where a person can answer.
    """
    from IPython import get_ipython

    shell = get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return bool(request.get("content", {}).get("allow_stdin"))


class Phases:
    """The seconds of each phase of a run. A phase writes an event when it begins.

    >>> phase = Phases(None)
    >>> with phase("load"):
    ...     ...
    >>> phase.seconds["load"] < 1
    True
    """

    def __init__(self, output: Path | str | None):
        """Begin no phase yet; an InputError if ``output`` is this folder, seen from elsewhere."""
        here, parts = Path.cwd(), Path(output or "").parts
        inside = parts and here.parts[1:][-len(parts) :] == parts  # an absolute one has the root
        if inside and (here / FACTS).exists():
            raise InputError(
                f"output {str(output)!r} is this folder itself, seen from the project's folder; "
                "start the notebook there, or set output to None"
            )
        self.output = output
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time the block; two blocks of the same name add up."""
        write_event(self.output, "phase", phase=name)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - started
