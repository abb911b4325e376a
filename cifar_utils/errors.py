"""The error that a user can mend, and the nearest known name to an unknown one."""

import difflib
from typing import Any


class InputError(ValueError):
    """Something a user gave is wrong: one line that names the thing, the value and the way out."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: that line, without the frames that led to it."""
        return [f"{type(self).__name__}: {self}"]


def known_name(kind: str, name: str, known: Any, label: str = "") -> str:
    """Return ``name`` if it is ``known``; else raise an InputError that offers the nearest one."""
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    subject = f"{label} is {short(name)}" if label else f"unknown {kind} {short(name)}"
    raise InputError(f"{subject}; {hint}known: {', '.join(known)}")


def short(value: Any) -> str:
    """A value as Python writes it, on one line; a long one is cut."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
