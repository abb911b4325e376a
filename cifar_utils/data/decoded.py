"""What takes long to decode is decoded once: a file of pixels in Keras's cache."""

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cifar_utils.data.archive import Archive, Contents, names_within, wrong
from cifar_utils.data.dataset import Split
from cifar_utils.data.download import keras_datasets
from cifar_utils.files import written_atomically


def kept_decoded(
    path: Path, archive: Archive, decode: Callable[[Path, Archive], Contents]
) -> Contents:
    """What ``decode`` makes of an archive or its folder, from the cache where it is in there.

    There it is once it has been decoded, until a file that it was made from changes; a damaged one
    is made anew. Where the cache can't be written, all works without it.

    Raises
    ------
    InputError
        As ``decode``.

    """
    kept = keras_datasets() / f"{archive.folder}.decoded"
    source = _source(path, archive)
    with contextlib.suppress(Exception):  # a damaged file may raise nearly anything
        return _read(kept, source, archive)
    contents = decode(path, archive)
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        _write(kept, source, contents)
    return contents


def _source(path: Path, archive: Archive) -> str:
    """What tells sources apart: names, sizes and times of all files, and what decodes them how."""
    from PIL import __version__ as decoder

    facts = []
    try:
        for name in sorted(names_within(path, archive)) if path.is_dir() else [""]:
            stat = (path / name).stat()
            facts.append((name, stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        raise wrong(error.filename, error.strerror) from error
    return hashlib.sha256(repr((facts, archive, decoder)).encode()).hexdigest()


def _write(kept: Path, source: str, contents: Contents) -> None:
    """A line of JSON, then the pixels of all images as they are."""
    names, train, test, note = contents
    facts = {
        "source": source, "class_names": names, "note": note, "checksum": _checksum(train, test),
        "train": train.labels.tolist(), "test": test.labels.tolist(),
    }  # fmt: skip
    with written_atomically(kept) as file:
        file.write(json.dumps(facts).encode() + b"\n")
        for split in (train, test):
            file.write(split.images.data)


def _read(kept: Path, source: str, archive: Archive) -> Contents:
    with kept.open("rb") as file:
        facts = json.loads(file.readline())
        if facts["source"] != source:
            raise ValueError("it was made from something else")
        labels = [np.array(facts[part], np.int64) for part in ("train", "test")]
        shape = sum(map(len, labels)), *archive.image_shape
        # Pages are read as they are used, and need no memory of their own.
        images = np.asarray(np.memmap(file, np.uint8, "r", file.tell(), shape))
    train, test = map(Split, np.split(images, [len(labels[0])]), labels)
    if _checksum(train, test) != facts["checksum"]:
        raise ValueError("its pixels are damaged")
    return Contents(tuple(facts["class_names"]), train, test, facts["note"])


def _checksum(train: Split, test: Split) -> int:
    return zlib.crc32(test.images, zlib.crc32(train.images))
