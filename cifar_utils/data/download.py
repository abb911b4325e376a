"""Where the official archives are found, and how one that is not is downloaded."""

import contextlib
import errno
import hashlib
import os
import shutil
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO
from urllib.request import Request, urlopen

from cifar_utils.data.archive import Archive, progress_bar, read_files
from cifar_utils.parameters import InputError

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
CHUNK = 2**18  # bytes
SILENCE = 30  # seconds without a byte until a connection counts as cut


def keras_datasets() -> Path:
    """Where Keras keeps its datasets: ``~/.keras/datasets``, or below ``KERAS_HOME``."""
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "datasets"


def find(archive: Archive, folder: Path | str | None = None) -> Path | None:
    """The archive or its extracted folder; None where it is not there and may be downloaded.

    Looked for in ``folder``, else in ``CIFAR_DATA_DIR``, else in Keras's cache, under each name
    that a version of Keras has given it. A whole folder goes before an archive, which goes before
    a folder with files missing.

    Raises
    ------
    InputError
        Where ``folder`` or ``CIFAR_DATA_DIR`` is given and does not hold it.
    """
    given = folder or os.environ.get("CIFAR_DATA_DIR")
    base = Path(given).expanduser() if given else keras_datasets()
    inner = archive.folder
    folders = [base / inner, base / inner / inner, base / f"{inner}-target" / inner, base]
    packed = f"{inner}{archive.file[archive.file.index('.') :]}"
    archives = [archive.file, packed, f"{inner}_archive", f"{inner}-target_archive"]
    try:
        there = {f: [(f / name).is_file() for name in archive.members] for f in folders}
        found = [f for f in folders if all(there[f])]
        found += [base / name for name in archives if (base / name).is_file()]
        found += [f for f in folders[:-1] if any(there[f])]
    except OSError as error:
        raise InputError(f"{base} can't be read ({error.strerror}); make it readable") from error
    if given and not found:
        label = "the data folder" if folder else "CIFAR_DATA_DIR"
        raise InputError(
            f"{label} is {str(given)!r}, which holds neither {archive.file} nor {inner}/ with "
            f"{', '.join(archive.members)}; put one there, or leave it unset to download"
        )
    return found[0] if found else None


def download(archive: Archive) -> Path:
    """Bring an archive into Keras's cache, extracted where that is read faster.

    What has arrived stays in a ``.part`` file, and the next try goes on from there. Of several
    processes at once, one downloads and the others wait for it: by a lock on that file, which ends
    with its process. What is published gets its name when all of it is there.

    Raises
    ------
    InputError
        Without a network, on another checksum, and where the cache can't be written.
    """
    target = keras_datasets() / archive.published
    part = target.with_name(f"{archive.file}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(part, target / archive.members[-1] if archive.extracted else target)
        if file is None:
            return target
        with file:
            try:
                _transfer(archive, file)
                _check(archive, part)
                if archive.extracted:
                    _extract(archive, part, target)
                    part.unlink()
                else:
                    os.fsync(file.fileno())
                    part.replace(target)
            except BaseException as error:
                # A full disk gets back what was taken; of nothing there is nothing to go on from.
                if isinstance(error, OSError) or not file.tell():
                    part.unlink(missing_ok=True)
                raise
    except OSError as error:
        room = archive.size * (2.2 if archive.extracted else 1)
        raise InputError(
            f"{target.parent} can't be written ({error.strerror or error}); {archive.folder} needs "
            f"{room / 1e6:,.0f} MB there: make room, or set KERAS_HOME elsewhere"
        ) from error
    return target


def _locked(part: Path, published: Path) -> BinaryIO | None:
    """The part file, ours alone until it is closed; None where another process was faster."""
    import fcntl

    while not published.exists():
        file = part.open("ab")
        fcntl.flock(file, fcntl.LOCK_EX)
        # The process that we waited for may have removed the very file that we opened.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                return file
        file.close()
    return None


def _transfer(archive: Archive, file: BinaryIO) -> None:
    """Append what is missing, connection after connection while each of them brings something."""
    had, reason = -1, "the connection was cut"
    options = {"initial": file.tell(), "unit": "B", "unit_scale": True}
    with progress_bar(archive.file, archive.size, **options) as bar:
        while had < file.tell() < archive.size:
            had = file.tell()
            try:
                _append(archive, file, bar)
            except (OSError, HTTPException) as error:
                if getattr(error, "errno", None) in DISK_ERRORS:
                    raise
                if getattr(error, "code", None) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    file.truncate(file.seek(0))
                reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        file.flush()
    if file.tell() < archive.size:
        got = f"was cut at {file.tell():,} of {archive.size:,} bytes"
        raise InputError(
            f"{archive.url} {got if file.tell() else 'could not be reached'} ({reason}); "
            f"{_way_out(archive)}"
        )


def _way_out(archive: Archive) -> str:
    return f"try again later, or set CIFAR_DATA_DIR to a folder that holds {archive.file}"


def _append(archive: Archive, file: BinaryIO, bar: Any) -> None:
    """Append what one connection gives: the rest, or from a server without ranges all anew."""
    start = file.tell()
    request = Request(archive.url, headers={"Range": f"bytes={start}-"} if start else {})
    with urlopen(request, timeout=SILENCE) as response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            start = 0
        if response.length is not None and start + response.length != archive.size:
            raise InputError(
                f"{archive.url} gives {start + response.length:,} bytes, and the archive has "
                f"{archive.size:,}; {_way_out(archive)}"
            )
        file.truncate(file.seek(start))
        while file.tell() <= archive.size and (chunk := response.read(CHUNK)):
            file.write(chunk)
            bar.update(file.tell() - bar.n)


def _check(archive: Archive, part: Path) -> None:
    with part.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if md5 != archive.md5:
        part.unlink()
        raise InputError(
            f"{archive.url} came with the MD5 checksum {md5}, not {archive.md5}, and was removed; "
            f"{_way_out(archive)}"
        )


def _extract(archive: Archive, part: Path, target: Path) -> None:
    unfinished = target.with_name(f".{archive.folder}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        unfinished.mkdir()
        for name, content in read_files(part, archive):
            with (unfinished / name).open("wb") as file:
                shutil.copyfileobj(content, file, CHUNK)
                file.flush()
                os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
