"""A reader of Tiny ImageNet's official archive, which checks all that it reads (report E)."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from cifar_utils.data.archive import ANNOTATIONS, CLASSES, NOTE_FILE, WORDS, Archive, Contents
from cifar_utils.data.dataset import Split
from cifar_utils.data.pictures import decoded
from cifar_utils.data.unpack import first_line, read_files, wrong
from cifar_utils.events import progress_bar

SIZE = 64  # pixels of an image's height and width


def read_tiny_imagenet(path: Path, archive: Archive) -> Contents:
    """Decode an archive or its extracted folder; the classes are in the order of ``wnids.txt``.

    Decoding the 110,000 small files takes half a minute on two cores, each time.

    Raises
    ------
    InputError
        Where a file is missing, truncated, corrupt, hostile or not one of Tiny ImageNet's.

    """
    found = {}
    try:
        with progress_bar(f"reading {archive.folder}", None, unit=" files") as bar:
            for name, data in read_files(path, archive):
                found[name] = data
                bar.update()
    except Exception as error:  # a damaged archive may raise nearly anything
        raise wrong(path, str(error) or type(error).__name__) from error

    def rows(table: str) -> list[list[str]]:
        lines = found[table].decode("utf-8", "replace").splitlines()
        return [line.split("\t") for line in lines if line.strip()]

    try:
        wnids = [row[0].strip() for row in rows(CLASSES)]
        names = _class_names(wnids, {wnid: text for wnid, text, *_ in rows(WORDS)})
        train = {
            f"train/{wnid}/images/{image}": label
            for label, wnid in enumerate(wnids)
            for image, *_ in rows(f"train/{wnid}/{wnid}_boxes.txt")
        }
        test = {f"val/images/{image}": wnids.index(wnid) for image, wnid, *_ in rows(ANNOTATIONS)}
    except KeyError as error:
        raise wrong(path, f"{error.args[0]} missing") from error
    except ValueError as error:  # too few columns, or the wnid of no class
        raise wrong(f"{path}: a table", str(error)) from error
    if missing := sorted((train.keys() | test.keys()) - found.keys()):
        raise wrong(path, f"{missing[0]} missing")
    counts = len(set(wnids)), len(train), len(test)
    expected = archive.classes, archive.train_images, archive.test_images
    if counts != expected:
        told = "{:,} classes, {:,} training and {:,} test images"
        raise wrong(path, f"{told.format(*counts)}, not {told.format(*expected)}")
    splits = (
        Split(_decode(found, [*labels], path), np.array([*labels.values()]))
        for labels in (train, test)
    )
    return Contents(names, *splits, first_line(found.get(NOTE_FILE, b"")))


def _decode(found: Mapping[str, bytes], names: list[str], path: Path) -> np.ndarray:
    """The images of these names, uint8 ``(N, H, W, 3)``; grey ones get three channels too."""
    from PIL import Image, UnidentifiedImageError

    def decode(name: str) -> np.ndarray:
        try:
            with Image.open(BytesIO(found[name]), formats=["JPEG"]) as opened:
                if opened.size != (SIZE, SIZE):
                    raise ValueError("{}x{} pixels, not {}x{}".format(*opened.size, SIZE, SIZE))
                return np.asarray(opened.convert("RGB"))
        except Exception as error:  # a damaged image may raise nearly anything
            known = not isinstance(error, UnidentifiedImageError)
            raise wrong(f"{path}: {name}", str(error) if known else "no JPEG image") from error

    return decoded(f"decoding {path.name}", names, decode, (SIZE, SIZE, 3))


def _class_names(wnids: list[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """The first word for each class; classes that share a word get their WordNet numbers too."""
    first = [words[wnid].split(",")[0].strip() for wnid in wnids]
    shared = [first.count(word) > 1 for word in first]
    named = zip(first, wnids, shared, strict=True)
    return tuple(f"{word} ({wnid})" if twice else word for word, wnid, twice in named)
