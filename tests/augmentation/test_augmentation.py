import colorsys
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.augmentation import augmentation_layers
from cifar_utils.backend import keras
from cifar_utils.choices import REGISTRIES
from cifar_utils.models import build_model

AUGMENTATIONS = REGISTRIES["augmentation"]
OF_BATCHES = {"alternating_flip"}
OF_EPOCHS = {"shrink"}
OF_IMAGES = sorted(AUGMENTATIONS.keys() - OF_BATCHES - OF_EPOCHS)


def layer_of(text):
    (layer,) = augmentation_layers(text)
    return layer


def augmented(layer, images):
    """What the layer makes of images, not compiled, which for a few calls would take longer."""
    layer.build(images.shape)
    changed = layer.transform(np.float32(images), *layer.draw(len(images)))
    return keras.ops.convert_to_numpy(changed)


def noise(count, height=6, width=6, channels=3):
    return np.random.default_rng(0).integers(
        0, 256, (count, height, width, channels), dtype=np.uint8
    )


@settings(max_examples=15)
@given(
    st.integers(1, 3),
    st.sampled_from(["constant", "reflect"]),
    st.tuples(st.integers(1, 5), st.integers(4, 9), st.integers(4, 9), st.integers(1, 3)),
)
def test_each_crop_is_a_window_of_the_padded_image_to_the_pixel(padding, mode, shape):
    images = noise(*shape)
    edge = (padding, padding)
    padded = np.pad(images, ((0, 0), edge, edge, (0, 0)), mode)
    cropped = augmented(layer_of(f"crop({padding}, {mode!r})"), images)
    assert cropped.shape == images.shape
    windows = np.lib.stride_tricks.sliding_window_view(padded, shape[1:3], axis=(1, 2))
    windows = np.moveaxis(windows, 3, -1)  # (N, rows, columns, H, W, C)
    same = (windows == cropped[:, None, None]).all((3, 4, 5))
    assert same.any((1, 2)).all()


def test_a_mirroring_crop_of_images_that_shrink_made_too_small_does_not_mix_them():
    layer = layer_of("crop(5, 'reflect')")
    images = np.stack([np.full((4, 4, 3), 7.0), np.full((4, 4, 3), 100.0)]).astype("float32")
    for place in range(11):
        corner = np.full((2, 1), place)
        assert (keras.ops.convert_to_numpy(layer.transform(images, corner, corner)) == images).all()


def test_every_window_is_drawn_and_each_image_draws_its_own():
    image = noise(1)
    windows = np.unique(augmented(layer_of("crop(1)"), np.repeat(image, 300, axis=0)), axis=0)
    assert len(windows) == 9


def test_flips_mirror_each_image_with_probability_one_half():
    (image,) = noise(1)
    mirrored = [image, image[:, ::-1], image[::-1], image[::-1, ::-1]]
    for text, kinds in {"flip": [0, 1], "flip('vertical')": [0, 2]}.items():
        flipped = augmented(layer_of(text), np.repeat(image[None], 400, axis=0))
        counts = [(flipped == kind).all((1, 2, 3)).sum() for kind in mirrored]
        assert sum(counts) == sum(counts[kind] for kind in kinds) == 400
        assert min(counts[kind] for kind in kinds) > 140
    both = np.repeat(image[None], 400, axis=0)
    for layer in augmentation_layers("flip, flip('vertical')"):
        both = augmented(layer, both)
    assert all(50 < (both == kind).all((1, 2, 3)).sum() < 150 for kind in mirrored)


def test_all_images_are_flipped_or_the_whole_batch_by_one_draw():
    images = noise(30)
    every = layer_of("flip(probability=1)")
    np.testing.assert_array_equal(augmented(every, images), images[:, :, ::-1])
    np.testing.assert_array_equal(augmented(every, augmented(every, images)), images)
    at_once = layer_of("flip(per_batch=True)")
    batches = [augmented(at_once, images) for _ in range(40)]
    turned = [np.array_equal(batch, images[:, :, ::-1]) for batch in batches]
    assert [np.array_equal(batch, images) for batch in batches] == [not turn for turn in turned]
    assert 5 < sum(turned) < 35
    seldom = augmented(layer_of("flip(probability=0.1)"), np.repeat(images[:1], 400, axis=0))
    assert 10 < (seldom != images[0]).any((1, 2, 3)).sum() < 80


