"""How a run tells what it is doing: a line under the notebook's cell, and events in a file."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def write_event(output: Path | str | None, event: str, **values) -> None:
    """Append one event, a line of JSON, to a run's ``events.jsonl`` (``None``: nowhere)."""
    if output is None:
        return
    Path(output).mkdir(parents=True, exist_ok=True)
    with (Path(output) / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), "event": event, **values}) + "\n")


def display_line(text: str) -> Callable[[str], None]:
    """Show a line under the notebook's cell; return the function that replaces its text.

    Outside of a notebook nothing is shown.
    """
    from IPython import get_ipython
    from IPython.display import display

    if not hasattr(get_ipython(), "kernel"):
        return lambda text: None
    handle = display({"text/plain": text}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text}, raw=True)


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
