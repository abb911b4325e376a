"""The progress of runs, read from the events that they write: a live row each, or a plain log."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

Show = Callable[[str, Mapping[str, Any]], None]


def follow(seen: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a run after one more event: the last value of each key that still holds."""
    if "phase" in event:
        return {"phase": str(event["phase"])}
    passing = {"phase"} if event.get("event") == "batch" else {"phase", "step", "steps"}
    return {key: value for key, value in {**seen, **event}.items() if key not in passing}


def describe(seen: Mapping[str, Any], briefly: bool = False) -> str:
    """In words: ``"epoch 3/20, 1:23 left, loss 0.512, accuracy 84.1%, validation 80.2%"``.

    Where a run trains several models, this one's name comes first. ``briefly``, for a terminal of
    80 columns, tells no step, loss and training accuracy.
    """
    if "phase" in seen:
        return seen["phase"]
    words = {
        "trial": lambda trial: f"trial {trial}/{seen.get('trials', '?')}",
        "epoch": lambda epoch: f"epoch {epoch}/{seen.get('epochs', '?')}",
        "step": lambda step: f"step {step}/{seen.get('steps', '?')}",
        "seconds_left": lambda seconds: f"{clock(seconds)} left",
        "loss": "loss {:.3f}".format,
        "accuracy": "accuracy {:.1%}".format,
        "val_accuracy": "validation {:.1%}".format,
        "best": "best {:.1%}".format,
    }
    left_out = {"step", "loss", "accuracy"} if briefly else set()
    numbers = {
        key: seen[key]
        for key in words
        if isinstance(seen.get(key), int | float) and key not in left_out
    }
    told = [words[key](value) for key, value in numbers.items()]
    return ", ".join([str(seen["training"]), *told] if "training" in seen else told)


def epochs_done(seen: Mapping[str, Any]) -> float:
    """Epochs behind the run, the current one by its steps."""
    to_go = 1 - seen["step"] / max(1, seen.get("steps", 1)) if "step" in seen else 0
    return seen.get("epoch", 0) - to_go


def course(seen: Mapping[str, Any]) -> tuple[float, float | None]:
    """What is done of what there is to do: epochs, or the trials of a search."""
    done, epochs = epochs_done(seen), seen.get("epochs")
    if "trial" in seen and epochs:
        return seen["trial"] - 1 + done / epochs, seen.get("trials")
    return done, epochs


def clock(seconds: float) -> str:
    """A duration as ``"0:42"``, ``"12:03"`` or ``"1:52:00"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shorten(name: str, width: int) -> str:
    """A name in at most so many characters; its end, which tells the seed, is kept."""
    if len(name) <= width:
        return name
    end = width // 2
    return f"{name[: width - end - 1]}…{name[-end:]}"


@contextmanager
def shown_progress(console: Console, names: Sequence[str]) -> Iterator[Show]:
    """Show the progress of runs while the block lasts: live on a terminal, else a line an epoch.

    On a terminal each run has a row from the first second. Rows of runs that wait are hidden where
    there is no room for them. Where there are several runs, one more row counts them.

    Parameters
    ----------
    console
        Where to show it.
    names
        The runs'.

    Yields
    ------
    Callable
        ``show(name, event)`` takes a run's events as it writes them, from any thread. Between them
        may come some that no run writes: ``{"event": "start"}`` before a run's first one; ``cell``
        (with a ``phase``), which only a terminal shows; ``retry`` (with its ``error``); and
        ``{"event": "end", "status": "failed"}`` after its last one.

    """
    narrow = console.width < 110
    width = min(max(map(len, names), default=1), console.width // 3)
    bar = [] if narrow else [BarColumn(16)]
    columns = (_text("{task.description}", width), *bar, _text("{task.fields[words]}"))
    live = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    seen: dict[str, dict[str, Any]] = {}
    ended = Counter()
    lives = console.is_terminal and not console.is_dumb_terminal
    one_at_a_time = threading.Lock()
    rows: dict[str, TaskID] = {
        name: live.add_task(shorten(name, width), total=None, words="waiting", start=False)
        for name in names
    }
    overall = live.add_task("all runs", total=len(names), words="", visible=len(names) > 1)

    def arrange() -> None:
        """Count, and hide those that wait where there is no room for them."""
        words = (
            f"{ended.total() - ended['failed']} done, {ended['failed']} failed, {len(rows)} left"
        )
        live.update(overall, completed=ended.total(), words=words)
        waiting = [name for name in rows if name not in seen]
        room = max(0, console.height - 3 - len(seen))
        for place, name in enumerate(waiting):
            live.update(rows[name], visible=place < room)

    def print_line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(name: str, event: Mapping[str, Any]) -> None:
        with one_at_a_time:
            _show(name, event)

    def _show(name: str, event: Mapping[str, Any]) -> None:
        kind = event.get("event")
        if name not in rows or (kind not in ("start", "end") and name not in seen):
            return  # a straggler of a run that has ended
        if kind == "end":
            ended[event["status"]] += 1
            live.remove_task(rows.pop(name))
            seen.pop(name, None)
            arrange()
            return
        if kind == "note":
            print_line(f"{name}: {event['text']}")
            return
        if kind == "start":
            live.start_task(rows[name])
            event = {"phase": "starting"}
        elif kind == "retry":
            event = {"phase": f"tried again, for {event['error']}"}
        begins = name not in seen
        seen[name] = known = follow(seen.get(name, {}), event)
        words = describe(known, briefly=narrow)
        completed, total = course(known)
        live.update(rows[name], total=total, completed=completed, words=words, visible=True)
        if begins:
            arrange()
        if kind == "retry" or (kind in ("phase", "epoch") and not lives):
            print_line(f"{name}: {describe(known)}")

    arrange()
    if lives:
        live.start()
    try:
        yield show
    finally:
        if lives:
            live.stop()


def _text(template: str, width: int | None = None) -> TextColumn:
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True, min_width=width))
