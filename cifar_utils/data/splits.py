"""Stratified choices of images: functions of labels and seed only."""

from collections.abc import Sequence

import numpy as np

from cifar_utils.errors import InputError, check_count


def shares(sizes: np.ndarray, count: int) -> np.ndarray:
    """Divide ``count`` among the classes in proportion to ``sizes``, by largest remainders.

    Each class gets its share rounded down. The rest goes to the classes that lost most by it.
    """
    exact = np.asarray(sizes, np.int64) * count
    total = int(np.sum(sizes))
    taken = exact // total
    lost_most = np.argsort(-(exact % total), kind="stable")
    taken[lost_most[: count - taken.sum()]] += 1
    return taken


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose ``count`` of the labels, each class in its share: booleans ``(N,)``.

    All versions of NumPy give the same raw stream of PCG64, so a seed always chooses the same ones.
    """
    sizes = np.bincount(labels)
    order = np.lexsort((np.random.PCG64(seed).random_raw(len(labels)), labels))
    place_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = np.zeros(len(labels), bool)
    chosen[order[place_in_class < np.repeat(shares(sizes, count), sizes)]] = True
    return chosen


def limited(labels: np.ndarray, limit: int | None, seed: int, name: str) -> np.ndarray:
    """Choose ``limit`` of the labels ``(N,)``, each class in its share: booleans ``(N,)``.

    All are chosen where ``limit`` is None. ``name`` is the limit's name in messages.

    Raises
    ------
    InputError
        Where there are fewer labels.
    """
    if limit is None:
        return np.ones(len(labels), bool)
    check_count(name, limit, f"at least 1, at most {len(labels)}")
    return stratified(labels, limit, seed)


def held_out(
    labels: np.ndarray, fraction: float, seed: int, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the labels, or ``limit`` of them, into training and validation, as booleans ``(N,)``.

    ``fraction``, at least 0 and below 1, is the share for validation.

    Raises
    ------
    InputError
        Where there are fewer labels than ``limit``.
    """
    kept = limited(labels, limit, seed, "train_limit")
    held = np.zeros(len(labels), bool)
    held[kept] = stratified(labels[kept], round(kept.sum() * fraction), seed)
    return kept & ~held, held


def check_classes(names: Sequence[str], labels: np.ndarray, images: str, settings: str) -> None:
    """Raise an InputError where ``settings`` left a class without its share of the ``images``."""
    counts = np.bincount(labels, minlength=len(names))
    if not counts.all():
        raise InputError(
            f"{settings}, which leaves class {names[counts.argmin()]!r} without {images} images; "
            "more images of each class are needed"
        )
