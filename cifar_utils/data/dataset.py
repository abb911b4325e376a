"""The types of data: Split and Dataset."""

import html
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cifar_utils.errors import InputError

PREFIX = "folder:"  # begins the name of a dataset that is a folder of pictures


class Split(NamedTuple):
    """Images and their labels: uint8 ``(N, H, W, 3)`` and integers ``(N,)``."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named set of labelled images, split for training, validation and test; not normalized.

    Attributes
    ----------
    name
        As in :data:`cifar_utils.data.DATASETS`.
    class_names
        By label: ``class_names[labels[i]]`` is the class of image ``i``.
    source
        Its origin: ``"embedded"``, ``"folder"``, ``"archive"`` or ``"download"``.
    note
        The first line of ``SOURCE.txt`` beside the files, which every report shows; or empty.
    fingerprint
        SHA-256 of class names, images and labels of all three splits, in order, in hexadecimal.
    test_pictures
        SHA-256 of the files of a folder's test pictures, in order, whatever ``image_size`` is.
        Empty for other data, whose name tells their images.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    source: str
    fingerprint: str
    note: str = ""
    test_pictures: str = ""

    def __post_init__(self) -> None:
        """Raise an InputError where images are no bytes: a model would see others than meant."""
        for split in (self.train, self.validation, self.test):
            if (kind := split.images.dtype) != "uint8":
                raise InputError(f"images are of type {kind}; a model takes uint8, from 0 to 255")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        return self.train.images.shape[1:]

    def __repr__(self) -> str:
        """In words: name, origin, counts, shape and classes."""
        counts = [f"{len(split.labels):,}" for split in (self.train, self.validation, self.test)]
        names = list(self.class_names)
        if len(names) > 10:
            names[5:-1] = ["..."]
        words = (
            f"{self.name} ({self.source}): {counts[0]} training, {counts[1]} validation and "
            f"{counts[2]} test images of {'x'.join(map(str, self.image_shape))}, "
            f"{len(self.class_names)} classes: "
        )
        return words + ", ".join(names) + (f". {self.note}" if self.note else "")

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>"
