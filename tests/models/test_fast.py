"""The fast layers compute what Keras's own compute, and a plain model is Keras's alone."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_utils.models import accelerate, build_model, fast, to_plain
from cifar_utils.models.plain import foreign_layers
from cifar_utils.training import fit

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="other backends compute as Keras does"
)
layers = keras.layers


def to_numpy(tensor):
    return np.asarray(tf.cast(tensor, "float32"))


def chain(*row, shape):
    """A model of layers in a row, with weights that are not those of a new layer."""
    inputs = x = keras.Input(shape)
    for layer in row:
        x = layer(x)
    model = keras.Model(inputs, x)
    random = np.random.default_rng(2)
    for weight in model.weights:
        weight.assign(random.normal(0.5, 0.3, weight.shape) ** 2 + 0.1)
    return model


def step(model, images, training):
    """A model's output, the gradients of its input and its weights, and its statistics then."""
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        output = model(images, training=training)
        upstream = tf.reshape(tf.range(tf.size(output), dtype="float32"), tf.shape(output))
        product = tf.reduce_sum(tf.cast(output, "float32") * tf.sin(upstream))
    weights = [weight.value for weight in model.trainable_weights]
    gradients = tape.gradient(product, [images, *weights])
    return [*map(to_numpy, (output, *gradients, *model.non_trainable_weights))]


def assert_same(model, count=6, training=True):
    """Accelerate the model, and compare a step with one of it as it was."""
    images = np.random.default_rng(0).normal(1, 2, (count, *model.input_shape[1:]))
    policy = next((layer.compute_dtype for layer in model.layers[1:]), "float32")
    # In bfloat16, Keras's own sums of some hundred products are wrong by up to a twentieth.
    tolerance = 1e-5 if policy == "float32" else 1e-1
    weights = model.get_weights()
    expected = step(model, images.astype("float32"), training)
    model.set_weights(weights)
    found = step(accelerate(model), images.astype("float32"), training)
    for one, other in zip(expected, found, strict=True):
        scale = float(np.abs(one).max())
        np.testing.assert_allclose(other, one, rtol=tolerance, atol=tolerance * max(scale, 1))
    return model


def assert_same_outputs(model, size, tolerance=1e-5):
    """Accelerate the model, and compare its output with that before."""
    images = np.random.default_rng(0).normal(size=(2, *size)).astype("float32")
    before, after = (to_numpy(each(images)) for each in (model, accelerate(model)))
    np.testing.assert_allclose(after, before, rtol=tolerance, atol=tolerance)


def kinds(model):
    return [
        type(layer).__name__ for layer in model.layers if type(layer).__module__ == fast.__name__
    ]


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "bfloat16"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"scale": False, "momentum": 0.6}, {"center": False}, {"axis": 1}, {"renorm": True}],
)
def test_batch_normalization(dtype, training, options):
    model = chain(layers.BatchNormalization(**options, dtype=dtype), shape=(5, 7, 3))
    assert_same(model, training=training)


def test_batch_normalization_of_vectors_and_of_frozen_layers():
    assert_same(chain(layers.BatchNormalization(), shape=(5,)))
    frozen = layers.BatchNormalization(trainable=False)
    model = assert_same(chain(frozen, shape=(5, 7, 3)))
    assert not model.trainable_weights


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float32", (3, 5, 7)), ("mixed_bfloat16", (3, 5, 7)), ("float64", (5,))],
)
def test_gelu(dtype, shape):
    model = assert_same(chain(layers.Activation("gelu", dtype=dtype), shape=shape))
    assert kinds(model) == ["Activation"]
    assert_same(chain(layers.Activation("elu"), shape=shape))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"groups": -1, "scale": False}, {"groups": 3, "axis": 1}]
)
def test_group_normalization(dtype, options):
    model = assert_same(chain(layers.GroupNormalization(**options, dtype=dtype), shape=(3, 7, 4)))
    assert kinds(model) == ["GroupNormalization"]


@pytest.mark.parametrize(("mean", "deviation"), [(0, 1), (30, 0.1), (3000, 1)])
def test_group_normalization_of_numbers_far_from_zero(mean, deviation):
    images = np.random.default_rng(0).normal(mean, deviation, (2, 8, 8, 4)).astype("float32")

    def results(kind, dtype):
        layer, given = kind(2, dtype=dtype), tf.constant(images.astype(dtype))
        layer.build(images.shape)
        with tf.GradientTape() as tape:
            tape.watch(given)
            output = layer(given)
            product = tf.reduce_sum(output * tf.sin(tf.reshape(output, (2, 8, 8, 4))))
        weights = [weight.value for weight in layer.trainable_weights]
        return [*map(to_numpy, (output, *tape.gradient(product, [given, *weights])))]

    exact = results(layers.GroupNormalization, "float64")
    for one, other in zip(results(fast.GroupNormalization, "float32"), exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-3 * np.abs(other).max())


def test_group_normalization_of_images_of_any_size():
    model = chain(layers.GroupNormalization(2), shape=(None, None, 4))
    assert_same_outputs(model, (5, 3, 4))


SIZES = st.integers(1, 9)


@settings(max_examples=12)
@given(
    dtype=st.sampled_from(["mixed_bfloat16", "float32"]),
    image=st.tuples(SIZES, SIZES),
    kernel=st.sampled_from([1, 3, (3, 1)]),
    channels=st.sampled_from([(5, 1), (6, 2), (6, 3)]),
    stride=st.sampled_from([{}, {"strides": 2}, {"dilation_rate": 2}]),
    padding=st.sampled_from(["same", "valid"]),
    bias=st.booleans(),
    activation=st.sampled_from([None, "gelu"]),  # smooth: roundings do not flip it
)
def test_convolutions(dtype, image, kernel, channels, stride, padding, bias, activation):
    padding = "same" if min(image) < 5 else padding
    options = {"padding": padding, "use_bias": bias, "activation": activation, "dtype": dtype}
    inputs, groups = channels
    layer = layers.Conv2D(2 * inputs, kernel, groups=groups, **stride, **options)
    assert_same(chain(layer, shape=(*image, inputs)), count=5)


