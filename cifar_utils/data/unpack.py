"""Reads the files of an official archive into memory, and checks names and sizes."""

import glob
import gzip
import os
import re
import stat
import tarfile
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path

from cifar_utils.data.archive import Archive
from cifar_utils.errors import InputError

LARGEST = 300_000_000  # bytes in all; the largest official archive unpacks to 250 million
# Members of a tar that are skipped: folders, and extra headers of the next member. tarfile would
# read such a header into memory and trust it. No official archive needs one.
PASSED_OVER = {
    tarfile.DIRTYPE,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
}


def wrong(where: Path | str, reason: str) -> InputError:
    """The error for a file that does not have the right content."""
    reason = textwrap.shorten(reason, 150, placeholder=" ...")  # one line, whatever the file holds
    return InputError(
        f"{where} is damaged or another file: {reason}; replace it with a complete copy"
    )


def first_line(text: bytes) -> str:
    """The first line of a note, which may be of any length and encoding."""
    return text.partition(b"\n")[0][:1000].decode("utf-8", "replace").strip()


def read_files(path: Path, archive: Archive) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of an extracted folder, or of an archive, in memory.

    For a damaged archive, :mod:`gzip`, :mod:`tarfile` or :mod:`zipfile` raise their exceptions. A
    member with a path outside of the archive, or too large for it, is a ValueError.
    """
    if path.is_dir():
        yield from _folder_files(path, archive)
        return
    patterns = (re.escape(pattern).replace(r"\*", "[^/]*") for pattern in archive.files)
    known = re.compile(rf"(?:.*/)?({'|'.join(patterns)})")
    yield from (_zip_files if archive.file.endswith(".zip") else _tar_files)(path, known)


def _room_after(room: int, name: str, size: int, plain: bool) -> int:
    """The bytes that may follow a member. Other members than plain files and folders raise."""
    if name.startswith("/") or ".." in name.split("/") or not plain:
        raise ValueError(f"its member {name!r} is not a plain file, or leads elsewhere")
    if not 0 <= size <= room:
        raise ValueError(f"its member {name!r} of {size:,} bytes is too much for it")
    return room - size


def _folder_files(path: Path, archive: Archive) -> Iterator[tuple[str, bytes]]:
    room = LARGEST
    for pattern in archive.files:
        for name in glob.iglob(pattern, root_dir=path):  # noqa: PTH207 (names, not paths)
            try:
                known = (path / name).stat()
                room = _room_after(room, name, known.st_size, stat.S_ISREG(known.st_mode))
                content = (path / name).read_bytes()
            except OSError as error:
                raise ValueError(f"{name} can't be read ({error.strerror})") from error
            yield name, content


def _tar_files(path: Path, known: re.Pattern) -> Iterator[tuple[str, bytes]]:
    room = LARGEST
    with gzip.open(path) as stream:
        while any(block := stream.read(tarfile.BLOCKSIZE)):
            member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            plain = member.isfile() or member.type in PASSED_OVER
            # A header counts for more than its 512 bytes, because a million of them take long.
            room = _room_after(room - 2**14, member.name, member.size, plain)
            padding = -member.size % tarfile.BLOCKSIZE
            if member.isfile() and (found := known.fullmatch(member.name)):
                yield found[1], stream.read(member.size)
                stream.seek(padding, os.SEEK_CUR)
            else:
                stream.seek(member.size + padding, os.SEEK_CUR)
        while chunk := stream.read(2**20):  # gzip checks its checksum at the very end
            room = _room_after(room, "after the end", len(chunk), True)


def _zip_files(path: Path, known: re.Pattern) -> Iterator[tuple[str, bytes]]:
    room = LARGEST
    with zipfile.ZipFile(path) as packed:
        for member in packed.infolist():
            mode = stat.S_IFMT(member.external_attr >> 16)  # 0 if not written on Unix
            # Other methods unpack without a limit, whatever size the member claims.
            plain = mode in (0, stat.S_IFREG, stat.S_IFDIR)
            plain &= member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            room = _room_after(room, member.filename, member.file_size, plain)
            if found := known.fullmatch(member.filename):
                with packed.open(member) as file:
                    yield found[1], file.read(member.file_size)  # at most: the size may be wrong
