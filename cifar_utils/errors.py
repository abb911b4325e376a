"""The error for wrong input, and the checks of names, numbers and settings that raise it."""

import difflib
import operator
import re
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

COMPARISONS = {
    "at least": operator.ge,
    "at most": operator.le,
    "above": operator.gt,
    "below": operator.lt,
}
BOUND = re.compile(rf"({'|'.join(COMPARISONS)}) (-?[\d.]+(?:e[+-]?\d+)?)")
WAY_OUT = "delete {} to start from the beginning, or choose another folder"


class InputError(ValueError):
    """A user's input is wrong. The message is one line: the thing, the value and the way out."""

    def _render_traceback_(self) -> list[str]:
        """The line that IPython shows, without a traceback."""
        return [f"{type(self).__name__}: {self}"]


class TrainingDiverged(FloatingPointError):
    """The loss, or what the model gives, is no longer a number. The message is one line.

    ``history`` holds the complete epochs before that, where they are known.
    """

    history = None
    _render_traceback_ = InputError._render_traceback_


def known_name(subject: str, name: str, known: Any) -> str:
    """Return ``name`` if it is ``known``; else raise an InputError that offers the nearest one.

    The message begins with the subject and the name: ``"unknown dataset 'cifar'"``.
    """
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"{subject} {short(name)}; {hint}known: {', '.join(known) or 'none'}")


def check_bounds(name: str, value: float, bounds: str) -> float:
    """A number as Python's own, not NumPy's; an InputError unless it is within bounds.

    Bounds are words: ``"above 0, at most 1"``.
    """
    found = BOUND.findall(bounds)
    if found and not isinstance(value, Real):
        raise InputError(f"{name} is {short(value)}; it takes a number")
    if not all(COMPARISONS[words](value, float(end)) for words, end in found):
        raise InputError(f"{name} is {short(value)}; it must be {bounds}")
    return value.item() if hasattr(value, "item") else value


def check_count(name: str, value: int, bounds: str = "at least 1") -> int:
    """As :func:`check_bounds`, for what is counted: 2.5 and True are wrong, too."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputError(f"{name} is {short(value)}; it takes a whole number")
    return check_bounds(name, value, bounds)


def check_same(folder: Path, what: str, kept: Mapping, asked: Mapping, *others: Path) -> None:
    """Raise an InputError where a folder holds ``what`` with other settings than those asked for.

    A setting that is missing counts as None. ``others`` are folders to delete with it.
    """
    for name in {**asked, **kept}:
        there, wanted = kept.get(name), asked.get(name)
        if there != wanted:
            way_out = WAY_OUT.format(" and ".join(map(str, (folder, *others))))
            raise InputError(
                f"{folder} holds {what} with {name} {there!r}, not {wanted!r}; {way_out}"
            )


def need_validation(what: str, held_out: float) -> None:
    """Raise an InputError for what goes by validation images if their number or share is 0."""
    if not held_out:
        raise InputError(
            f"{what} goes by validation images, and there are none; set validation_fraction above 0"
        )


def short(value: Any) -> str:
    """A value as Python writes it, on one line; a long one is cut."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
