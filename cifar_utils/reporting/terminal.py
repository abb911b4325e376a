"""The output of commands on a terminal, and the signals that end them."""

import os
import signal
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table


def new_console() -> Console:
    """A terminal that shows text without markup."""
    return Console(markup=False, highlight=False, emoji=False)


def short_path(path: Path) -> str:
    """A path, relative to the current folder if it is below it."""
    path = path.absolute()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def print_table(titles: Iterable[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text; if the output is not a terminal, each row is one line."""
    console = new_console()
    console.width = console.width if console.is_terminal else 10_000
    console.print(as_table(titles, rows, console.width))


def as_table(titles: Iterable[str], rows: Sequence[Sequence[str]], width: int) -> Table | str:
    """Rows of text as a table or, if that would break words, each row over several lines.

    Cells of fewer than 30 characters are not broken either.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    total = 0
    for title, *cells in zip(titles, *rows, strict=True):
        parts = [part for cell in cells for part in ([cell] if len(cell) < 30 else cell.split())]
        least = max(map(len, [title, *parts]))
        table.add_column(title, overflow="fold", min_width=least)
        total += least + 2
    if total <= width:
        for row in rows:
            table.add_row(*row)
        return table
    stacked = []
    for name, *cells in rows:
        told = zip([*titles][1:], cells, strict=True)
        text = "; ".join(f"{title} {cell}" for title, cell in told if cell)
        lines = textwrap.wrap(text, width - 4, break_long_words=False)
        stacked.append("\n    ".join([name, *lines]))
    return "\n".join(stacked)


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP act as Ctrl-C while the block lasts, unless they are ignored.

    After the first of them, or of Ctrl-C, all others are ignored until the block has ended.
    """
    names = "SIGINT", "SIGTERM", "SIGHUP"
    kinds = [getattr(signal, name) for name in names if hasattr(signal, name)]
    kinds = [kind for kind in kinds if signal.getsignal(kind) is not signal.SIG_IGN]

    def interrupt(*_: object) -> None:
        for kind in kinds:  # a second one would leave an old run half put back
            signal.signal(kind, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [signal.signal(kind, interrupt) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
