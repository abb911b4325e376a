"""The progress of runs, by the events that they write: a live row for each run, or a log."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from cifar_utils.text import percent

Show = Callable[[str, Mapping[str, Any]], None]


def follow(seen: Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a run after one more event: the last value of each key that still holds."""
    if "phase" in event:
        return {"phase": str(event["phase"])}
    passing = {"phase"} if event.get("event") == "batch" else {"phase", "step", "steps"}
    return {key: value for key, value in {**seen, **event}.items() if key not in passing}


def describe(seen: Mapping[str, Any]) -> str:
    """In words: ``"epoch 3/20, 0:01:23 left, validation 80.2%, loss 0.512, accuracy 84.1%"``.

    If a run trains several models, the current one's name comes first. Less important facts come
    last, because a narrow terminal cuts them off.
    """
    if "phase" in seen:
        return seen["phase"]
    words = {
        "trial": lambda trial: f"trial {trial}/{seen.get('trials', '?')}",
        "epoch": lambda epoch: f"epoch {epoch}/{seen.get('epochs', '?')}",
        "seconds_left": lambda seconds: f"{timedelta(seconds=round(seconds))} left",
        "val_accuracy": lambda share: f"validation {percent(share)}",
        "best": lambda share: f"best {percent(share)}",
        "loss": "loss {:.3f}".format,
        "accuracy": lambda share: f"accuracy {percent(share)}",
        "step": lambda step: f"step {step}/{seen.get('steps', '?')}",
    }
    told = [words[key](seen[key]) for key in words if isinstance(seen.get(key), int | float)]
    return ", ".join([str(seen["training"]), *told] if "training" in seen else told)


def shorten(name: str, width: int) -> str:
    """A name in at most ``width`` characters; its end, which has the seed, is kept."""
    if len(name) <= width:
        return name
    end = width // 2
    return f"{name[: width - end - 1]}…{name[-end:]}"


@contextmanager
def shown_progress(console: Console, names: Sequence[str]) -> Iterator[Show]:
    """Show the progress of runs while the block lasts: live on a terminal, else a line an epoch.

    On a terminal each run has a row from the first second; waiting runs have one if there is room.
    Another row counts the runs if there are several.

    Parameters
    ----------
    console
        The terminal or file.
    names
        The runs' names.

    Yields
    ------
    Callable
        ``show(name, event)`` takes a run's events as it writes them, from any thread. It also takes
        events that no run writes: ``{"event": "start"}`` before a run's first one; ``cell`` (with a
        ``phase``), which only a terminal shows; ``note`` (with its ``text``); ``retry`` (with its
        ``error``); and ``{"event": "end", "status": "failed"}`` after its last one.

    """
    lives = console.is_terminal and not console.is_dumb_terminal
    width = min(max(map(len, names), default=1), console.width // 3)
    columns = (_text("{task.description}", width), _text("{task.fields[words]}"))
    live = Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
    rows = {
        name: live.add_task(
            shorten(name, width), start=False, visible=place < console.height - 3, words="waiting"
        )
        for place, name in enumerate(names)
    }
    overall = live.add_task("all runs", visible=len(names) > 1, words="")
    seen: dict[str, dict[str, Any]] = {}
    ended = Counter()
    one_at_a_time = threading.Lock()

    def print_line(name: str, text: str) -> None:
        with suppress(SystemExit):  # by rich, if nobody reads its output; the runs go on
            console.print(f"{name}: {text}", markup=False, highlight=False, soft_wrap=True)

    def count() -> None:
        words = f"{ended['done'] + ended['finished']} done, {ended['failed']} failed, "
        words += f"{ended['running']} elsewhere, " if ended["running"] else ""
        words += f"{len(rows)} left"
        live.update(overall, words=words)

    def show(name: str, event: Mapping[str, Any]) -> None:
        with one_at_a_time:
            kind = event.get("event")
            if name not in rows or (kind not in ("start", "end") and name not in seen):
                return  # late, of a run that has ended
            if kind == "end":
                ended[event["status"]] += 1
                seen.pop(name, None)
                live.remove_task(rows.pop(name))
                count()
                return
            if kind == "note":
                print_line(name, event["text"])
                return
            if kind == "start":
                live.start_task(rows[name])
                event = {"phase": "starting"}
            elif kind == "retry":
                event = {"phase": f"tried again, for {event['error']}"}
            seen[name] = known = follow(seen.get(name, {}), event)
            words = describe(known)
            live.update(rows[name], words=words, visible=True)
            if kind == "retry" or (kind in ("phase", "epoch") and not lives):
                print_line(name, words)

    count()
    with live if lives else nullcontext():
        yield show


def _text(template: str, width: int | None = None) -> TextColumn:
    return TextColumn(template, markup=False, table_column=Column(no_wrap=True, min_width=width))
