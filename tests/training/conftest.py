import inspect

import pytest
from keras import layers

from cifar_utils.choices import REGISTRIES
from cifar_utils.data import load_dataset
from cifar_utils.models import build_model


def tiny(x, classes: int, dropout: float = 0.2):
    """A network that learns digits in a second."""
    x = layers.Conv2D(16, 5, strides=4)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    return layers.Dense(classes)(layers.Dropout(dropout)(layers.Flatten()(x)))


@pytest.fixture(scope="session")
def tiny_source():
    """The tiny network's code, for another process."""
    return f"from keras import layers\n\n{inspect.getsource(tiny)}"


@pytest.fixture(scope="session")
def digits():
    return load_dataset("digits", train_limit=300, test_limit=50)


@pytest.fixture(scope="module")
def build(digits):
    """Build the tiny network, or another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REGISTRIES["architecture"], "tiny", tiny)
        yield lambda name="tiny", **options: build_model(name, digits, **options)
