"""The embedded dataset: scikit-learn's handwritten digits, in the shape of CIFAR's images.

E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
1998, https://archive.ics.uci.edu/dataset/80 (CC BY 4.0). scikit-learn carries its test part.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cifar_utils.data.dataset import Split
from cifar_utils.data.splits import stratified

TEST_IMAGES = 360  # of 1,797: a fifth


def location() -> Path:
    """The file that scikit-learn carries."""
    return Path(find_spec("sklearn").origin).parent / "datasets" / "data" / "digits.csv.gz"


def read_digits() -> tuple[tuple[str, ...], Split, Split]:
    """Class names, 1,437 training images and 360 test images, each uint8 ``(32, 32, 3)``.

    The originals are 8x8 pixels of 17 grey levels. The test images are a fifth of each class,
    always the same ones.
    """
    # As sklearn.datasets.load_digits reads them, but without its import, which takes a second.
    table = np.loadtxt(location(), delimiter=",")
    pixels, labels = table[:, :-1], table[:, -1].astype(np.int64)
    # Bilinear interpolation by pixel centres keeps strokes smooth. Pixels repeated 4x4 would put an
    # edge on every fourth column, and a network would learn the edges before the digits.
    centres = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(8)))  # (32, 8), rows sum to 1
    grey = weights @ pixels.reshape(-1, 8, 8) @ weights.T * (255 / 16)
    images = np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=-1)
    test = stratified(labels, TEST_IMAGES, seed=0)
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return names, Split(images[~test], labels[~test]), Split(images[test], labels[test])
