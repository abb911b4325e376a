"""A run's progress, read from the events that it writes, shown as a live line or a plain log."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

POLL_SECONDS = 0.2


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


def follow(seen: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run after one more event: the last value of each key that still holds."""
    if "phase" in event:
        return {"phase": str(event["phase"])}
    passing = {"phase"} if event.get("event") == "batch" else {"phase", "step", "steps"}
    return {key: value for key, value in {**seen, **event}.items() if key not in passing}


def describe(seen: Mapping[str, Any]) -> str:
    """In words: ``"epoch 3/20, 1:23 left, loss 0.512, accuracy 84.1%, validation 80.2%"``."""
    if "phase" in seen:
        return seen["phase"]
    words = {
        "epoch": lambda epoch: f"epoch {epoch}/{seen.get('epochs', '?')}",
        "step": lambda step: f"step {step}/{seen.get('steps', '?')}",
        "seconds_left": lambda seconds: f"{clock(seconds)} left",
        "loss": "loss {:.3f}".format,
        "accuracy": "accuracy {:.1%}".format,
        "val_accuracy": "validation {:.1%}".format,
    }
    numbers = {key: seen[key] for key in words if isinstance(seen.get(key), int | float)}
    return ", ".join(words[key](value) for key, value in numbers.items())


def epochs_done(seen: Mapping[str, Any]) -> float:
    """Epochs behind the run, the current one by its steps."""
    to_go = 1 - seen["step"] / max(1, seen.get("steps", 1)) if "step" in seen else 0
    return seen.get("epoch", 0) - to_go


def clock(seconds: float) -> str:
    """A duration as ``"0:42"``, ``"12:03"`` or ``"1:52:00"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def shown_progress(name: str, events: Path, console: Console) -> Iterator[Callable[[str], None]]:
    """Show a run's progress while the block lasts: live on a terminal, else a line an epoch.

    Parameters
    ----------
    name
        The run's name, in front of every line.
    events
        The file that the run appends its events to; what is in it already is not shown again.
    console
        Where to show it.

    Yields
    ------
    Callable
        Takes what is being done where no event tells it, such as ``"cell 3 of 20"``.

    """
    columns = (_text("{task.description}"), BarColumn(16), _text("{task.fields[words]}"))
    live = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    task = live.add_task(name, total=None, words="starting")
    seen: dict[str, Any] = {}
    position = events.stat().st_size if events.exists() else 0
    stopped = threading.Event()

    def say(event: Mapping[str, Any]) -> None:
        nonlocal seen
        seen = follow(seen, event)
        words = describe(seen)
        live.update(task, total=seen.get("epochs"), completed=epochs_done(seen), words=words)
        if not console.is_terminal and event.get("event") in ("phase", "epoch"):
            console.print(f"{name}: {words}", markup=False, highlight=False, soft_wrap=True)

    def watch() -> None:
        nonlocal position
        last = False
        while not last:
            last = stopped.wait(POLL_SECONDS)  # once more after the end, for what came last
            fresh, position = read_events(events, position)
            for event in fresh:
                say(event)

    reader = threading.Thread(target=watch, daemon=True)
    if console.is_terminal:
        live.start()
    reader.start()
    try:
        yield lambda words: say({"event": "phase", "phase": words}) if console.is_terminal else None
    finally:
        stopped.set()
        reader.join()
        if console.is_terminal:
            live.stop()


def _text(template: str) -> TextColumn:
    return TextColumn(template, markup=False)
