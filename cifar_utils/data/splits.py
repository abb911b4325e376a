"""Stratified choices of images: functions of labels and seed only."""

from collections.abc import Callable

import numpy as np

from cifar_utils.errors import InputError, check_bounds


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


def limited(
    labels: np.ndarray,
    sizes: np.ndarray,
    limit: int | None,
    seed: int,
    name: str,
    works: Callable[[np.ndarray], bool] = np.all,
) -> np.ndarray:
    """Choose ``limit`` of the labels ``(N,)``, each class in its share; all where it is None.

    ``sizes`` ``(K,)`` counts each class. ``name`` is the limit's name in messages. ``works`` tells
    whether numbers by class ``(K,)`` are enough. Returns booleans ``(N,)``.

    Raises
    ------
    InputError
        Where there are fewer labels, or where too few of a class are chosen and a higher limit
        would be enough.
    """
    if limit is None:
        return np.ones(len(labels), bool)
    check_bounds(name, limit, f"at least 1, at most {len(labels)}")
    if not works(shares(sizes, limit)) and works(sizes):
        smallest = next(n for n in range(1, len(labels) + 1) if works(shares(sizes, n)))
        raise InputError(
            f"{name} is {limit}, which leaves a class without images in a split; "
            f"the smallest that works is {smallest}"
        )
    return stratified(labels, limit, seed)


def held_out(
    labels: np.ndarray, sizes: np.ndarray, fraction: float, seed: int, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the labels, or ``limit`` of them, into training and validation, as booleans ``(N,)``.

    ``fraction``, at least 0 and below 1, is the share for validation. The other arguments are those
    of :func:`limited`.

    Raises
    ------
    InputError
        Where ``limit`` or ``fraction`` leaves a class without images in a split.
    """

    def works(kept: np.ndarray, count: int | None = None) -> bool:
        held = shares(kept, round(kept.sum() * fraction) if count is None else count)
        return bool(np.all((held > 0) & (held < kept)))

    if not fraction:
        return limited(labels, sizes, limit, seed, "train_limit"), np.zeros(len(labels), bool)
    kept = limited(labels, sizes, limit, seed, "train_limit", works)
    kept_sizes, total = np.bincount(labels[kept], minlength=len(sizes)), int(kept.sum())
    if not works(kept_sizes):
        enough = [count for count in range(1, total) if works(kept_sizes, count)]
        raise InputError(
            f"validation_fraction is {fraction:g}, which leaves a class without images in a split; "
            + (
                f"of {total} images it takes {enough[0] / total:.6g} to {enough[-1] / total:.6g}"
                if enough
                else "a class has fewer than two images to divide"
            )
        )
    held = np.zeros(len(labels), bool)
    held[kept] = stratified(labels[kept], round(total * fraction), seed)
    return kept & ~held, held
