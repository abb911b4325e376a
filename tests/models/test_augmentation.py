import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.backend import keras
from cifar_utils.models import AUGMENTATIONS
from cifar_utils.models.augmentation import PAD_MODES, augmentation_layers, crop


def augmented(layer, images, training=True):
    return keras.ops.convert_to_numpy(layer(images, training=training))


def noise(count, height=6, width=6, channels=3):
    return np.random.default_rng(0).integers(
        0, 256, (count, height, width, channels), dtype=np.uint8
    )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.sampled_from(PAD_MODES),
    st.tuples(st.integers(1, 5), st.integers(4, 9), st.integers(4, 9), st.integers(1, 3)),
)
def test_each_crop_is_a_window_of_the_padded_image_to_the_pixel(padding, mode, shape):
    images = noise(*shape)
    edge = (padding, padding)
    padded = np.pad(images, ((0, 0), edge, edge, (0, 0)), mode)
    cropped = augmented(crop(padding, mode), images)
    assert cropped.shape == images.shape
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape[1:3], axis=(1, 2))
    windows = np.moveaxis(windows, 3, -1)  # (N, rows, columns, H, W, C)
    same = (windows == cropped[:, None, None]).all((3, 4, 5))
    assert same.any((1, 2)).all()


def test_every_window_is_drawn_and_each_image_draws_its_own():
    image = noise(1)
    windows = np.unique(augmented(crop(1), np.repeat(image, 300, axis=0)), axis=0)
    assert len(windows) == 9


def test_flips_mirror_each_image_with_probability_one_half():
    (image,) = noise(1)
    mirrored = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    for text, kinds in {"flip": [0, 1], "flip('vertical')": [0, 2]}.items():
        (layer,) = augmentation_layers(text)
        flipped = augmented(layer, np.repeat(image[None], 400, axis=0))
        counts = [(flipped == kind).all((1, 2, 3)).sum() for kind in mirrored]
        assert sum(counts) == sum(counts[kind] for kind in kinds) == 400
        assert min(counts[kind] for kind in kinds) > 140
    both = np.repeat(image[None], 400, axis=0)
    for layer in augmentation_layers("flip, flip('vertical')"):
        both = augmented(layer, both)
    assert all(50 < (both == kind).all((1, 2, 3)).sum() < 150 for kind in mirrored)


@given(st.integers(0, 2**40), st.integers(0, 100), st.permutations(range(40)))
@settings(deadline=None, max_examples=20)
def test_alternating_flips_show_each_image_both_ways_in_two_epochs(seed, epoch, index):
    (layer,) = augmentation_layers("alternating_flip")
    images, index = noise(40), np.array(index)

    def mirrored(index, epoch):
        changed = layer.change(images[index], index, seed, epoch)
        turned = (changed == images[index][:, :, ::-1]).all((1, 2, 3))
        np.testing.assert_array_equal(changed[~turned], images[index][~turned])
        return turned

    now = mirrored(index, epoch)
    assert 5 <= now.sum() <= 35
    np.testing.assert_array_equal(mirrored(index, epoch + 1), ~now)
    np.testing.assert_array_equal(mirrored(index, epoch + 2), now)
    np.testing.assert_array_equal(mirrored(index[:7], epoch), now[:7])


def test_other_seeds_flip_other_images():
    (layer,) = augmentation_layers("alternating_flip")
    images, index = noise(40), np.arange(40)
    first, second = (layer.change(images, index, seed, 0) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS.keys() - {"alternating_flip"}))
def test_augmentation_draws_per_image_in_training_and_is_nothing_otherwise(name):
    (layer,) = augmentation_layers(name)
    images = np.repeat(noise(1, 16, 16), 40, axis=0)
    for unchanged in (augmented(layer, images, training=False), layer(images)):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(unchanged), images)
    first, second = augmented(layer, images), augmented(layer, images)
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 255
    assert len(np.unique(first, axis=0)) > 1
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", ["rotation", "shift"])
def test_what_comes_into_view_repeats_the_edge(name):
    (layer,) = augmentation_layers(name)
    white = np.full((20, 16, 16, 3), 255, np.uint8)
    np.testing.assert_allclose(augmented(layer, white), 255, atol=0.01)


def test_shifts_and_rotations_stay_within_their_limits():
    rows = np.broadcast_to(np.arange(100, dtype=np.float32)[:, None, None], (50, 100, 20, 1))
    (layer,) = augmentation_layers("shift(0.1)")
    moved = np.abs(augmented(layer, rows) - rows).max((1, 2, 3))
    assert 5 < moved.max() <= 10.01
    point = np.zeros((50, 101, 101, 1), np.float32)
    point[:, 50, 95] = 255
    (layer,) = augmentation_layers("rotation(30)")
    turned = augmented(layer, point)[..., 0].reshape(50, -1).argmax(1)
    angles = np.degrees(np.arctan2(turned // 101 - 50, turned % 101 - 50))
    assert 20 < np.abs(angles).max() <= 31


def test_layers_come_in_the_order_of_the_text():
    layers = augmentation_layers("flip, crop(2, 'reflect'), flip('vertical')")
    assert [type(layer).__name__ for layer in layers] == ["RandomFlip", "RandomCrop", "RandomFlip"]
    assert (layers[1].padding, layers[1].mode) == (2, "reflect")


COMPILED = """\
import numpy as np
from cifar_utils.backend import keras
from cifar_utils.models.augmentation import augmentation_layers
layers = augmentation_layers("crop, flip, rotation, shift")
model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Flatten()])
model.add(keras.layers.Dense(2))
model.compile("sgd", "mse", jit_compile=True)
assert model.jit_compile
images = np.random.default_rng(0).random((4, 8, 8, 3))
states = [np.array(layer.variables[0]) for layer in layers]
assert np.isfinite(model.train_on_batch(images, np.zeros((4, 2))))
assert not any(np.array_equal(a, layer.variables[0]) for a, layer in zip(states, layers))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_jax_compiles_every_augmentation():
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-W", "error:Model doesn't support", "-c", COMPILED]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
