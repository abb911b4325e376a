import dataclasses
import functools

import numpy as np
import pytest

from cifar_utils.data import Split, load_dataset
from cifar_utils.models import build_model


@pytest.fixture(scope="session")
def digits():
    """Two hundred digits, 180 of them to train on."""
    return load_dataset("digits", train_limit=200, test_limit=20)


@pytest.fixture(scope="session")
def with_images():
    """The same dataset of other images: ``with_images(dataset, size=16, classes=3)``."""

    def change(dataset, size, classes=10):
        images = np.random.default_rng(0).integers(0, 256, (6, size, size, 3), np.uint8)
        split = Split(images, np.arange(6) % classes)
        names = tuple(map(str, range(classes)))
        return dataclasses.replace(
            dataset, class_names=names, train=split, validation=split, test=split
        )

    return change


@pytest.fixture(scope="session")
def built(digits):
    """Each architecture, built once for digits in float32, of Keras's own layers."""
    return functools.cache(lambda name: build_model(name, digits, precision="float32", fast=False))
