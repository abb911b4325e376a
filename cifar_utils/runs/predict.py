"""Classify your own pictures by the model of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import softmax

from cifar_utils.data.folder import list_pictures
from cifar_utils.data.pictures import read_pictures
from cifar_utils.errors import InputError, check_count

if TYPE_CHECKING:
    from cifar_utils.runs.folder import Run


def predict(run: Run, *pictures: Path | str, top: int = 3) -> pd.DataFrame:
    """Classify pictures of any size, or all pictures in folders, by the model of a run.

    They are resized as by :func:`~cifar_utils.data.load_dataset`. They may be grey or have
    transparent pixels, which become white.

    Returns
    -------
    A row for each of the ``top`` most probable classes of a picture, the most probable one first:
    ``picture``, ``class`` and ``probability``.

    Raises
    ------
    InputError
        Where no picture is given, one is missing or can't be read, a folder holds none, or the run
        has no model.

    """
    check_count("top", top)
    if not pictures:
        raise InputError("no picture is given; give the paths of pictures, or of folders of them")
    size = run.model.input_shape[1]
    names = run.scores.class_names
    paths = []
    for path in map(Path, pictures):
        paths += list_pictures(path, f"folder {path}") if path.is_dir() else [path]
    images = read_pictures("decoding", paths, size)
    probabilities = softmax(run.model.predict(images, verbose=0), axis=1)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    rows = [
        (str(path), names[label], float(shares[label]))
        for path, shares, labels in zip(paths, probabilities, best, strict=True)
        for label in labels
    ]
    return pd.DataFrame(rows, columns=["picture", "class", "probability"])
