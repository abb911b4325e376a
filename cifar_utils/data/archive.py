"""The official archives: their sources and contents."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from cifar_utils.data.dataset import Split

NOTE_FILE = "SOURCE.txt"


class Contents(NamedTuple):
    """Class names, training images, test images and the first line of ``SOURCE.txt``, if any."""

    class_names: tuple[str, ...]
    train: Split
    test: Split
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One official archive.

    Attributes
    ----------
    url, file, md5
        Its source, its file name and its checksum.
    folder
        The folder in it.
    classes, train_images, test_images
        How many it holds.
    members
        The files that identify an extracted folder.
    files
        All files that are read, below its folder. ``*`` stands for any name.

    """

    url: str
    file: str
    md5: str
    folder: str
    classes: int
    train_images: int
    test_images: int
    members: tuple[str, ...]
    files: tuple[str, ...]


def _cifar(number: int, md5: str, *members: str) -> Archive:
    file = f"cifar-{number}-python.tar.gz"
    return Archive(
        url=f"https://www.cs.toronto.edu/~kriz/{file}", file=file, md5=md5,
        folder=f"cifar-{number}-{'batches-py' if number == 10 else 'python'}",
        classes=number, train_images=50_000, test_images=10_000,
        members=members, files=(*members, NOTE_FILE),
    )  # fmt: skip


# A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
# https://www.cs.toronto.edu/~kriz/cifar.html (no licence given; it asks to be cited).
# The first member has the class names, the last one the test images.
CIFAR10 = _cifar(
    10, "c58f30108f718f92721af3b95e74349a",
    "batches.meta", *(f"data_batch_{i}" for i in range(1, 6)), "test_batch",
)  # fmt: skip
CIFAR100 = _cifar(100, "eb9058c3a382ffc7106e4002c42a8d85", "meta", "train", "test")
CIFAR100_COARSE = replace(CIFAR100, classes=20)

# Y. Le, X. Yang, Tiny ImageNet Visual Recognition Challenge, Stanford CS 231N, 2015 (images of
# ImageNet, for research).
CLASSES, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
TINY_IMAGENET = Archive(
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    file="tiny-imagenet-200.zip",
    folder="tiny-imagenet-200",
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    classes=200,
    train_images=100_000,
    test_images=10_000,
    members=(CLASSES, WORDS, ANNOTATIONS),
    # The images in test/ have no labels, so those in val/ are the test images.
    files=(
        CLASSES, WORDS, ANNOTATIONS, NOTE_FILE,
        "train/*/*_boxes.txt", "train/*/images/*.JPEG", "val/images/*.JPEG",
    ),
)  # fmt: skip