@given(st.integers(0, 2**40), st.integers(0, 100), st.permutations(range(40)))
@settings(max_examples=20)
def test_alternating_flips_show_each_image_both_ways_in_two_epochs(seed, epoch, index):
    layer = layer_of("alternating_flip")
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


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_augmentation_is_nothing_outside_training(name):
    layer, images = layer_of(name), noise(4, 20, 20)
    calls = [layer(images, training=False), layer(images)]
    # What changes batches does so before the layers are called.
    calls += [layer(images, training=True)] if name in OF_BATCHES else []
    for unchanged in calls:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(unchanged), images)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_each_image_draws_its_own_change_anew(name):
    layer, images = layer_of(name), np.repeat(noise(1, 16, 16), 40, axis=0)
    first, second = augmented(layer, images), augmented(layer, images)
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 255
    assert len(np.unique(first, axis=0)) > 1
    assert not np.array_equal(first, second)
    layer.seed_generator.state.assign([3, 0])
    first = augmented(layer, images)
    layer.seed_generator.state.assign([3, 0])
    compiled = keras.ops.convert_to_numpy(layer(images, training=True))
    np.testing.assert_allclose(compiled, first, atol=0.01)


def moved(images, degrees=0.0, down=0.0, right=0.0):
    """All images rotated by an angle, then shifted by shares of their height and width."""
    draws = (np.full(len(images), x, np.float32) for x in (np.radians(degrees), down, right))
    return np.asarray(layer_of("affine").transform(np.float32(images), *draws))


@pytest.mark.parametrize(
    ("degrees", "down", "right"),
    [(0, 0, 0), (30, 0, 0), (-17, 0.1, -0.03), (0, 0.07, 0.1), (90, -0.5, 0.25), (180, 0.9, 0)],
)
def test_an_affine_map_is_scipy_s_interpolated_once_and_repeats_the_edge(degrees, down, right):
    images = noise(3, 9, 12)
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = np.array([(9 - 1) / 2, (12 - 1) / 2])
    offset = centre - turn @ (centre + np.array([down * 9, right * 12]))
    expected = [
        scipy.ndimage.affine_transform(channel, turn, offset, order=1, mode="nearest")
        for image in np.float64(images)
        for channel in np.moveaxis(image, -1, 0)
    ]
    expected = np.moveaxis(np.reshape(expected, (3, 3, 9, 12)), 1, -1)
    np.testing.assert_allclose(moved(images, degrees, down, right), expected, atol=0.01)


@pytest.mark.parametrize(
    ("text", "degrees", "fraction"),
    [
        ("affine", 30, 0.1),
        ("affine(5, 0.3)", 5, 0.3),
        ("rotation(40)", 40, 0),
        ("affine(0)", 0, 0.1),
    ],
)
def test_angles_and_shifts_are_drawn_for_each_image_within_their_limits(text, degrees, fraction):
    draws = layer_of(text).draw(2000)
    for drawn, limit in zip(draws, (np.radians(degrees), fraction, fraction), strict=True):
        drawn = keras.ops.convert_to_numpy(drawn).ravel()
        assert len(drawn) == 2000
        assert np.abs(drawn).max() <= limit
        np.testing.assert_allclose(
            np.quantile(drawn, [0, 0.25, 0.5, 0.75, 1]),
            limit * np.linspace(-1, 1, 5),
            atol=0.1 * limit,
        )
    assert fraction == 0 or abs(np.corrcoef(np.reshape(draws[1:], (2, 2000)))[0, 1]) < 0.1


def test_images_are_shrunk_in_the_first_epochs_and_keep_their_means():
    images = np.repeat(np.repeat(noise(4, 5, 5), 4, axis=1), 4, axis=2)
    layers = augmentation_layers("shrink(10, 2), shrink(15, 3)")
    sizes = []
    for layer in layers:
        layer.build(images.shape)
    for epoch in range(5):
        changed = [layer.begin_epoch(epoch) for layer in layers]
        assert any(changed) == (epoch in (0, 2, 3)), "whether a step must be traced again"
        shrunk = images
        for layer in layers:
            shrunk = keras.ops.convert_to_numpy(layer(shrunk, training=True))
        np.testing.assert_allclose(shrunk.mean((1, 2)), images.mean((1, 2)), rtol=0.1)
        sizes.append(shrunk.shape[1:3])
    assert sizes == [(10, 10), (10, 10), (15, 15), (20, 20), (20, 20)]
    shares = [min(layer.share_of_pixels(epoch) for layer in layers) for epoch in range(5)]
    assert shares == [0.25, 0.25, 0.5625, 1, 1], "of the pixels, and of a step's time"


@given(st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=15)
def test_contrast_keeps_means_and_narrows_what_is_around_them(one, other):
    lower, upper = sorted((one, other))
    images = np.float32(noise(20, 8, 8))
    changed = augmented(layer_of(f"contrast({lower}, {upper})"), images)
    np.testing.assert_allclose(changed.mean((1, 2)), images.mean((1, 2)), rtol=1e-4)
    factors = changed.std((1, 2)) / images.std((1, 2))
    np.testing.assert_allclose(factors, factors.mean(1, keepdims=True) + np.zeros(3), atol=1e-3)
    assert lower - 1e-3 <= factors.min() <= factors.max() <= upper + 1e-3


