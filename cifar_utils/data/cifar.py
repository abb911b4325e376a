"""A reader of CIFAR's official archives, which checks all that it reads."""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from cifar_utils.data.archive import NOTE_FILE, Archive, Contents
from cifar_utils.data.dataset import Split
from cifar_utils.data.unpack import first_line, read_files, wrong

MOST_OPCODES = 2**20  # in a pickle; CIFAR-100's training images take 0.4 million
LONGEST_NAME = 100  # bytes
MOST_AGAIN = 2**24  # characters of text used a second time
# The opcodes whose values a pickle of CIFAR may use again.
USED_AGAIN = {
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BINSTRING", "SHORT_BINSTRING", "BINUNICODE",
    "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip


# The name of the labels, by their number of classes.
LABELS = {10: b"label", 100: b"fine_label", 20: b"coarse_label"}


class _Parts:
    """The parts of a pickled array or dtype, before an array is made of them.

    NumPy's own ``__setstate__`` trusts the pickle. Here type, shape and bytes are checked first.
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
        asked = f"{module[:50]}.{name[:50]}"
        raise pickle.UnpicklingError(f"it asks for {asked!r}, which no CIFAR file needs")


class _Lines(io.BytesIO):
    """A pickle whose lines, such as names of classes, are read up to 1,000 bytes."""

    def readline(self, size: int | None = -1) -> bytes:
        return super().readline(1000)


def _check_opcodes(pickled: bytes) -> None:
    """Raise where a small pickle makes large objects.

    A million opcodes make less than 200 MB, unless they name a far place in the memo or use its
    values again. Tuples of tuples of the same tuples grow without end for code that prints,
    compares or hashes them. A pickle of CIFAR uses only short texts and reduced objects again.
    """
    memo, made, again = {}, None, 0  # sizes of texts, or None for a value not to be used again
    for count, (opcode, arg, _) in enumerate(pickletools.genops(_Lines(pickled))):
        name = opcode.name
        if count > MOST_OPCODES:
            raise ValueError(f"more than {MOST_OPCODES:,} opcodes of pickle")
        if name == "MEMOIZE":
            memo[len(memo)] = made
        elif name.endswith("PUT"):
            if arg > MOST_OPCODES:
                raise ValueError(f"place {arg:,} in a pickle's memo")
            memo[arg] = made
        elif name == "DUP" or name.endswith("GET"):
            size = memo.get(arg)
            if size is None or (again := again + size) > MOST_AGAIN:
                raise ValueError("it uses a list, a tuple or a long text more than once")
        made = len(arg or "") if name in USED_AGAIN else None


def _unpickle(pickled: bytes) -> dict[bytes, Any]:
    _check_opcodes(pickled)
    content = _CifarUnpickler(_Lines(pickled), encoding="bytes").load()
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__} where a dict should be")
    return content


def _pixels(parts: Any) -> np.ndarray:
    """The uint8 array ``(N, 3072)`` that ``parts`` describe; all other parts raise."""
    if not isinstance(parts, _Parts):
        raise ValueError(f"a {type(parts).__name__} where an array should be")
    _, shape, dtype, fortran, data = parts.state
    if dtype.args[0] not in (b"u1", "u1"):
        raise ValueError("pixels that are not uint8")
    if not isinstance(shape, tuple) or [type(part) for part in shape] != [int, int]:
        raise ValueError("pixels that are not of the shape (images, 3072)")
    if shape[0] < 1 or shape[1] != 3072 or len(data) != shape[0] * 3072:
        raise ValueError(f"{len(data):,} bytes of pixels for the shape {shape}, not (images, 3072)")
    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


def _batch(content: dict[bytes, Any], archive: Archive) -> Split:
    planes, labels = _pixels(content[b"data"]), content[LABELS[archive.classes] + b"s"]
    if not isinstance(labels, list) or [type(label) for label in labels] != [int] * len(planes):
        raise ValueError(f"{len(planes):,} images, but labels that are not as many whole numbers")
    if min(labels) < 0 or max(labels) >= archive.classes:
        raise ValueError(f"labels {min(labels)} to {max(labels)} for {archive.classes} classes")
    images = np.empty((len(planes), 32, 32, 3), np.uint8)
    for channel in range(3):  # three strided copies take a third of the time of one transposed copy
        images[..., channel] = planes[:, channel * 1024 : (channel + 1) * 1024].reshape(-1, 32, 32)
    return Split(images, np.array(labels, np.int64))


def _names(content: dict[bytes, Any], archive: Archive) -> tuple[str, ...]:
    names = content[LABELS[archive.classes] + b"_names"]
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise ValueError("class names that are no list of bytes")
    if len(set(names)) != len(names) or len(names) != archive.classes:
        raise ValueError(f"{len(set(names))} class names for {archive.classes} classes")
    if max(map(len, names)) > LONGEST_NAME:
        raise ValueError(f"a class name of more than {LONGEST_NAME} bytes")
    return tuple(name.decode() for name in names)


def read_cifar(path: Path, archive: Archive) -> Contents:
    """Read an archive or its extracted folder into memory.

    No code in a file is run. A pickle may name only the functions that a CIFAR batch needs. Arrays
    are built here, after their type, shape and labels are checked.

    Raises
    ------
    InputError
        Where a file is missing, truncated, corrupt, hostile or not one of CIFAR's.
    """
    meta, *train, test = archive.members
    found: dict[str, Any] = {NOTE_FILE: ""}
    where = str(path)
    try:
        for name, data in read_files(path, archive):
            where = f"{path}: {name}"
            if name == NOTE_FILE:
                found[name] = first_line(data)
            else:
                content = _unpickle(data)
                found[name] = (_names if name == meta else _batch)(content, archive)
            where = str(path)
    except KeyError as error:
        raise wrong(where, f"it has no {error.args[0]!r}") from error
    except Exception as error:  # damaged or hostile content may raise nearly anything
        raise wrong(where, str(error) or type(error).__name__) from error
    if missing := [name for name in archive.members if name not in found]:
        raise wrong(where, f"{', '.join(missing)} missing")
    parts = zip(*(found[name] for name in train), strict=True)
    return Contents(found[meta], Split(*map(np.concatenate, parts)), found[test], found[NOTE_FILE])
