"""How a run tells what it is doing: a line under the notebook's cell, and events in a file."""

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from cifar_utils.files import EVENTS
from cifar_utils.text import duration

PATIENCE = 5  # seconds without a progress bar


def write_event(output: Path | str | None, event: str, **values) -> None:
    """Append one event, a line of JSON, to a run's ``events.jsonl`` (``None``: nowhere)."""
    if output is None:
        return
    Path(output).mkdir(parents=True, exist_ok=True)
    with (Path(output) / EVENTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), "event": event, **values}) + "\n")


def read_events(path: Path, position: int = 0) -> tuple[list[dict[str, Any]], int]:
    """The events in whole lines of a file from a byte position on, and the position to go on from.

    A file that is not there yet has none; a broken line (the end of a killed run) is passed over.
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
    """Whether a kernel runs this code, for a notebook."""
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


def display_line(text: str) -> Callable[..., None]:
    """Show a line under the notebook's cell; return the function that replaces its text.

    That function takes a drawing too, as HTML, to show below the line for as long as no other call
    replaces it. Outside of a notebook nothing is shown.
    """
    from IPython.display import display

    if not in_notebook():
        return lambda text, drawing="": None
    handle = display({"text/plain": text}, raw=True, display_id=True)

    def replace(text: str, drawing: str = "") -> None:
        html = {"text/html": f"<p>{escape(text)}</p>{drawing}"} if drawing else {}
        handle.update({"text/plain": text} | html, raw=True)

    return replace


def progress_bar(label: str, total: int | None, **options: Any):
    """A tqdm bar on a terminal, or as a line below a notebook's cell; silent elsewhere.

    It shows after some seconds, and is gone in the end. ``options`` are tqdm's.
    """
    from tqdm import tqdm

    class CellBar(tqdm):
        line = None

        def display(self, msg=None, pos=None):
            self.line = self.line or display_line("")
            self.line(str(self) if msg is None else msg)

    options |= {"desc": label, "total": total, "leave": False, "delay": PATIENCE}
    if in_notebook():
        return CellBar(**options, file=io.StringIO())  # what tqdm itself would write is not shown
    return tqdm(**options, disable=None)


def is_watched() -> bool:
    """Whether a person sent the cell that runs: who does can answer it, so it may ask for input.

    The cells that papermill and nbconvert send may not, as nobody looks on.
    """
    from IPython import get_ipython

    shell = get_ipython()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return bool(request.get("content", {}).get("allow_stdin"))


class Phases:
    """Seconds by phase of a run; each phase is announced as it begins.

    >>> phase = Phases(None)
    >>> with phase("load"):
    ...     ...
    >>> phase.seconds["load"] < 1
    True
    """

    def __init__(self, output: Path | str | None):
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

    def __repr__(self) -> str:
        spent = [f"{name} {duration(seconds)}" for name, seconds in self.seconds.items()]
        return ", ".join(spent) or "no phase yet"
