"""What an official archive is: where it comes from, which files it has, how many images."""

import glob
import gzip
import re
import stat
import tarfile
import textwrap
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

from cifar_utils.data.dataset import Split
from cifar_utils.events import in_notebook
from cifar_utils.parameters import InputError

NOTE_FILE = "SOURCE.txt"
LARGEST = 2**29  # bytes in all; the largest official archive unpacks to 250 million


class Contents(NamedTuple):
    """What is read from an archive: class names, images to train and to test on, and a note.

    The note is the first line of ``SOURCE.txt`` beside the data, or empty.
    """

    class_names: tuple[str, ...]
    train: Split
    test: Split
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Archive(ABC):
    """One official archive, and how it is read.

    Attributes
    ----------
    url, file, size, md5
        Where it comes from, its name there, its bytes and their checksum.
    folder
        The folder in it.
    classes, train_images, test_images, image_shape
        What it holds.
    citation
        Whose it is.
    extracted
        Whether a download leaves the folder, or else the archive as it is.

    """

    url: str
    file: str
    size: int
    md5: str
    folder: str
    classes: int
    train_images: int
    test_images: int
    image_shape: tuple[int, int, int]
    citation: str
    extracted: ClassVar[bool] = True

    @property
    @abstractmethod
    def members(self) -> tuple[str, ...]:
        """Files by which a folder is known to be it, in the order in which they are extracted."""

    @property
    @abstractmethod
    def files(self) -> tuple[str, ...]:
        """All files that are read of it, below its folder; ``*`` stands for any name."""

    @property
    def published(self) -> str:
        """What a download leaves, by its name."""
        return self.folder if self.extracted else self.file

    @abstractmethod
    def read(self, path: Path) -> Contents:
        """Read the archive, or its extracted folder, into memory, trusting nothing in it.

        Raises
        ------
        InputError
            Where a file is missing, truncated, corrupt, hostile or of another content.

        """


def wrong(where: Path | str, reason: str) -> InputError:
    """The error that something on the disk is not what it should be."""
    reason = textwrap.shorten(reason, 150, placeholder=" ...")  # one line, whatever the file says
    return InputError(f"{where} is not what it should be: {reason}; replace it with a whole copy")


def first_line(text: bytes) -> str:
    """The first line of a note, which may be of any length and encoding."""
    return text.partition(b"\n")[0][:1000].decode("utf-8", "replace").strip()


def progress_bar(label: str, total: int | None, **options: Any):
    """A bar on a terminal or below a notebook's cell; silent where nobody looks on."""
    from tqdm import tqdm

    # A notebook's output is no terminal, but is looked at.
    quiet = False if in_notebook() else None
    return tqdm(desc=label, total=total, leave=False, disable=quiet, **options)


def names_within(folder: Path, archive: Archive) -> Iterator[str]:
    """The name, as the archive has it, of each file of an extracted folder."""
    for pattern in archive.files:
        yield from glob.iglob(pattern, root_dir=folder)  # noqa: PTH207 (names, not paths)


def read_files(path: Path, archive: Archive) -> Iterator[tuple[str, BinaryIO]]:
    """Name and open content of each file of an extracted folder, or of an archive as it is.

    Raises
    ------
    ValueError
        Where a member leads out of the archive, or all are larger than they can be.
    Exception
        Whatever a damaged archive makes :mod:`tarfile` or :mod:`zipfile` raise.

    """
    if path.is_dir():
        for name in names_within(path, archive):
            with (path / name).open("rb") as file:
                yield name, file
        return
    patterns = (re.escape(pattern).replace(r"\*", "[^/]*") for pattern in archive.files)
    known = re.compile(rf"(?:.*/)?({'|'.join(patterns)})")
    room = LARGEST
    for member in (_zip_members if archive.file.endswith(".zip") else _tar_members)(path):
        name = member.name
        if name.startswith("/") or ".." in name.split("/") or not (member.file or member.folder):
            raise ValueError(f"its member {name!r} is a link, or leads elsewhere")
        room -= member.size
        if room < 0:
            raise ValueError(f"its member {name!r} of {member.size:,} bytes is too much for it")
        if member.file and (found := known.fullmatch(name)):
            with member.open() as file:
                yield found[1], file


class _Member(NamedTuple):
    name: str
    size: int
    file: bool
    folder: bool
    open: Callable[[], BinaryIO]


def _tar_members(path: Path) -> Iterator[_Member]:
    with gzip.open(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as tar:
        for member in tar:
            kind = member.isreg(), member.isdir()
            yield _Member(member.name, member.size, *kind, partial(tar.extractfile, member))
        while unpacked.read(2**20):  # the checksum stands at the very end, behind what tar reads
            continue


def _zip_members(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as packed:
        for member in packed.infolist():
            mode = stat.S_IFMT(member.external_attr >> 16)  # 0 where no Unix has written it
            kind = mode in (0, stat.S_IFREG) and not member.is_dir(), member.is_dir()
            yield _Member(member.filename, member.file_size, *kind, partial(packed.open, member))