@pytest.mark.parametrize("size", [3, 7, 8])
@pytest.mark.parametrize("count", [1, 6, 8])
def test_filters_over_narrow_images(size, count):
    layer = layers.Conv2D(16, 3, padding="same", use_bias=False, dtype="mixed_bfloat16")
    assert_same(chain(layer, shape=(size, size, 5)), count)


def test_channels_may_come_first():
    options = {"padding": "same", "data_format": "channels_first", "dtype": "mixed_bfloat16"}
    layer = layers.Conv2D(4, 3, **options)
    try:
        layer(np.zeros((2, 3, 8, 8), "float32"))
    except tf.errors.UnimplementedError:
        pytest.skip("TensorFlow has no such convolution in bfloat16 on this processor")
    assert_same_outputs(chain(layer, shape=(3, 8, 8)), (3, 8, 8), tolerance=0)


def test_subclasses_and_layers_without_a_configuration_stay():
    class Mine(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return 2 * super().convolution_op(inputs, kernel)

    class Other(layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)

    row = Mine(4, 3), layers.Lambda(lambda x: x + 1), Other(keras.ops.abs), layers.Conv2D(4, 3)
    model = assert_same(chain(*row, shape=(7, 7, 3)))
    assert kinds(model) == ["Conv2D"]
    assert type(model.layers[1]) is Mine


def test_models_within_a_model_and_frozen_layers():
    x = inputs = keras.Input((12, 12, 3))
    base = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization()], name="base")
    base.build((None, 12, 12, 3))
    base.layers[0].trainable = False
    shared = layers.Conv2D(4, 3, padding="same")
    x = base(x, training=False)
    model = keras.Model(inputs, layers.ReLU()(shared(shared(x)) - x))
    assert kinds(assert_same(model)) == ["Conv2D"]
    assert kinds(base) == ["Conv2D", "BatchNormalization"]
    plain = to_plain(model)
    assert [x.name for x in plain.layers[1:]] == [x.name for x in model.layers[1:]]
    for pick in ("trainable_weights", "non_trainable_weights"):
        before, after = (getattr(each, pick) for each in (model, plain))
        assert [v.path.split("/")[-2:] for v in after] == [v.path.split("/")[-2:] for v in before]
        assert all(np.array_equal(*map(to_numpy, pair)) for pair in zip(before, after, strict=True))
    assert kinds(plain) == kinds(plain.get_layer("base")) == []


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (
            layers.Bidirectional(layers.LSTM(4, dtype="mixed_bfloat16"), dtype="mixed_bfloat16"),
            (5, 3),
        ),
        (layers.TimeDistributed(layers.Dense(4, dtype="bfloat16"), dtype="bfloat16"), (5, 3)),
    ],
)
def test_layers_in_a_wrapper_become_precise_too(layer, shape):
    plain = to_plain(chain(layer, shape=shape)).layers[-1]
    inner = plain.forward_layer if isinstance(plain, layers.Bidirectional) else plain.layer
    assert {each.dtype_policy.name for each in (plain, inner)} == {"float32"}
    assert {weight.dtype for weight in plain.weights} == {"float32"}


class Block(keras.Model):
    """A model with its own ``call``."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.dense = layers.Dense(units)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {"units": self.dense.units}


def test_a_model_with_its_own_call_keeps_its_weights():
    model = chain(Block(5), layers.ReLU(), shape=(3,))
    x = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    np.testing.assert_array_equal(*(to_numpy(each(x)) for each in (model, to_plain(model))))


def of_each_kind(x, classes):
    x = layers.Activation("gelu")(layers.BatchNormalization()(layers.Conv2D(8, 3)(x)))
    x = layers.GroupNormalization(2)(layers.Conv2D(8, 3, strides=2)(x))
    x = layers.Dropout(0.1)(layers.ReLU()(x))
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(x))


def test_training_is_that_of_keras_own_layers(digits):
    losses, options = [], {"augmentation": "crop, flip", "precision": "float32"}
    for quick in (True, False):
        model = build_model(of_each_kind, digits, fast=quick, **options)
        assert bool(kinds(model)) == quick
        settings = {"epochs": 2, "batch_size": 45, "learning_rate": 0.003, "optimizer": "muon"}
        history = fit(model, digits.train, digits.validation, **settings)
        losses.append([row[key] for row in history.epochs for key in ("loss", "val_loss")])
    np.testing.assert_allclose(*losses, rtol=2e-3)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(4, 3, padding="same", use_bias=False),
        lambda: layers.GroupNormalization(2),
    ],
)
def test_the_gradient_of_a_single_pixel_s_maximum_has_a_shape(digits, layer):
    def network(x, classes):  # TensorFlow does not tell the shape of this gradient
        x = layers.GlobalMaxPooling2D()(layer()(layers.Conv2D(4, x.shape[1])(x)))
        return layers.Dense(classes)(x)

    model = build_model(network, digits, precision="mixed_bfloat16")
    assert kinds(model)
    assert fit(model, digits.train, digits.validation, epochs=1).epochs[0]["loss"] < 20


def test_layers_that_keras_can_not_load_alone_are_named():
    def double(x):
        return 2 * x

    row = (layers.Dense(3, double, name="a"), layers.Lambda(lambda x: x, name="b"), layers.ReLU())
    assert foreign_layers(to_plain(chain(*row, shape=(4,)))) == ["a", "b"]
