"""Datasets: ``load_dataset("cifar10")`` gives images and labels, split for a model.

``load_dataset("folder:/path")`` reads your own pictures.
"""

import hashlib
from pathlib import Path

import numpy as np

from cifar_utils.data import digits
from cifar_utils.data.archive import (
    CIFAR10,
    CIFAR100,
    CIFAR100_COARSE,
    TINY_IMAGENET,
    Archive,
)
from cifar_utils.data.cifar import read_cifar
from cifar_utils.data.dataset import PREFIX, Dataset, Split
from cifar_utils.data.download import download, find
from cifar_utils.data.folder import SIZE, folder_of, read_folder
from cifar_utils.data.pictures import read_pictures, resize
from cifar_utils.data.splits import check_classes, held_out, limited
from cifar_utils.data.tiny_imagenet import read_tiny_imagenet
from cifar_utils.errors import InputError, check_bounds, check_count, known_name
from cifar_utils.files import file_digest

# The archive of each dataset; None for data that come with a package.
DATASETS: dict[str, Archive | None] = {
    "digits": None,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "cifar100_coarse": CIFAR100_COARSE,
    "tiny_imagenet": TINY_IMAGENET,
}


def load_dataset(
    name: str,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    train_limit: int | None = None,
    test_limit: int | None = None,
    image_size: int | None = None,
    offline: bool = False,
) -> Dataset:
    """Read a named dataset into memory, and hold out a stratified validation split.

    The archive, or its extracted folder, is read from ``CIFAR_DATA_DIR`` if that is set, else from
    Keras's cache (``~/.keras/datasets``, or below ``KERAS_HOME``). An archive that is missing from
    the cache is downloaded.

    Parameters
    ----------
    name
        One of :data:`DATASETS`; or ``folder:/path``, for pictures of any size (PNG, JPEG, WebP or
        BMP) in ``/path/train/<class>/`` and ``/path/test/<class>/``. Without ``test/``, a
        stratified sixth becomes the test images, whatever the seed.
    validation_fraction
        Share of the training images to hold out, at least 0 and below 1.
    seed
        Draws the images within ``train_limit`` and those held out, in proportion to the classes.
    train_limit
        Images to use for training and validation together; None for all.
    test_limit
        Test images to use, in proportion to the classes and whatever the seed; None for all.
    image_size
        Height and width of the images, in pixels. None leaves their size, and is 32 for a folder.
    offline
        Whether to raise instead of downloading.

    Returns
    -------
    Dataset
        Images uint8 ``(N, H, W, 3)`` and labels int64 ``(N,)``, in the order of the files.

    Raises
    ------
    InputError
        Where an argument is not one of these or leaves a class without images; where the data are
        missing, incomplete or wrong, or can't be downloaded.
    """
    check_bounds("validation_fraction", validation_fraction, "at least 0, below 1")
    check_count("seed", seed, "at least 0")
    if image_size is not None:
        check_count("image_size", image_size)
    archive, path = _found(name)
    if path is None and offline:
        raise InputError(f"{name} is not on this machine; run 'cifar-reports data fetch {name}'")
    source = "download" if path is None else "folder" if path.is_dir() else "archive"
    if name.startswith(PREFIX):
        names, train, test, note = read_folder(path)
    elif archive:
        read = read_tiny_imagenet if archive.file == TINY_IMAGENET.file else read_cifar
        names, train, test, note = read(path or download(archive), archive)
    else:
        names, train, test, source, note = *digits.read_digits(), "embedded", ""
    kept, held = held_out(train.labels, validation_fraction, seed, train_limit)
    tested = limited(test.labels, test_limit, 0, "test_limit")
    pictures = ""
    splits = [_take(train, kept), _take(train, held), _take(test, tested)]
    given = f"train_limit is {train_limit} and validation_fraction {validation_fraction:g}"
    check_classes(names, splits[0].labels, "training", given)
    if validation_fraction:
        check_classes(names, splits[1].labels, "validation", given)
    check_classes(names, splits[2].labels, "test", f"test_limit is {test_limit}")
    if name.startswith(PREFIX):
        name = f"{PREFIX}{path.name}"  # a record has no paths, and two folders may have one name
        tests, size = splits[2].images, image_size or SIZE
        splits = [
            Split(read_pictures(f"decoding {path.name}", files, size), labels)
            for files, labels in splits
        ]
        digests = "".join(map(file_digest, tests))  # all could be read
        pictures = hashlib.sha256(digests.encode()).hexdigest()
    elif image_size is not None:
        splits = [Split(resize(images, image_size), labels) for images, labels in splits]
    return Dataset(name, names, *splits, source, _fingerprint(names, splits), note, pictures)


def _found(name: str) -> tuple[Archive | None, Path | None]:
    """A dataset's archive, if it has one, and the path of its data, if they are here."""
    if name.startswith(PREFIX):
        return None, folder_of(name)
    archive = DATASETS[known_name("unknown dataset", name, [*DATASETS, f"{PREFIX}/path"])]
    return archive, find(archive) if archive else digits.location()


def _take(split: Split, chosen: np.ndarray) -> Split:
    return Split(split.images[chosen], split.labels[chosen])


def _fingerprint(class_names: tuple[str, ...], splits: list[Split]) -> str:
    digest = hashlib.sha256("\n".join(class_names).encode())
    for images, labels in splits:
        digest.update(f"\n{images.shape}\n".encode())
        digest.update(images.reshape(-1))
        digest.update(labels.astype("<i8"))
    return digest.hexdigest()


def fetch(name: str) -> Path:
    """Make sure that a named dataset is on this machine and can be read; return its path.

    Raises
    ------
    InputError
        As :func:`load_dataset`.
    """
    load_dataset(name, validation_fraction=0.0)
    return _found(name)[1]
