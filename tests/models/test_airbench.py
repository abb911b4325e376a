import dataclasses

import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from cifar_utils.backend import keras
from cifar_utils.data.dataset import Split
from cifar_utils.models import build_model
from cifar_utils.models.airbench import PartialIdentity, PatchWhitening
from cifar_utils.training import fit


def whitening(model):
    (layer,) = [x for x in model.layers if isinstance(x, PatchWhitening)]
    return layer


def test_a_triple_ends_with_its_shortcut(digits):
    model = build_model("airbench96(width=0.1)", digits, precision="float32")
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D) and layer.kernel.shape[2] == layer.filters:
            layer.kernel.assign(0 * layer.kernel)
    sums = [layer for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert len(sums) == 3
    pairs = [(layer.input[1], layer.output) for layer in sums]
    for start, end in keras.Model(model.input, pairs)(digits.train.images[:4]):
        np.testing.assert_allclose(end, start)
        assert np.abs(to_numpy(start)).max() > 0


def test_patches_come_out_decorrelated_and_of_variance_one(digits, with_images):
    layer = whitening(build_model("airbench", with_images(digits, 32), precision="float32"))
    images = np.random.default_rng(0).normal(size=(200, 32, 32, 3)).astype(np.float32)
    smooth = images + np.roll(images, 1, axis=1) + 0.5 * np.roll(images, 1, axis=2)
    layer.whiten(smooth)
    found = to_numpy(layer(smooth)).reshape(-1, 24)
    np.testing.assert_allclose(found[:, :12], -found[:, 12:], atol=1e-4)
    np.testing.assert_allclose(found[:, :12].T @ found[:, :12] / len(found), np.eye(12), atol=0.02)


def test_grey_images_are_whitened_where_they_vary(digits, with_images):
    layer = whitening(build_model("airbench", with_images(digits, 32), precision="float32"))
    grey = np.random.default_rng(0).normal(size=(200, 32, 32, 1)).astype(np.float32)
    images = np.repeat(grey + np.roll(grey, 1, axis=1), 3, axis=-1)
    layer.whiten(images)
    np.testing.assert_allclose(to_numpy(layer(images)).std(axis=(0, 1, 2)), 1, atol=0.02)


def test_whitening_sees_images_of_all_classes_of_a_folder(digits):
    kernels = []
    for last in (0, 1):  # 5,000 black images of a class, then another class
        images = np.zeros((6000, *digits.image_shape), np.uint8)
        images[5000:] = last * np.resize(digits.train.images, images[5000:].shape)
        sorted_by_class = Split(images, np.arange(6000) // 5000)
        data = dataclasses.replace(digits, train=sorted_by_class)
        model = build_model("airbench(width=0.1)", data, normalization="half")
        kernels.append(to_numpy(whitening(model).kernel))
    assert not np.allclose(*kernels)


def test_training_freezes_the_bias_in_time_and_trains_it_again_the_next_time(digits):
    none = Split(*(part[:0] for part in digits.validation))  # so that the last epoch is kept
    some = Split(*(part[:256] for part in digits.train))

    def bias_after(model, epochs):
        whitening(model).bias_epochs = 1
        fit(model, some, none, epochs=epochs, optimizer="sgd(momentum=0)")
        return to_numpy(whitening(model).bias)

    one, three = (
        build_model("airbench(width=0.1)", digits, precision="float32", seed=0) for _ in range(2)
    )
    first = bias_after(one, 1)
    assert first.any()
    np.testing.assert_array_equal(bias_after(three, 3), first)
    assert (bias_after(three, 1) != first).all()


def test_filters_start_as_partial_identities():
    kernel = to_numpy(PartialIdentity()((3, 3, 4, 6)))
    image = np.random.default_rng(0).normal(size=(1, 5, 5, 4)).astype(np.float32)
    passed = to_numpy(keras.ops.conv(image, kernel, padding="same"))
    np.testing.assert_allclose(passed[..., :4], image, atol=1e-6)
    assert kernel[..., 4:].std() == pytest.approx((1 / 3 / 36) ** 0.5, rel=0.3)
