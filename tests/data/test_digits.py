import numpy as np
from sklearn.datasets import load_digits

from cifar_utils.data import load_dataset
from cifar_utils.data.digits import read_digits


def test_digits_are_sklearns_scaled_up_and_always_divided_the_same_way():
    names, train, test = read_digits()
    pixels, labels = load_digits(return_X_y=True)
    assert len(names) == 10
    assert train.images.shape == (1437, 32, 32, 3)
    assert test.images.shape == (360, 32, 32, 3)
    assert train.images.dtype == np.uint8
    everything = np.concatenate([train.labels, test.labels])
    np.testing.assert_array_equal(np.bincount(everything), np.bincount(labels))
    assert np.abs(np.bincount(test.labels) - np.bincount(labels) / 5).max() < 1.1
    np.testing.assert_array_equal(read_digits()[2].images, test.images)
    # Averaged over each 4x4 pixels, an image is the original but for what smoothing carries over.
    first = train.images[0, ..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)) * 16 / 255
    nearest = np.abs(pixels.reshape(-1, 8, 8) - first).mean(axis=(1, 2)).argmin()
    assert labels[nearest] == train.labels[0]
    assert train.images.max() == 255
    assert (train.images[..., :1] == train.images).all()


def test_digits_are_those_of_the_published_runs():
    assert load_dataset("digits").fingerprint == (
        "c93ba1e7865aa0a8cab7f4b2acfc977b70f506c82767118e6fe23b2605083a4c"
    )
