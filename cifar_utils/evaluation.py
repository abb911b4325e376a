"""Scores of a model on a split: top-1, top-k, loss, accuracy by class, confusion, calibration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from cifar_utils.data.dataset import Split
from cifar_utils.errors import InputError, TrainingDiverged, check_bounds
from cifar_utils.files import PREDICTED, PREDICTIONS, written_atomically
from cifar_utils.intervals import wilson_interval
from cifar_utils.text import interval, percent

if TYPE_CHECKING:
    import keras

BINS = 15  # of confidence, as in Guo et al.
TARGET = 0.94  # report A's target accuracy; it does not give the k of its top-k


class Predicted(NamedTuple):
    """A classifier's predictions for ``N`` test images, in their order; enough for a paired test.

    Attributes
    ----------
    labels
        True classes, integers ``(N,)``.
    classes
        The most probable class of each image, integers ``(N,)``.
    probabilities
        The probability of that class, float ``(N,)``.

    """

    labels: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether each image was classified correctly, booleans ``(N,)``."""
        return self.labels == self.classes


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """A classifier's predictions for ``N`` labelled images of ``K`` classes, and their scores.

    Attributes
    ----------
    class_names
        The ``K`` names, by label.
    labels
        True classes, integers ``(N,)``.
    probabilities
        The probability of each class, float32 ``(N, K)``; each row sums to 1.

    Raises
    ------
    ValueError
        Where the shapes don't fit each other or there is no image.

    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        expected = (len(self.labels), len(self.class_names))
        if not len(self.labels) or self.probabilities.shape != expected:
            raise ValueError(
                f"scores need probabilities of shape (images >= 1, classes) = {expected}, "
                f"not {self.probabilities.shape}"
            )

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.labels)

    @cached_property
    def loss(self) -> float:
        """Mean cross-entropy in nats; a probability of 0 counts as float32's smallest, 1e-38."""
        of_truth = self.probabilities[np.arange(self.n), self.labels].astype(np.float64)
        return float(np.log(1 / np.maximum(of_truth, np.finfo(np.float32).tiny)).mean())

    @cached_property
    def _ranking(self) -> np.ndarray:
        # A stable sort breaks ties as argmax does: the lower label first.
        return np.argsort(-self.probabilities, axis=1, kind="stable")

    @property
    def predictions(self) -> np.ndarray:
        """The most probable class of each image, integers ``(N,)``."""
        return self._ranking[:, 0]

    def hits(self, k: int = 1) -> int:
        """The number of images whose class is among the ``k`` most probable ones."""
        return int((self._ranking[:, :k] == self.labels[:, None]).sum())

    def top_k(self, k: int) -> float:
        """The fraction of images whose class is among the ``k`` most probable; 1 from ``K`` on."""
        return self.hits(k) / self.n

    @property
    def top1(self) -> float:
        """The fraction of images classified correctly."""
        return self.top_k(1)

    def top_k_interval(self, k: int) -> tuple[float, float]:
        """95% interval of :meth:`top_k`."""
        return wilson_interval(self.hits(k), self.n)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Counts of images ``(K, K)``: rows are true classes, columns are predicted classes."""
        known = np.arange(len(self.class_names))
        return confusion_matrix(self.labels, self.predictions, labels=known)

    @cached_property
    def per_class(self) -> dict[str, float]:
        """The accuracy on each class, a fraction; a class without images is left out."""
        rows = zip(
            self.class_names, self.confusion.diagonal(), self.confusion.sum(axis=1), strict=True
        )
        return {name: float(right / n) for name, right, n in rows if n}

    @cached_property
    def confidence_bins(self) -> pd.DataFrame:
        """Images by the probability of their predicted class, in 15 bins of equal width.

        Each bin has a row, also an empty one. Its probabilities are above ``low`` and at most
        ``high``. ``n`` counts its images, ``hits`` the correct ones, and ``confidence`` is the mean
        probability.
        """
        confidence = self.probabilities.max(axis=1).astype(np.float64)
        edges = np.linspace(0, 1, BINS + 1)
        place = np.clip(np.searchsorted(edges, confidence) - 1, 0, BINS - 1)
        n = np.bincount(place, minlength=BINS)
        hits = np.bincount(place, self.predictions == self.labels, BINS).astype(int)
        mean = np.bincount(place, confidence, BINS) / np.where(n, n, np.nan)
        return pd.DataFrame(
            {"low": edges[:-1], "high": edges[1:], "n": n, "hits": hits, "confidence": mean}
        )

    @cached_property
    def calibration_error(self) -> float:
        """The expected calibration error (Guo et al., arXiv:1706.04599), a fraction.

        The distance between accuracy and mean confidence in each bin of :attr:`confidence_bins`,
        averaged over the images.
        """
        bins = self.confidence_bins
        return float((bins["hits"] - bins["n"] * bins["confidence"]).abs().sum() / self.n)

    def to_dict(self) -> dict[str, Any]:
        """The figures a record keeps: plain floats, fractions rather than percent."""
        return {
            "n": self.n,
            "loss": self.loss,
            "top1": self.top1,
            "top1_interval": list(self.top_k_interval(1)),
            "top5": self.top_k(5),  # of 5 classes or fewer it is 1 and means nothing
            "top5_interval": list(self.top_k_interval(5)),
            "top_k": [self.top_k(k) for k in range(1, min(10, len(self.class_names)) + 1)],
            "calibration_error": self.calibration_error,
            "per_class": self.per_class,
            "most_frequent": float(np.bincount(self.labels).max() / self.n),  # a class's share
        }

    def write(self, folder: Path | str) -> Path:
        """Write ``predictions.npz`` and ``predicted.npz`` into a folder; return the first's path.

        ``predictions.npz`` holds ``labels``, ``probabilities`` and ``class_names``;
        :func:`read_scores` reads it. ``predicted.npz`` is the small part of it that is published;
        :func:`read_predicted` reads it.

        Raises
        ------
        OSError
            Where the folder can't be written or the disk is full.

        """
        path = Path(folder) / PREDICTIONS
        names = np.array(self.class_names, str)
        with written_atomically(path) as file:
            np.savez_compressed(
                file, labels=self.labels, probabilities=self.probabilities, class_names=names
            )
        with written_atomically(path.with_name(PREDICTED)) as file:
            np.savez_compressed(
                file,
                labels=self.labels.astype(np.uint16),
                classes=self.predictions.astype(np.uint16),
                probabilities=self.probabilities.max(axis=1).astype(np.float16),
            )
        return path

    def __repr__(self) -> str:
        tops = [
            f"top-{k} {percent(self.top_k(k))} (95% interval {interval(self.top_k_interval(k))})"
            for k in (1, 5)
            if k < max(2, len(self.class_names))
        ]
        return f"{', '.join(tops)}, loss {self.loss:.3f}, n = {self.n:,}"

    def _repr_html_(self) -> str:
        return f'<p class="scores">{escape(repr(self))}</p>'


def read_scores(path: Path | str) -> Scores:
    """Read the scores from a ``predictions.npz``, exactly as they were written.

    Raises
    ------
    InputError
        Where the file is missing or damaged.

    """
    with _arrays(path) as kept:
        return Scores(tuple(kept["class_names"].tolist()), kept["labels"], kept["probabilities"])


def read_predicted(path: Path | str) -> Predicted:
    """Read a ``predicted.npz``; raises as :func:`read_scores`."""
    with _arrays(path) as kept:
        labels, classes = (kept[name].astype(np.int64) for name in ("labels", "classes"))
        return Predicted(labels, classes, kept["probabilities"].astype(np.float32))


@contextmanager
def _arrays(path: Path | str) -> Iterator[Mapping[str, np.ndarray]]:
    try:
        with np.load(path) as kept:
            yield kept
    except Exception as error:  # a damaged file may raise nearly anything
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(
            f"predictions {path} can't be read ({reason}); run its notebook again"
        ) from error


def evaluate(model: keras.Model, split: Split, class_names: tuple[str, ...]) -> Scores:
    """Classify a split's images.

    Parameters
    ----------
    model
        From uint8 images ``(N, H, W, 3)`` to logits ``(N, K)``.
    split
        Images and labels ``(N,)``.
    class_names
        The ``K`` names, by label.

    Raises
    ------
    TrainingDiverged
        Where a logit is NaN or infinite, perhaps because a sum overflowed.
    InputError
        Where there are no images.
    ValueError
        Where the model does not have ``K`` outputs.

    """
    return _scores(_logits(model, split.images), split, class_names)


def evaluate_views(
    model: keras.Model, split: Split, class_names: tuple[str, ...], unsure: float = 0.4
) -> dict[int, Scores]:
    """Classify a split's images by 1 view of each, and by 6 views of the least certain ones.

    One view is the image. Six views are the image and its mirror image, with half of the weight,
    and both shifted by a pixel along the diagonal in either direction; new pixels at the border
    mirror the image. Their logits are averaged. This is the test-time augmentation of airbench
    (Jordan, arXiv:2404.00498). Five more views of an image rarely change a class that is certain by
    one, so only the least certain images get them, as in hiverge/cifar10-speedrun.

    Arguments and errors are those of :func:`evaluate`, and:

    Parameters
    ----------
    unsure
        The share of images with six views, 0 to 1: those whose guess by one view is least probable.

    """
    check_bounds("unsure", unsure, "at least 0, at most 1")
    one = _logits(model, split.images)
    by_one = _scores(one, split, class_names)
    certainty = by_one.probabilities.max(axis=1)
    chosen = np.argsort(certainty, kind="stable")[: math.ceil(unsure * len(one))]
    six = one.copy()
    if len(chosen):
        images = split.images[chosen]
        height, width = images.shape[1:3]
        padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
        shifted = [padded[:, place : place + height, place : place + width] for place in (0, 2)]
        mirrored = [view[:, :, ::-1] for view in (images, *shifted)]
        mirror, *others = (_logits(model, view) for view in (*mirrored, *shifted))
        six[chosen] = (one[chosen] + mirror) / 4 + sum(others) / 8
    return {1: by_one, 6: _scores(six, split, class_names)}


def compare_views(by_views: dict[int, Scores]) -> pd.DataFrame:
    """A page's table of the scores from :func:`evaluate_views`: a row for each number of views."""
    rows = {
        f"{count} view{'s' * (count > 1)}": _tops(scores, (1, 5), digits=2)
        | {"loss (nats)": f"{scores.loss:.4f}"}
        for count, scores in by_views.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def compare_top_k(by_name: Mapping[str, Scores]) -> pd.DataFrame:
    """A page's table of top-k accuracies: a row for each name, a column for each ``k``.

    The last column is the smallest ``k`` at which the accuracy is at least report A's target.
    """
    rows = {}
    for name, scores in by_name.items():
        every = range(1, len(scores.class_names) + 1)
        least = next(k for k in every if scores.top_k(k) >= TARGET)
        reached = {f"{percent(TARGET, 0)} reached at": f"top-{least}"}
        rows[name] = _tops(scores, (1, 2, 3, 5)) | reached
    return pd.DataFrame.from_dict(rows, orient="index")


def _tops(scores: Scores, ks: Sequence[int], digits: int = 1) -> dict[str, str]:
    return {
        f"top-{k}": f"{percent(scores.top_k(k), digits)} ({interval(scores.top_k_interval(k))})"
        for k in ks
        if k < len(scores.class_names)  # else it is always 100%
    }


def _logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    from cifar_utils.models.graph import at_once  # imports Keras

    if not len(images):
        raise InputError("the split has no images to classify; give one that has some")
    size = at_once(model, images)
    return np.asarray(model.predict(images, batch_size=size, verbose=0), np.float64)


def _scores(logits: np.ndarray, split: Split, class_names: tuple[str, ...]) -> Scores:
    broken = np.count_nonzero(~np.isfinite(logits).all(axis=1))
    if broken:
        raise TrainingDiverged(
            f"the model gives logits that are not finite for {broken:,} of {len(logits):,} images: "
            "its training has diverged; try a lower learning rate, or precision float32"
        )
    return Scores(tuple(class_names), split.labels, softmax(logits, axis=1).astype(np.float32))
