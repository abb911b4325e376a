"""Folders of runs kept elsewhere, at an address that fsspec knows: ``s3://bucket/reports``."""

import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from cifar_utils.errors import InputError
from cifar_utils.reporting.runs import UnwantedError

PUSH_SECONDS = 5
PAUSES = (1, 4, 16)  # seconds between tries at the end
# Say what the other files are, and so are written after them.
LAST = ("state.json", "run.json")
RECORDS = ("run.json", "record.json")
PAGES = (*RECORDS, "report.html", "notebook.ipynb")
LEFT_OUT = ("features",)  # large, and computed again
Stamps = dict[str, tuple[int, int]]


def pull(url: str, folder: Path, names: Collection[str] = ()) -> Stamps:
    """Copy what lies at an address into a folder; all, or the files of some names.

    Returns
    -------
    dict
        As :func:`stamps` of the folder after it.

    Raises
    ------
    InputError
        Where the address is none, or the package for it is not installed.
    OSError
        Where it can't be read.

    """
    fs, root = _open(url)
    fs.invalidate_cache()
    found = [path for path in fs.find(root) if not names or path.rpartition("/")[2] in names]
    local = [folder / path[len(root) :].strip("/") for path in found]
    for path in {path.parent for path in local}:
        path.mkdir(parents=True, exist_ok=True)
    if found:
        fs.get(found, [str(path) for path in local])
    return stamps(folder)


def push(folder: Path, url: str, sent: Stamps) -> None:
    """Copy to an address what has changed since ``sent``, and bring that up to date.

    A ``state.json`` or ``run.json`` goes after the files that it speaks of, and not at all where it
    changed meanwhile: who reads the address finds a state that once was, or can go on.

    Raises
    ------
    OSError
        Where it can't be written.

    """
    fs, root = _open(url)
    now = stamps(folder)
    changed = sorted((path for path in now if sent.get(path) != now[path]), key=_turn)
    for path in changed:
        target = f"{root}/{path}"
        if _turn(path)[0] and stamps(folder).get(path) != now[path]:
            return
        fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        with suppress(FileNotFoundError):  # gone meanwhile
            fs.put_file(str(folder / path), target)
            sent[path] = now[path]
    for path in sent.keys() - now.keys():
        with suppress(FileNotFoundError):
            fs.rm_file(f"{root}/{path}")
        del sent[path]


def _turn(path: str) -> tuple[int, str]:
    name = path.rpartition("/")[2]
    return LAST.index(name) + 1 if name in LAST else 0, path


def stamps(folder: Path) -> Stamps:
    """Of each file below a folder, hidden and temporary ones left out, its time and size."""
    found = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if any(part.startswith((".", "writing.")) or part in LEFT_OUT for part in relative.parts):
            continue
        with suppress(FileNotFoundError):
            if path.is_file():
                facts = path.stat()
                found[relative.as_posix()] = facts.st_mtime_ns, facts.st_size
    return found


@contextmanager
def mirrored(folder: Path, url: str) -> Iterator[None]:
    """A folder that holds what lies at an address, which follows it while the block lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    sent = pull(url, folder)
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(PUSH_SECONDS):
            with suppress(OSError):  # the network is back next time, or at the end
                push(folder, url, sent)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    wanted = True
    try:
        yield
    except UnwantedError:
        wanted = False  # another worker may have the run by now
        raise
    finally:
        ended.set()
        follower.join()
        if wanted:
            _push_patiently(folder, url, sent)


def _push_patiently(folder: Path, url: str, sent: Stamps) -> None:
    for pause in PAUSES:
        try:
            return push(folder, url, sent)
        except OSError:
            time.sleep(pause)
    return push(folder, url, sent)


def _open(url: str) -> tuple[Any, str]:
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise InputError(f"output {url!r} can't be used: {error}") from error
