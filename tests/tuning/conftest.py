import pytest
from keras import layers, ops

from cifar_utils.models import ARCHITECTURES
from cifar_utils.tuning import Study

IMAGES = {"name": "digits", "train_limit": 200, "test_limit": 20, "validation_fraction": 0.3}
SPACE = "learning_rate(0.001, 0.1), weight_decay(0.0001, 0.01), dropout(0, 0.5), width(8, 32, 8)"


def tiny(x, classes: int, width: int = 16, dropout: float = 0.0):
    """A network that learns digits in a second, but not at a width of 9."""
    x = layers.Conv2D(width, 5, strides=4)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = ops.zeros_like(x) if width == 9 else x
    return layers.Dense(classes)(layers.Dropout(dropout)(layers.Flatten()(x)))


@pytest.fixture
def study():
    """Make a study of the tiny network, or of another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "tiny", tiny)

        def study(**change):
            settings = {
                "images": IMAGES, "space": SPACE, "architecture": "tiny", "trials": 4, "epochs": 3,
                "batch_size": 32, "optimizer": "adam", "schedule": "cosine(0.1)",
                "augmentation": "crop(2)",
            }  # fmt: skip
            return Study(**settings | change)

        yield study