GREY = np.array([0.299, 0.587, 0.114])
STEPS = {  # torchvision's, of one image, one after the other
    "brightness": lambda image, factor: image * factor,
    "contrast": lambda image, factor: (
        (image - (image @ GREY).mean()) * factor + (image @ GREY).mean()
    ),
    "saturation": lambda image, factor: (
        (image - (image @ GREY)[..., None]) * factor + (image @ GREY)[..., None]
    ),
    "hue": lambda image, turn: np.apply_along_axis(turned, 2, image, turn),
}


def turned(pixel, turn):
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    return np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))


def test_colours_are_jittered_as_torchvision_s():
    random = np.random.default_rng(0)
    images = random.uniform(90, 150, (6, 4, 4, 3)).astype(np.float32)  # so that nothing is clipped
    values = dict(zip(STEPS, random.uniform(0.7, 1.3, (4, 6)), strict=True))
    values["hue"] = random.uniform(-0.5, 0.5, 6)
    draws = [np.float32(values[name])[:, None, None] for name in STEPS]
    changed = np.asarray(layer_of("colour_jitter").transform(images, *draws))
    for number, image in enumerate(images.astype(float)):
        for name, step in STEPS.items():
            image = step(image, values[name][number])
        np.testing.assert_allclose(changed[number], image, atol=0.01)


@given(st.integers(1, 11))
@settings(max_examples=11)
def test_a_hole_is_a_square_of_its_size_cut_off_by_the_edge_alone(size):
    images = np.float32(np.random.default_rng(0).choice([0, 255], (60, 12, 14, 3)))
    cut = augmented(layer_of(f"cutout({size})"), images)
    np.testing.assert_allclose(cut[cut != images], np.mean(images), atol=5)
    hidden = (cut != images).all(3)
    for hole in hidden:
        for axis, length in ((1, 12), (0, 14)):
            places = np.flatnonzero(hole.any(axis))
            assert len(places) == places[-1] - places[0] + 1
            assert len(places) == size or 0 in places or length - 1 in places
        assert hole.sum() == hole.any(0).sum() * hole.any(1).sum() <= size**2
    assert hidden.sum((1, 2)).max() == size**2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("crop(6)", "crop padding is 6 pixels; it must be less than the 6 that"),
        ("crop(6, 'reflect')", "it must be less than the 6 that the images have"),
        ("cutout(6)", "cutout size is 6 pixels; it must be less than the 6 that"),
        ("shrink(6)", "shrink size is 6 pixels; it must be less than the 6 that"),
    ],
)
def test_images_that_an_augmentation_cannot_take_are_one_line(refused, text, words):
    with refused(words):
        layer_of(text)(keras.Input((6, 6, 3)))


def test_a_model_of_lower_precision_takes_them_all(digits):
    def network(x, classes):
        return keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(x))

    everything = ", ".join(AUGMENTATIONS)
    model = build_model(network, digits, augmentation=everything, precision="mixed_bfloat16")
    images = digits.train.images[:8]
    plain, again = (keras.ops.convert_to_numpy(model(images)) for _ in range(2))
    np.testing.assert_array_equal(plain, again)
    changed = keras.ops.convert_to_numpy(model(images, training=True))
    assert np.isfinite(changed).all()
    assert not np.array_equal(changed, plain)
    layers = [layer for layer in model.layers if hasattr(layer, "transform")]
    within = AUGMENTATIONS.keys() - OF_BATCHES
    assert [layer.compute_dtype for layer in layers] == ["float32"] * len(within)


COMPILED = (
    f"names = {', '.join(OF_IMAGES)!r}"
    + """
import numpy as np
from cifar_utils.backend import keras
from cifar_utils.data import load_dataset
from cifar_utils.augmentation import augmentation_layers
layers = augmentation_layers(names)
model = keras.Sequential([keras.Input((16, 16, 3)), *layers, keras.layers.Flatten()])
model.add(keras.layers.Dense(2))
model.compile("sgd", "mse", jit_compile=True)
assert model.jit_compile
images = np.random.default_rng(0).random((4, 16, 16, 3))
states = [np.array(layer.variables[0]) for layer in layers]
assert np.isfinite(model.train_on_batch(images, np.zeros((4, 2))))
assert not any(np.array_equal(a, layer.variables[0]) for a, layer in zip(states, layers))
"""
)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_jax_compiles_every_augmentation():
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-W", "error:Model doesn't support", "-c", COMPILED]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
