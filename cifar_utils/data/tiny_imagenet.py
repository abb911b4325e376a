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

    def rows(table: str, columns: int) -> list[list[str]]:
        if table not in found:
            raise wrong(path, f"{table} missing")
        lines = found[table].decode("utf-8", "replace").splitlines()
        split = [line.split("\t") for line in lines if line.strip()]
        if odd := [row for row in split if len(row) < columns]:
            raise wrong(f"{path}: {table}", f"its line {odd[0]} has fewer than {columns} columns")
        return split

    wnids = [row[0].strip() for row in rows(CLASSES, 1)]
    if not len(wnids) == len(set(wnids)) == archive.classes:
        raise wrong(f"{path}: {CLASSES}", f"{len(set(wnids))} classes, not {archive.classes}")
    words = {wnid: text for wnid, text, *_ in rows(WORDS, 2)}
    if unknown := [wnid for wnid in wnids if wnid not in words]:
        raise wrong(f"{path}: {WORDS}", f"no words for {unknown[0]!r}, which is in {CLASSES}")
    train = {
        f"train/{wnid}/images/{image}": label
        for label, wnid in enumerate(wnids)
        for image, *_ in rows(f"train/{wnid}/{wnid}_boxes.txt", 5)
    }
    annotated = rows(ANNOTATIONS, 6)
    test = {f"val/images/{image}": wnid for image, wnid, *_ in annotated}
    if len(test) < len(annotated):
        raise wrong(f"{path}: {ANNOTATIONS}", f"{len(annotated):,} lines for {len(test):,} images")
    if unknown := [row for row in annotated if row[1] not in wnids]:
        raise wrong(f"{path}: {ANNOTATIONS}", f"{unknown[0][:2]}, of a class not in {CLASSES}")
    images = {name for name in found if name.endswith(".JPEG")}
    if odd := sorted(images ^ train.keys() ^ test.keys()):
        raise wrong(path, f"{odd[0]} {'has no annotation' if odd[0] in images else 'missing'}")
    counts, expected = (len(train), len(test)), (archive.train_images, archive.test_images)
    if counts != expected:
        raise wrong(path, "{:,} and {:,} images, not {:,} and {:,}".format(*counts, *expected))
    labels = [*train.values(), *(wnids.index(wnid) for wnid in test.values())]
    images = _decode(found, [*train, *test], path)
    splits = map(Split, np.split(images, [len(train)]), np.split(np.array(labels), [len(train)]))
    return Contents(_class_names(wnids, words), *splits, first_line(found.get(NOTE_FILE, b"")))


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
