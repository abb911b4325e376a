"""The official archives of CIFAR-10 and CIFAR-100: layout, and a reader that trusts nothing."""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cifar_utils.data.archive import NOTE_FILE, Archive, Contents, first_line, read_files, wrong
from cifar_utils.data.dataset import Split

CITATION = (
    "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, "
    "https://www.cs.toronto.edu/~kriz/cifar.html (no licence given; it asks to be cited)"
)


@dataclass(frozen=True, kw_only=True)
class CifarArchive(Archive):
    """An archive of CIFAR, and which labels of it to read: fine or coarse ones, say."""

    train: tuple[str, ...]
    test: str
    meta: str
    labels: bytes
    names: bytes
    train_images: int = 50_000
    test_images: int = 10_000
    image_shape: tuple[int, int, int] = (32, 32, 3)
    citation: str = CITATION

    @property
    def members(self) -> tuple[str, ...]:
        return (self.meta, *self.train, self.test)

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.members, NOTE_FILE)

    def read(self, path: Path) -> Contents:
        return read_cifar(path, self)


CIFAR10 = CifarArchive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    file="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    md5="c58f30108f718f92721af3b95e74349a",
    size=170_498_071,
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels=b"labels",
    names=b"label_names",
    classes=10,
)
CIFAR100 = CifarArchive(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    file="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    size=169_001_437,
    train=("train",),
    test="test",
    meta="meta",
    labels=b"fine_labels",
    names=b"fine_label_names",
    classes=100,
)
CIFAR100_COARSE = replace(
    CIFAR100, labels=b"coarse_labels", names=b"coarse_label_names", classes=20
)


class _Parts:
    """What a pickled array or dtype is read into: what it would be made of, not made.

    NumPy's own ``__setstate__`` believes the pickle; here type, shape and bytes are checked first.
    """

    def __init__(self, *args: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _CifarUnpickler(pickle.Unpickler):
    PARTS = (
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),  # what NumPy 2 writes
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.PARTS:
            return _Parts
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2
            return lambda text, _: text.encode("latin1")
        asked = f"{module}.{name}"
        raise pickle.UnpicklingError(f"it asks for {asked!r}, which no CIFAR file needs")


def _unpickle(file: BinaryIO) -> dict[bytes, Any]:
    content = _CifarUnpickler(file, encoding="bytes").load()
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} where a dict should be")
    return content


def _pixels(parts: Any) -> np.ndarray:
    """The array ``(N, 3072)`` of uint8 that ``parts`` describe; anything else raises."""
    _, shape, dtype, fortran, data = parts.state
    if dtype.args[0] not in (b"u1", "u1"):
        raise ValueError(f"pixels of type {dtype.args[0]!r}, not uint8")
    if len(shape) != 2 or shape[0] < 1 or shape[1] != 3072 or len(data) != shape[0] * 3072:
        raise ValueError(f"{len(data):,} bytes of pixels for the shape {shape}, not (images, 3072)")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


def _batch(content: dict[bytes, Any], archive: CifarArchive) -> Split:
    planes = _pixels(content[b"data"])
    labels = np.array(content[archive.labels])
    if labels.shape != planes.shape[:1] or labels.dtype.kind != "i":
        raise ValueError(f"{len(planes):,} images, but labels that are not as many whole numbers")
    if labels.min() < 0 or labels.max() >= archive.classes:
        raise ValueError(f"labels {labels.min()} to {labels.max()} for {archive.classes} classes")
    images = np.empty((len(planes), 32, 32, 3), np.uint8)
    for channel in range(3):  # three strided copies take a third of the time of one transposed copy
        images[..., channel] = planes[:, channel * 1024 : (channel + 1) * 1024].reshape(-1, 32, 32)
    return Split(images, labels)


def _names(content: dict[bytes, Any], archive: CifarArchive) -> tuple[str, ...]:
    names = tuple(name.decode() for name in content[archive.names])
    if len(set(names)) != archive.classes:
        raise ValueError(f"{len(set(names))} class names for {archive.classes} classes")
    return names


def read_cifar(path: Path, archive: CifarArchive) -> Contents:
    """Read an archive or its extracted folder into memory.

    Nothing in a file is run or believed: a pickle may name only what a CIFAR batch is made of, and
    arrays are built here, once type, shape and labels are what they should be.

    Raises
    ------
    InputError
        Where a file is missing, truncated, corrupt, hostile or of another content.
    """
    found: dict[str, Any] = {NOTE_FILE: ""}
    where = str(path)
    try:
        for name, file in read_files(path, archive):
            where = f"{path}: {name}"
            if name == NOTE_FILE:
                found[name] = first_line(file.readline(1000))
            else:
                content = _unpickle(file)
                found[name] = (_names if name == archive.meta else _batch)(content, archive)
            where = str(path)
    except KeyError as error:
        raise wrong(where, f"it has no {error.args[0]!r}") from error
    except Exception as error:  # damaged or hostile content may raise nearly anything
        raise wrong(where, str(error) or type(error).__name__) from error
    if missing := [name for name in archive.members if name not in found]:
        raise wrong(where, f"{', '.join(missing)} missing")
    parts = [found[name] for name in archive.train]
    train = Split(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return Contents(found[archive.meta], train, found[archive.test], found[NOTE_FILE])
