"""Your own pictures: a folder with ``train/<class>/*.png`` and perhaps ``test/<class>/``."""

from pathlib import Path

import numpy as np

from cifar_utils.data.archive import NOTE_FILE, Contents
from cifar_utils.data.dataset import PREFIX, Split
from cifar_utils.data.download import what_is_at
from cifar_utils.data.splits import check_classes, stratified
from cifar_utils.data.unpack import first_line
from cifar_utils.errors import InputError
from cifar_utils.text import first_three, listed

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp")
OTHERS = (".avif", ".gif", ".heic", ".heif", ".jp2", ".svg", ".tif", ".tiff")  # pictures, too
SIZE = 32  # pixels, if no size is given
TEST_SHARE = 6  # without test/, one picture in six is a test image, as in CIFAR


def folder_of(name: str) -> Path:
    """The path that a dataset's name gives: ``"folder:~/pets"`` is the folder ``pets`` at home.

    Raises
    ------
    InputError
        Where the folder is missing or has no ``train/``.
    """
    given = name.removeprefix(PREFIX)
    try:
        path = Path(given).expanduser()
        if not given or not (path / "train").is_dir():
            raise InputError(
                f"dataset {name!r} {what_is_at(path) if given else 'names no folder'}; give a "
                "folder with pictures in train/CLASS/ and, if you have test images, in test/CLASS/"
            )
    except (OSError, RuntimeError) as error:  # RuntimeError: "~nobody" has no home
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"dataset {name!r} can't be read ({reason})") from error
    return path.resolve()


def read_folder(path: Path) -> Contents:
    """Class names, in order, and the splits, whose images are the paths of files to decode.

    Without ``test/``, a stratified sixth of the pictures are the test images, always the same ones.

    Raises
    ------
    InputError
        Where there are fewer than two classes, a class has no pictures, or ``test/`` has other
        classes.
    """
    names, train = _pictures(path, "train")
    if len(names) < 2:
        raise InputError(
            f"{PREFIX}{path.name}: train/ has one class, {names[0]!r}; it takes two or more"
            if names
            else f"{PREFIX}{path.name}: train/ has no folders; put pictures into train/CLASS/"
        )
    if (path / "test").is_dir():
        test_names, test = _pictures(path, "test")
        if odd := sorted(set(test_names) ^ set(names)):
            lacks = "train/" if odd[0] in test_names else "test/"
            raise InputError(
                f"{PREFIX}{path.name}: {lacks} has no class {odd[0]!r}; train/ and test/ must have "
                "the same ones"
            )
    else:
        chosen = stratified(train.labels, round(len(train.labels) / TEST_SHARE), seed=0)
        given = f"{PREFIX}{path.name}: one picture in six is for the test, as there is no test/"
        check_classes(names, train.labels[chosen], "test", given)
        train, test = Split(*(a[~chosen] for a in train)), Split(*(a[chosen] for a in train))
    note = path / NOTE_FILE
    try:
        return Contents(names, train, test, first_line(note.read_bytes()) if note.is_file() else "")
    except OSError as error:
        raise InputError(f"{note} can't be read ({error.strerror}); make it readable") from error


def list_pictures(folder: Path, called: str) -> list[Path]:
    """The pictures in a folder, by name, without hidden files and files that are no pictures.

    ``called`` is the folder's name in messages.

    Raises
    ------
    InputError
        Where there are none, or there is one of a format that can't be read.
    """
    files = [file for file in sorted(folder.iterdir()) if file.name[0] != "." and file.is_file()]
    readable = ", ".join(SUFFIXES)
    if others := [file.name for file in files if file.suffix.lower() in OTHERS]:
        raise InputError(
            f"{called} holds {listed(first_three(others))}, which can't be read; "
            f"convert such pictures to one of {readable}, or remove them"
        )
    if not (found := [file for file in files if file.suffix.lower() in SUFFIXES]):
        raise InputError(f"{called} holds no pictures ({readable}); put some there or remove it")
    return found


def _pictures(path: Path, part: str) -> tuple[tuple[str, ...], Split]:
    """The classes in ``train/`` or ``test/``, and the paths and labels of their pictures."""
    where = f"{PREFIX}{path.name}: {part}/"
    paths, labels = [], []
    try:
        folders = [f for f in sorted((path / part).iterdir()) if f.is_dir() and f.name[0] != "."]
        for label, folder in enumerate(folders):
            if not folder.name.isprintable():
                raise InputError(f"{where}{folder.name!r} is no name for a class; rename it")
            files = list_pictures(folder, f"{where}{folder.name}/")
            paths += files
            labels += [label] * len(files)
    except OSError as error:
        raise InputError(f"{where} can't be read ({error.strerror}); make it readable") from error
    names = tuple(folder.name for folder in folders)
    return names, Split(np.array(paths, object), np.array(labels, np.int64))
