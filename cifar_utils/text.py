"""Numbers as pages and terminals tell them, and text as names of folders."""

import re
from collections.abc import Callable, Sequence
from html import escape
from statistics import mean, stdev
from typing import Any

ABSENT = "–"


class Told(str):
    """Plain text in paragraphs. A notebook does not take the names in it for Markdown or HTML."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return "".join(f"<p>{escape(paragraph)}</p>" for paragraph in self.split("\n\n"))


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction, whose halves round up: ``percent(0.8665)`` is ``"86.7%"``."""
    return f"{100 * fraction + 1e-9:.{digits}f}%"  # 100 * 0.8665 is a little below 86.65


def spread(shares: Sequence[float], digits: int = 2) -> str:
    """One fraction in percent: ``"86.70%"``. For several: ``"94.17% ± 0.13, n = 5"``.

    These are the mean, the standard deviation in points, and the number.
    """
    if len(shares) < 2:
        return percent(shares[0], digits) if len(shares) else ABSENT
    told = f"{percent(mean(shares), digits)} ± {100 * stdev(shares):.{digits}f}"
    return f"{told}, n = {len(shares)}"


def as_given(fraction: float) -> str:
    """A fraction that others report; whole percents have no decimals: ``"70%"``, ``"86.75%"``."""
    return percent(fraction, 2).replace(".00%", "%")


def interval(bounds: Sequence[float]) -> str:
    """The bounds of a fraction, in percent: ``"86.0 to 87.3%"``."""
    low, high = bounds
    return f"{percent(low)[:-1]} to {percent(high)}"


def encodable(text: str) -> str:
    """A text whose halves of characters, which UTF-8 can't encode, have become �."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def from_to(values: Sequence[Any], words: Callable[[Any], str] = str) -> str:
    """The least and the greatest value: ``"8 to 9"``; one of them where their words are equal."""
    return " to ".join(dict.fromkeys(words(value) for value in (min(values), max(values))))


def listed(items: Sequence[str]) -> str:
    """Items in words: ``"cat, dog and frog"``."""
    return ", ".join(items[:-1]) + " and " + items[-1] if len(items) > 1 else "".join(items)


def first_three(items: Sequence[str]) -> list[str]:
    """Up to four items as they are; of more, the first three, and how many more there are."""
    return [*items] if len(items) <= 4 else [*items[:3], f"{len(items) - 3} more"]


def compact(number: float) -> str:
    """A count in three digits: ``"87.3 M"``."""
    number = float(f"{number:.3g}")  # 999,700 is 1 M
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:,.0f}"


def duration(seconds: float) -> str:
    """A time in its two largest units: ``"1 h 52 min"``, ``"2 min 5 s"``, ``"3.1 s"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def slug(value: Any) -> str:
    """A value as part of a folder's name: ``"crop(4), flip"`` is ``"crop-4-flip"``.

    Characters other than letters, digits and ``_.=`` become hyphens.
    """
    return re.sub(r"[^\w.=]+", "-", str(value)).strip("-.")
