"""The fused layers give what Keras's own give: outputs, gradients and statistics."""

from functools import partial

import keras
import numpy as np
import pytest

from cifar_utils.models import fused

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="other backends compute as Keras does"
)


def both_ways(layer, images, upstream, **options):
    """A layer's output, and the gradients of its input and its weights, in float32."""

    @tf.function
    def compute(images, upstream):
        with tf.GradientTape() as tape:
            tape.watch(images)
            output = layer(images, **options)
            product = tf.reduce_sum(tf.cast(output, "float32") * upstream)
        return output, tape.gradient(product, [images, *(v.value for v in layer.trainable_weights)])

    output, gradients = compute(tf.constant(images), tf.constant(upstream))
    return [np.asarray(tf.cast(value, "float32")) for value in (output, *gradients)]


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(1, 2, (6, 5, 7, 4)).astype("float32")


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_batch_normalization_is_keras_own(images, dtype, training, scale):
    upstream = np.random.default_rng(1).normal(size=images.shape).astype("float32")
    found = []
    for kind in (keras.layers.BatchNormalization, fused.BatchNormalization):
        layer = kind(momentum=0.6, epsilon=1e-5, scale=scale, dtype=dtype)
        layer.build(images.shape)
        layer.moving_mean.assign([0.5, 1, 1.5, 2])
        values = both_ways(layer, images, upstream, training=training)
        statistics = [np.asarray(weight) for weight in layer.non_trainable_weights]
        found.append((values, statistics))
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    for expected, value in zip(*(values for values, _ in found), strict=True):
        assert value == pytest.approx(expected, rel=tolerance, abs=10 * tolerance)
    for expected, value in zip(*(statistics for _, statistics in found), strict=True):
        assert value == pytest.approx(expected, rel=tolerance / 3, abs=tolerance / 3)


def test_batch_normalization_that_is_frozen_is_left_alone(images):
    layer = fused.BatchNormalization()
    layer.build(images.shape)
    layer.trainable = False
    assert np.asarray(layer(images, training=True)) == pytest.approx(images, rel=1e-2)
    assert not np.any(layer.moving_mean)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("options", [{"groups": 2}, {"groups": -1, "scale": False}])
def test_group_normalization_and_relu_are_keras_own(images, dtype, options):
    upstream = np.random.default_rng(1).normal(size=images.shape).astype("float32")
    normalize = keras.layers.GroupNormalization(**options, dtype=dtype)
    own = keras.Sequential([normalize, keras.layers.ReLU(dtype=dtype)])
    fast = fused.GroupNormReLU(**options, dtype=dtype)
    found = []
    for layer in (own, fast):
        layer.build(images.shape)
        for weight in layer.trainable_weights:
            weight.assign(np.random.default_rng(2).normal(0.5, 1, weight.shape))
        found.append(both_ways(layer, images, upstream))
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    for expected, value in zip(*found, strict=True):
        assert value == pytest.approx(expected, rel=tolerance, abs=10 * tolerance)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("options", [{}, {"strides": 2, "depth_multiplier": 2, "use_bias": False}])
def test_a_separable_convolution_is_keras_own(images, dtype, options):
    found = []
    for kind in (keras.layers.SeparableConv2D, fused.SeparableConv2D):
        layer = kind(8, 3, padding="same", activation="relu", dtype=dtype, **options)
        layer.build(images.shape)
        for weight in layer.trainable_weights:
            weight.assign(np.random.default_rng(2).normal(0.5, 0.3, weight.shape))
        upstream = np.random.default_rng(1).normal(size=layer.compute_output_shape(images.shape))
        found.append(both_ways(layer, images, upstream.astype("float32")))
    for expected, value in zip(*found, strict=True):
        tolerance = 1e-5 if dtype == "float32" else 3e-2
        assert value == pytest.approx(
            expected, rel=tolerance, abs=tolerance * float(np.abs(expected).max())
        )


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_gelu_is_keras_own(dtype):
    x = np.linspace(-12, 12, 301, dtype="float32")
    expected, slope = both_ways(
        keras.layers.Activation("gelu", dtype="float32"), x, np.ones_like(x)
    )
    output, gradient = both_ways(fused.GELU(dtype=dtype), x, np.ones_like(x))
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    assert output == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert gradient == pytest.approx(slope, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("size", [3, 7, 8, 9])
@pytest.mark.parametrize("count", [1, 6, 8])
def test_filters_over_narrow_images_have_keras_own_gradient(size, count):
    random = np.random.default_rng(2)
    images = random.normal(size=(count, size, size, 5)).astype("float32")
    upstream = random.normal(size=(count, size, size, 16)).astype("float32")
    found = []
    for kind in (keras.layers.Conv2D, fused.Conv2D):
        layer = kind(16, 3, padding="same", use_bias=False, dtype="mixed_bfloat16")
        layer.build(images.shape)
        layer.kernel.assign(np.random.default_rng(3).normal(size=(3, 3, 5, 16)))
        found.append(both_ways(layer, images, upstream))
    for expected, value in zip(*found, strict=True):
        assert value == pytest.approx(expected, rel=3e-2, abs=3e-2 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    "kind", [fused.BatchNormalization, fused.GELU, partial(fused.GroupNormReLU, 3)]
)
def test_fused_layers_save_and_load(kind, tmp_path, images):
    inputs = keras.Input(images.shape[1:])
    convolved = fused.SeparableConv2D(3, 3)(fused.Conv2D(3, 3, padding="same")(inputs))
    model = keras.Model(inputs, kind()(convolved))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
